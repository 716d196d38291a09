"""Look up a value by its key among many pairs, in JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Task, Tokenizer
from tasks.draws import Draws
from tasks.haystack import DEPTHS, by_depth, depth_of, following, hide, pieces, sample_of
from tasks.spec import fraction, integer

__all__ = ["TASK", "KeyValue"]

HEAD = "\n\nThis is a JSON object. The value of one of its keys is asked for below it.\n\n{"
PADDING = " Read with care."
PAIR = '\n "{key}": "{value}",'
QUESTION = '\n "{last}": "{other}"\n}}\n\nKey: "{key}"\nIts value: "'
SPARE = 2  # tokens of the answer besides the value


@dataclass(frozen=True)
class KeyValue(Task):
    """Whether the value of one key of a JSON object of random UUIDs is given back.

    As many pairs as fit fill the length; what they leave is filled by a sentence over and over, in
    front. The pair asked for stands at the depth (0, 0.25, 0.5, 0.75 or 1 in turn where none is
    given), at the nearest border of two pairs, at depth 1 last but one; there is a value of all and
    one by depth.

    Source: Liu et al. 2023 (Lost in the Middle), https://arxiv.org/abs/2307.03172, and
    Zhang et al. 2024 (InfiniteBench), https://arxiv.org/abs/2402.13718, Retrieve.KV.

    Differs: own words; the answer is what is generated behind the opening quotation mark.
    """

    name: ClassVar[str] = "kv"
    reads: ClassVar[str] = "nothing"
    depth: float | None = fraction("share of the pairs before the one asked for", "in turn")
    depths: int | None = integer("depths that samples take in turn", str(DEPTHS))

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document, of which only the id is used."""
        samples = []
        for index, document in enumerate(documents):
            draws = Draws(seed, self.name, index)
            depth = depth_of(index, self.depth, self.depths or DEPTHS)
            key, value = draws.uuid(), draws.uuid()
            new = len(following(tokenizer, value)) + SPARE
            needle = following(tokenizer, PAIR.format(key=key, value=value))
            prompt = hide(
                tokenizer,
                HEAD,
                pieces(tokenizer, _pairs(draws)),
                [(depth, needle)],
                QUESTION.format(key=key, last=draws.uuid(), other=draws.uuid()),
                (context_length, new),
                PADDING,
            )
            samples.append(sample_of(document, depth, needle, prompt, new, value))
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (1 if the value is in the answer, 1), of all and by depth."""
        return by_depth("string_match", sample.reference in output.text, sample)


def _pairs(draws: Draws) -> Iterator[str]:
    while True:
        yield PAIR.format(key=draws.uuid(), value=draws.uuid())


TASK = KeyValue
