"""Prompts that hide something: a head, filler with needles between its pieces, and a question."""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, count, cycle, islice

from tasks.base import Document, Sample, Score, TaskError, Tokenizer
from tasks.fit import prefix
from tasks.spec import render

__all__ = [
    "DEPTH",
    "DEPTHS",
    "Haystack",
    "beginning",
    "by_depth",
    "depth_of",
    "following",
    "following_all",
    "hide",
    "padded",
    "pieces",
    "sample_of",
]

Tokens = tuple[int, ...]
ANCHORS = (".", "a", "1")
BATCH = 64
DEPTH = "depth "  # how the position of a value by depth begins
DEPTHS = 5
LONGEST = 64  # tokens of a piece; a longer sentence is cut into pieces
# A sentence with the blanks before it; a blank line ends one too.
SENTENCE = re.compile(
    r"\s*\S.*?(?:[.!?]+[\"')\]”’»]*(?=\s)|[。！？…]+[”’」』）]*|(?=\n[ \t]*\n)|\Z)",  # noqa: RUF001
    re.DOTALL,
)


def following(tokenizer: Tokenizer, text: str) -> Tokens:
    """Tokens of a text that stands behind another, without what a tokenizer puts before a first."""
    return following_all(tokenizer, [text])[0]


def following_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tokens]:
    """The same for many texts: encoded behind an anchor that does not merge with them."""
    for anchor in ANCHORS:
        before = tokenizer.encode(anchor)
        both = tokenizer.encode_batch([anchor + text for text in texts])
        if all(tokens[: len(before)] == before for tokens in both):
            return [tuple(tokens[len(before) :]) for tokens in both]
    return [tuple(tokens) for tokens in tokenizer.encode_batch(texts)]


def pieces(tokenizer: Tokenizer, texts: Iterator[str]) -> Iterator[Tokens]:
    """Tokens of one text after the other, encoded in batches."""
    while batch := list(islice(texts, BATCH)):
        yield from following_all(tokenizer, batch)


