"""Prompts that hide something: a head, filler with needles between its pieces, and a question."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice

from tasks.base import TaskError, Tokenizer
from tasks.fit import prefix

__all__ = ["DEPTHS", "depth_of", "following", "hide", "pieces", "ring", "sentences"]

Tokens = tuple[int, ...]
ANCHOR = "."
BATCH = 64
DEPTHS = 5
# A sentence with the blanks before it; a blank line ends one too.
SENTENCE = re.compile(r"\s*\S.*?(?:[.!?]+[\"')\]]*(?=\s)|(?=\n[ \t]*\n)|\Z)", re.DOTALL)


def following(tokenizer: Tokenizer, text: str) -> Tokens:
    """Tokens of a text that stands behind another, without what a tokenizer puts before a first."""
    return following_all(tokenizer, [text])[0]


def following_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tokens]:
    """The same for many texts at once."""
    anchor = tokenizer.encode(ANCHOR)
    both = tokenizer.encode_batch([ANCHOR + text for text in texts])
    return [
        tuple(tokens[len(anchor) :] if tokens[: len(anchor)] == anchor else tokenizer.encode(text))
        for text, tokens in zip(texts, both, strict=True)
    ]


def pieces(tokenizer: Tokenizer, texts: Iterator[str]) -> Iterator[Tokens]:
    """Tokens of one text after the other, encoded in batches."""
    while batch := list(islice(texts, BATCH)):
        yield from following_all(tokenizer, batch)


def sentences(text: str, tokenizer: Tokenizer, need: int) -> list[Tokens]:
    """Tokens of the text's sentences in order, until there are `need`, or no more text.

    Raises:
        TaskError: there is no text.
    """
    found: list[Tokens] = []
    total = 0
    texts = (" " + " ".join(match[0].split()) for match in SENTENCE.finditer(text))
    for sentence in pieces(tokenizer, texts):
        found.append(sentence)
        total += len(sentence)
        if total >= need:
            break
    if not total:
        raise TaskError("no text to hide a needle in; give documents with --data")
    return found


def ring(pieces: Sequence[Tokens], start: int) -> Iterator[Tokens]:
    """All pieces from `start` on, over and over."""
    while True:
        yield from pieces[start:]
        yield from pieces[:start]


def depth_of(index: int, depth: float | None, depths: int) -> float:
    """Return the depth of a sample: the one given, or its turn of `depths` from 0 to 1."""
    if depth is not None:
        return depth
    return index % depths / max(1, depths - 1)


def hide(
    tokenizer: Tokenizer,
    head: str,
    filler: Iterator[Tokens],
    needles: Sequence[tuple[float, Tokens]],
    question: str,
    length: int,
    new: int,
    cut: bool = True,
) -> Tokens:
    """Return BOS, head, filler with the needles in it, and question: at most `length - new` tokens.

    A needle of depth d stands behind the first d of the filler's tokens, at the nearest border of
    two pieces; needles of the same place keep their order.

    Args:
        tokenizer: of the model.
        head: what comes first.
        filler: pieces to fill the room with, without end.
        needles: (depth in [0, 1], tokens).
        question: what comes last.
        length: tokens of prompt and answer.
        new: tokens of the answer.
        cut: whether the last piece may be cut, to fill the length to the token.

    Raises:
        TaskError: the length is too small.
    """
    before = (*prefix(tokenizer), *tokenizer.encode(head))
    after = following(tokenizer, question)
    fixed = new + len(before) + len(after) + sum(len(needle) for _, needle in needles)
    chosen = _fill(filler, length - fixed, cut)
    if not chosen:
        raise TaskError(
            f"--len {length}: no room for filler beside the {fixed} tokens of task, needles, "
            "question and answer; raise --len"
        )
    ends = [0, *accumulate(map(len, chosen))]
    places: list[list[Tokens]] = [[] for _ in ends]
    for depth, needle in needles:
        places[_nearest(ends, depth * ends[-1])].append(needle)
    body = chain.from_iterable(
        chain(*here, piece) for here, piece in zip(places, [*chosen, ()], strict=True)
    )
    return (*before, *body, *after)


def _fill(filler: Iterator[Tokens], free: int, cut: bool) -> list[Tokens]:
    """Take pieces while they fit into `free` tokens, and part of one more if it may be cut."""
    chosen: list[Tokens] = []
    while free > 0:
        piece = next(filler)
        if len(piece) > free and not cut:
            break
        chosen.append(piece[:free])
        free -= len(chosen[-1])
    return chosen


def _nearest(ends: Sequence[int], wanted: float) -> int:
    """Index of the border nearest to `wanted`; the earlier of two."""
    right = min(bisect_right(ends, wanted), len(ends) - 1)
    left = max(0, right - 1)
    return left if wanted - ends[left] <= ends[right] - wanted else right
