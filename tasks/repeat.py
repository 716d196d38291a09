"""Copies of a short text: a model that reads its whole context predicts every later copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar

from tasks.base import Document, Output, Pass, Sample, Score, Task, TaskError, Tokenizer
from tasks.fit import default_of, encode, prefix
from tasks.metrics import accuracy_stats, nll_stats
from tasks.spec import integer

__all__ = ["TASK", "Repeat"]


@dataclass(frozen=True)
class Repeat(Task):
    """Mean nll and token accuracy on all copies of a text but the first.

    The document's first `unit` tokens are copied, after one BOS, until `context_length` is full;
    the last copy may be cut.

    Source: Su Jianlin, https://kexue.fm/archives/9675, the column "repeated text".
    """

    name: ClassVar[str] = "repeat"
    unit: int | None = integer("tokens of the copied text", "trained length / 4")

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document."""
        unit = default_of("unit", self.unit, trained_length // 4)
        bos = prefix(tokenizer)
        first_copy = len(bos) + unit
        if first_copy >= context_length:
            raise TaskError(
                f"--len {context_length}: no room for a second copy of {unit} tokens; raise --len "
                "or give a smaller repeat(unit=…)"
            )
        samples = []
        for document in documents:
            text = encode(document, tokenizer, unit, f"repeat(unit={unit})")[:unit]
            tokens = tuple(
                islice((*bos, *text, *islice(cycle(text), context_length)), context_length)
            )
            scored = Pass(tokens, first_copy)
            samples.append(Sample(f"{document.id}[0:{unit}]", document.id, passes=(scored,)))
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (sum of nll, scored tokens) and (right tokens, scored tokens)."""
        return [Score("nll", nll_stats(output)), Score("accuracy", accuracy_stats(output))]


TASK = Repeat