class Haystack:
    """The sentences of a text, encoded when they are needed and only once."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        """Find the sentences.

        Raises:
            TaskError: there is no text.
        """
        text = text.rstrip()
        found = list(SENTENCE.finditer(text))
        if not found:
            raise TaskError("no text to hide a needle in; give documents with --data")
        self._starts = [match.start() for match in found]
        self._sentences = [" " + " ".join(match[0].split()) for match in found]
        self._tokens: list[Tokens] = [()] * len(found)
        self._end = len(text)
        self._tokenizer = tokenizer

    def read(self, share: float) -> Iterator[Tokens]:
        """Pieces from the first sentence behind a share of the text on, over and over."""
        first = bisect_left(self._starts, share * self._end)
        for step in count():
            place = (first + step) % len(self._sentences)
            if not self._tokens[place]:
                self._encode(place)
            sentence = self._tokens[place]
            for start in range(0, len(sentence), LONGEST):
                yield sentence[start : start + LONGEST]

    def _encode(self, place: int) -> None:
        batch = self._sentences[place : place + BATCH]
        self._tokens[place : place + BATCH] = following_all(self._tokenizer, batch)


def depth_of(index: int, depth: float | None, depths: int) -> float:
    """Return the depth of a sample: the one given, or its turn of `depths` from 0 to 1.

    Both ends come first and then the one furthest from all before it, so that few samples cover the
    text as well as they can.
    """
    if depth is not None:
        return depth
    order = [0, depths - 1][:depths]
    while len(order) < depths:
        rest = (place for place in range(depths) if place not in order)
        order.append(max(rest, key=lambda place: min(abs(place - one) for one in order)))
    return order[index % depths] / max(1, depths - 1)


def sample_of(
    document: Document, depth: float, needle: Tokens, prompt: Tokens, new: int, reference: str
) -> Sample:
    """The sample of a prompt with a needle at a depth; its answer has at most `new` tokens."""
    position = DEPTH + render(depth)
    return Sample(
        id=f"{document.id}, {position}",
        document=document.id,
        position=position,
        prompt=prompt,
        max_new_tokens=new,
        until=(),
        reference=reference,
        depth=round(_place(prompt, needle) / len(prompt), 6),
    )


def _place(prompt: Tokens, needle: Tokens) -> int:
    """Index of the first token of a needle in the prompt."""
    inside, wanted = (array("q", tokens).tobytes() for tokens in (prompt, needle))
    size, place = array("q").itemsize, inside.index(wanted)
    while place % size:  # bytes of two tokens that look like it
        place = inside.index(wanted, place + 1)
    return place // size


def by_depth(metric: str, value: float, sample: Sample) -> list[Score]:
    """The value of one sample, for the mean of all and for that of its depth."""
    return [Score(metric, (float(value), 1.0), place) for place in ("", sample.position)]


def hide(
    tokenizer: Tokenizer,
    head: str,
    filler: Iterator[Tokens],
    needles: Sequence[tuple[float, Tokens]],
    question: str,
    budget: tuple[int, int],
    padding: str = "",
    start: str = "",
) -> Tokens:
    """Return BOS, start, padding, head, filler with needles, question, with room for the answer.

    A needle of depth d stands behind the first d of the filler's tokens, at the nearest border of
    two pieces; needles of the same place keep their order. What the pieces leave of the room is
    filled to the token: by padding over and over, or behind the head by the end of the next piece.

    Args:
        tokenizer: of the model.
        head: what comes before the filler.
        filler: pieces to fill the room with, without end.
        needles: (depth in [0, 1], tokens).
        question: what comes last.
        budget: tokens of prompt and answer, and of the answer.
        padding: sentence that fills the rest.
        start: what comes before all of it.

    Raises:
        TaskError: the budget is too small.
    """
    first = beginning(tokenizer, start)
    before = following(tokenizer, head) if padding or start else tuple(tokenizer.encode(head))
    after = following(tokenizer, question)
    length, new = budget
    fixed = new + _sum((first, before, after, *(one for _, one in needles)))
    chosen, rest = _fill(filler, length - fixed)
    if len(chosen) < DEPTHS - 1:
        raise TaskError(
            f"--len {length}: {len(chosen)} pieces of filler fit beside the {fixed} tokens of "
            f"task, needles, question and answer, and {DEPTHS - 1} are needed; raise --len"
        )
    middle = tuple(_spread(chosen, needles))
    if padding:
        return padded(tokenizer, (*before, *middle, *after), length - new, padding, start)
    return (*first, *before, *rest, *middle, *after)


def beginning(tokenizer: Tokenizer, start: str) -> Tokens:
    """BOS and a text, if there are any."""
    return (*prefix(tokenizer), *(tokenizer.encode(start) if start else ()))


def padded(
    tokenizer: Tokenizer, prompt: Tokens, size: int, padding: str, start: str = ""
) -> Tokens:
    """Return BOS, start, the end of `padding` over and over, and the prompt: `size` tokens."""
    first = beginning(tokenizer, start)
    backwards = cycle(reversed(following(tokenizer, padding)))
    front = list(islice(backwards, size - len(first) - len(prompt)))
    return (*first, *reversed(front), *prompt)


def _sum(texts: Iterable[Tokens]) -> int:
    return sum(map(len, texts))


def _spread(chosen: Sequence[Tokens], needles: Sequence[tuple[float, Tokens]]) -> Iterator[int]:
    """All tokens of the pieces, each needle at the border nearest to its depth."""
    ends = [0, *accumulate(map(len, chosen))]
    places: list[list[Tokens]] = [[] for _ in ends]
    for depth, needle in needles:
        places[_nearest(ends, depth * ends[-1])].append(needle)
    for here, piece in zip(places, [*chosen, ()], strict=True):
        yield from chain(*here, piece)


def _fill(filler: Iterator[Tokens], free: int) -> tuple[list[Tokens], Tokens]:
    """Take pieces while they fit into `free` tokens; the end of the next one fills the rest."""
    chosen: list[Tokens] = []
    while free > 0:
        piece = next(filler)
        if len(piece) > free:
            return chosen, piece[-free:]
        chosen.append(piece)
        free -= len(piece)
    return chosen, ()


def _nearest(ends: Sequence[int], wanted: float) -> int:
    """Index of the border nearest to `wanted`; the earlier of two."""
    right = min(bisect_right(ends, wanted), len(ends) - 1)
    left = max(0, right - 1)
    return left if wanted - ends[left] <= ends[right] - wanted else right
