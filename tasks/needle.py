"""Sentences with numbers hidden in real text; the numbers are asked for at the end."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Task, TaskError, Tokenizer
from tasks.draws import MOST_DIGITS, Draws
from tasks.haystack import DEPTHS, Haystack, by_depth, depth_of, following, hide, sample_of
from tasks.spec import fraction, integer

__all__ = ["TASK", "Needle"]

HEAD = "Some numbers are hidden in this text. They are asked for at the end."
NEEDLE = " The {key} number is {value}."
ONE = "\n\nWhich is the {keys} number in the text? The {keys} number is"
MANY = "\n\nWhich are all {keys} numbers in the text? The {keys} numbers are"
DIGITS = 7
NUMBER = re.compile(r"\d+")
PLACES = 1 << 32
SPARE = 4  # tokens of the answer besides the values and what stands between them
FIRST = (
    "amber ancient bitter blue bold brave brief broad calm clever cold dark deep dusty early "
    "empty faint fast gentle golden green happy hollow humble idle kind late lazy little lonely "
    "loud mild narrow noble northern old pale plain proud quick quiet rare red round silent "
    "simple slow small soft steep strange sudden tall tender tidy warm white wide wild wise young"
)
SECOND = (
    "anchor apple arrow baker barrel basket bell bird boat bottle bridge candle castle cattle "
    "circle clock cloud copper corner cotton doctor eagle engine farmer feather field forest "
    "garden hammer harbour hill horse island jacket kettle ladder lamp letter market meadow "
    "mirror mountain needle orange oven pepper pilot pocket prince river rope sailor shadow "
    "silver spider stone summer table tiger tower valley village window winter"
)


@dataclass(frozen=True)
class Needle(Task):
    """Share of the hidden values that the answer holds.

    The haystack is the whole text of the data, from a sentence on that is drawn for each sample and
    the same at every length, over and over, to the token. `keys` different keys have `values`
    values each; the first `queries` of the keys are asked for. The first value asked for stands at
    the depth, behind the sentence nearest to it, every other needle at a depth of its own. Depths
    are 0, 0.25, 0.5, 0.75 and 1 in turn where none is given; there is a value of all and one by
    depth.

    Source: Kamradt's needle in a haystack (github.com/gkamradt/needle-in-a-haystack) in the form
    of RULER (Hsieh et al. 2024), https://arxiv.org/abs/2404.06654, tasks niah_*: single by default,
    multi-key with keys=4, multi-value with values=4, multi-query with queries=4.

    Differs: own words and keys; the answer's numbers must be whole, where RULER looks for
    substrings; needles stand at the nearest sentence, not at one of 40 depths; as many tokens are
    generated as the values need, and a few more, instead of 128.
    """

    name: ClassVar[str] = "needle"
    reads: ClassVar[str] = "haystack"
    depth: float | None = fraction("share of the haystack before the needle", "in turn")
    depths: int | None = integer("depths that samples take in turn", str(DEPTHS))
    keys: int | None = integer("different keys in the text", "queries")
    values: int | None = integer("values of each key", "1")
    queries: int | None = integer("keys asked for", "1")
    digits: int | None = integer("digits of a value", str(DIGITS))

    def __post_init__(self) -> None:
        """Refuse counts that do not go together."""
        queries, keys, values, digits = self._counts()
        most = len(FIRST.split())
        if not queries <= keys <= most:
            raise TaskError(
                f"needle(keys={keys},queries={queries}): expected at least as many keys as queries "
                f"and at most {most}"
            )
        if digits > MOST_DIGITS or keys * values > 9 * 10 ** (digits - 1) // 2:
            raise TaskError(
                f"needle(digits={digits}): expected at most {MOST_DIGITS}, and enough for "
                f"{keys * values} different numbers"
            )

    def _counts(self) -> tuple[int, int, int, int]:
        """Queries, keys, values and digits."""
        queries = self.queries or 1
        return queries, self.keys or queries, self.values or 1, self.digits or DIGITS

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document; the haystack is its text."""
        read: dict[str, Haystack] = {}
        samples = []
        for index, document in enumerate(documents):
            if document.text not in read:
                read[document.text] = Haystack(document.text, tokenizer)
            draws = Draws(seed, self.name, index)
            filler = read[document.text].read(draws.below(PLACES) / PLACES)
            samples.append(self._sample(index, document, filler, draws, tokenizer, context_length))
        return samples

    def _sample(
        self,
        index: int,
        document: Document,
        filler: Iterator[tuple[int, ...]],
        draws: Draws,
        tokenizer: Tokenizer,
        context_length: int,
    ) -> Sample:
        queries, keys, values, digits = self._counts()
        depth = depth_of(index, self.depth, self.depths or DEPTHS)
        first, second = draws.pick(FIRST.split(), keys), draws.pick(SECOND.split(), keys)
        named = [f"{a} {b}" for a, b in zip(first, second, strict=True)]
        drawn = draws.different(digits, keys * values)
        numbers = [drawn[start : start + values] for start in range(0, len(drawn), values)]
        needles = [
            (
                draws.below(1001) / 1000,
                following(tokenizer, NEEDLE.format(key=key, value=value)),
            )
            for key, its in zip(named, numbers, strict=True)
            for value in its
        ]
        needles[0] = (depth, needles[0][1])
        answer = [value for its in numbers[:queries] for value in its]
        asked = ", ".join(named[: queries - 1]) + " and " * (queries > 1) + named[queries - 1]
        question = (ONE if len(answer) == 1 else MANY).format(keys=asked)
        new = len(following(tokenizer, " " + ", ".join(answer) + ".")) + SPARE * len(answer)
        prompt = hide(tokenizer, HEAD, filler, needles, question, (context_length, new))
        return sample_of(document, depth, needles[0][1], prompt, new, " ".join(answer))

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (share of the values in the answer, 1), of all and by depth."""
        wanted = sample.reference.split()
        found = set(NUMBER.findall(output.text))
        share = sum(value in found for value in wanted) / len(wanted)
        return by_depth("string_match", share, sample)


TASK = Needle
