"""What the context beyond the trained length is worth: loss without it minus loss with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tasks.base import Document, Output, Pass, Sample, Score, Task, TaskError, Tokenizer
from tasks.fit import encode, prefix, windows
from tasks.spec import integer

__all__ = ["TASK", "Gain"]

KEY_GAIN = 2.0  # nats that the long context must be worth to a key token
KEY_NLL = 2.0  # nats that a key token may cost with it


@dataclass(frozen=True)
class Gain(Task):
    """Mean of nll with a short context minus nll with the whole, in nats a token.

    The long context is one pass over the document's first `context_length` tokens. The short one is
    windows of the trained length T, with the same patch: the first scores all its tokens, later
    ones, T/2 further each, only their new half, with T/2 to T tokens of context. Tokens beyond the
    first T are counted, in buckets of their position in the document and overall.

    `truncate` gains 0 by construction, and a model that sees its newest T tokens alone a little
    more: what is above a `window` of T says that further tokens are used. Below 0 the long context
    does harm. A patch that harms short contexts has more to gain: read it beside `ppl`.

    key_share is the share of key tokens among them: those to which the long context is worth more
    than 2 nats and which cost less than 2 with it.

    Source: the difference is that of Fang et al. 2024 (LongPPL), https://arxiv.org/abs/2410.23771,
    whose thresholds key_share takes.

    Differs: LongPPL finds key tokens with another, strong model, in windows of 4096 to 5119 tokens,
    and gives their loss; here the patched model itself is asked, in windows of T/2 to T tokens.
    """

    name: ClassVar[str] = "gain"
    bucket: int | None = integer("positions a bucket", "trained length")

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document: the long pass, then the short ones."""
        if context_length <= trained_length:
            raise TaskError(
                f"--len {context_length}: gain compares with the trained length {trained_length}; "
                "give a greater --len"
            )
        bos = prefix(tokenizer)
        need = context_length - len(bos)
        samples = []
        for document in documents:
            text = encode(document, tokenizer, need, f"a length of {context_length}")[:need]
            short = windows(text, trained_length - len(bos), max(1, trained_length // 2), bos)
            samples.append(
                Sample(
                    id=f"{document.id}[0:{need}]",
                    document=document.id,
                    passes=(Pass((*bos, *text), 1), *short),
                )
            )
        return samples

    def scored_tokens(self, sample: Sample) -> int:
        """Tokens beyond the trained length."""
        return len(sample.passes[0].tokens) - len(sample.passes[1].tokens)

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (sum of gains, tokens) and (key tokens, tokens), overall and by position."""
        long, *_ = output.nll
        gained = np.concatenate(output.nll[1:]) - long
        trained_length, context_length = len(sample.passes[1].tokens), len(sample.passes[0].tokens)
        keys = (gained > KEY_GAIN) & (long < KEY_NLL)

        def stats(low: int, high: int, position: str) -> list[Score]:
            here = slice(low - 1, high - 1)  # the token at position 0 is not scored
            count = float(high - low)
            return [
                Score("gain", (float(gained[here].sum()), count), position),
                Score("key_share", (float(keys[here].sum()), count), position),
            ]

        scores = stats(trained_length, context_length, "")
        step = self.bucket or trained_length
        for low in range(trained_length, context_length, step):
            high = min(low + step, context_length)
            scores += stats(low, high, f"{low}:{high}")
        return scores


TASK = Gain
