"""A pass key hidden in sentences that say nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Task, TaskError, Tokenizer
from tasks.draws import MOST_DIGITS, Draws
from tasks.haystack import DEPTHS, by_depth, depth_of, following, hide, sample_of
from tasks.spec import fraction, integer

__all__ = ["TASK", "Passkey"]

HEAD = "Somewhere in this dull text stands a pass key. Keep it in mind: it is asked for at the end."
FILLER = (
    "\nRivers run down.",
    " Clouds drift by.",
    " Stones lie still.",
    " We walk on.",
    " Then we walk back.",
)
NEEDLE = " The pass key is {key}. Keep it in mind. {key} is the pass key."
QUESTION = "\nWhat is the pass key? The pass key is"
MAX_NEW = 10
DIGITS = 5
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Passkey(Task):
    """Whether a number hidden in filler is given back: the first integer of the answer equals it.

    The answer has at most 10 tokens, or as many more as the key needs. Filler, of five sentences
    over and over, fills the length to the token. Sample i has its own key, and depth 0, 0.25, 0.5,
    0.75 or 1 in turn where none is given; there is a value of all and one by depth.

    Source: Mohtashami and Jaggi 2023 (landmark attention), https://arxiv.org/abs/2305.16300; used
    by PI (2306.15595), YaRN (2309.00071) and Self-Extend (2401.01325).

    Differs: other words than the source's, a key of a fixed number of digits instead of 1 to 50000,
    depths in turn instead of at random, length to the token instead of by characters.
    """

    name: ClassVar[str] = "passkey"
    reads: ClassVar[str] = "nothing"
    depth: float | None = fraction("share of the filler before the key", "in turn")
    depths: int | None = integer("depths that samples take in turn", str(DEPTHS))
    digits: int | None = integer("digits of the key", str(DIGITS))

    def __post_init__(self) -> None:
        """Refuse a key that is too long."""
        if (self.digits or DIGITS) > MOST_DIGITS:
            raise TaskError(f"passkey(digits={self.digits}): expected at most {MOST_DIGITS}")

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document, of which only the id is used."""
        filler = [following(tokenizer, sentence) for sentence in FILLER]
        samples = []
        for index, document in enumerate(documents):
            key = Draws(seed, self.name, index).digits(self.digits or DIGITS)
            depth = depth_of(index, self.depth, self.depths or DEPTHS)
            new = max(MAX_NEW, len(following(tokenizer, f" {key}.")) + 1)
            needle = following(tokenizer, NEEDLE.format(key=key))
            prompt = hide(
                tokenizer,
                HEAD,
                cycle(filler),
                [(depth, needle)],
                QUESTION,
                (context_length, new),
            )
            samples.append(sample_of(document, depth, needle, prompt, new, key))
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (1 if the first integer is the key, 1), of all and by depth."""
        number = NUMBER.search(output.text)
        right = number is not None and int(number[0]) == int(sample.reference)
        return by_depth("exact_match", right, sample)


TASK = Passkey
