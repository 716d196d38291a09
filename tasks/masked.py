"""Masked tokens of real text, for models that read both ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Pass, Sample, Score, Task, TaskError, Tokenizer
from tasks.draws import Draws
from tasks.fit import default_of, encode, prefix, suffix
from tasks.metrics import accuracy_stats, nll_stats
from tasks.spec import fraction, integer

__all__ = ["TASK", "Masked"]

SHARE = 0.15


@dataclass(frozen=True)
class Masked(Task):
    """Token accuracy and mean nll on masked tokens.

    The input is the document's last `context_length` tokens, with the tokens that the tokenizer
    puts around a text. Of its last `last` text tokens a seeded `share` is masked, the same ones at
    every length, so that only the visible context differs.

    Source: Devlin et al. 2019 (BERT), https://arxiv.org/abs/1810.04805, 15 %; Su Jianlin,
    https://kexue.fm/archives/7947, accuracy of a masked model beyond its table.

    Differs: every chosen token becomes the mask (BERT trains with 80 % of them), and none is
    chosen before the last `last`, so that the context is whole.
    """

    name: ClassVar[str] = "masked"
    masks: ClassVar[bool] = True
    last: int | None = integer("tokens at the end, some of them masked", "trained length / 2")
    share: float | None = fraction("share of these that is masked", f"{SHARE}")

    def __post_init__(self) -> None:
        """Refuse to mask nothing."""
        if self.share == 0:
            raise TaskError("masked(share=0): expected a number above 0; leave it out for 0.15")

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document."""
        last = default_of("last", self.last, trained_length // 2)
        before, behind = prefix(tokenizer), suffix(tokenizer)
        around = len(before) + len(behind)
        need = context_length - around
        if last + around > trained_length:
            raise TaskError(
                f"masked(last={last}): with {around} tokens around the text these are more than "
                f"the trained length {trained_length}; give at most {trained_length - around}"
            )
        if last >= need:
            raise TaskError(
                f"--len {context_length}: masked chooses among the last {last} tokens and needs a "
                f"longer input; raise --len or give masked(last={max(1, need // 2)})"
            )
        samples = []
        for document in documents:
            text = encode(document, tokenizer, need, f"a length of {context_length}")
            tokens = (*before, *text[len(text) - need :], *behind)
            start = len(before) + need - last
            hidden = tuple(start + place for place in self.places(last, document, seed))
            scored = Pass(tokens, hidden[0], hidden)
            samples.append(Sample(f"{document.id}[-{last}:]", document.id, passes=(scored,)))
        return samples

    def places(self, last: int, document: Document, seed: int) -> list[int]:
        """The masked ones of the last tokens, in order; at least one."""
        share = SHARE if self.share is None else self.share
        count = max(1, round(share * last))
        return sorted(Draws(seed, self.name, document.id).pick(range(last), count))

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (right tokens, masked tokens) and (sum of nll, masked tokens)."""
        return [Score("accuracy", accuracy_stats(output)), Score("nll", nll_stats(output))]


TASK = Masked
