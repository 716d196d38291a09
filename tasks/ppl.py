"""Loss on real text, in four named protocols."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tasks import longppl
from tasks.base import Document, Output, Pass, Sample, Score, Task, TaskError, Tokenizer
from tasks.fit import default_of, encode, prefix, windows
from tasks.metrics import nll_stats
from tasks.spec import choice, integer

__all__ = ["TASK", "Ppl"]

PARAMETERS = {
    "last": ("last",),
    "sliding": ("stride", "tokens"),
    "by-position": ("bucket",),
    "longppl": ("short",),
}
MAX_LAST = 1024
MAX_STRIDE = 256
MAX_SHORT = 4096


@dataclass(frozen=True)
class Ppl(Task):
    """Mean nll in nats a token, and ppl = exp(sum of nll / sum of tokens) over all documents.

    last: the input is the document's last `context_length` tokens, BOS included; the same last
    `last` tokens are scored at every length, so only the visible context differs.

    sliding: windows of `context_length` tokens, BOS at the front of each, begin at 0, stride,
    2 stride, …; the first scores all its tokens, later ones only those not scored before, and the
    last, partial window counts its new tokens. BOS is never scored.

    by-position: one pass over the document's first `context_length` tokens, BOS included; every
    token after the first is scored, in buckets of its position in the input and overall.

    longppl: one pass over the document's first `context_length` tokens; longppl is exp of the mean
    nll of the key tokens, beside nll and ppl of all tokens after the first `short`. Keys are the
    character intervals `keys` of the JSONL data, which `python -m harness keys` writes with any
    model. Without them the measured model finds its own, in windows of `short` to 5/4 `short`
    tokens: those to which the long context is worth more than 2 nats and which cost less than 2
    with it. That is longppl-self: below e**2 by construction, it compares no models or patches.

    Source: `last`: Su Jianlin, https://kexue.fm/archives/9708, bojone/rerope:eval_loss.py;
    `sliding`: Peng et al. 2023 (YaRN), https://arxiv.org/abs/2309.00071, S = 256; `longppl`: Fang
    et al. 2024, https://arxiv.org/abs/2410.23771, `short` = 4096.

    Differs: YaRN's code averages window means, whatever the window's token count; here sums are
    divided once. Without a BOS a window holds `context_length` text tokens, and the document's
    first is not scored.
    """

    name: ClassVar[str] = "ppl"
    protocol: str = choice(
        "last", "sliding", "by-position", "longppl", what="which tokens are scored"
    )
    last: int | None = integer("scored tokens (last)", "min(1024, trained length / 2)")
    stride: int | None = integer("step of the window (sliding)", "min(256, trained length / 2)")
    tokens: int | None = integer("text tokens a document (sliding)", "2 context_length, or all")
    bucket: int | None = integer("positions a bucket (by-position)", "context_length / 8")

    short: int | None = integer("tokens of short context (longppl)", "min(4k, trained length / 2)")

    def __post_init__(self) -> None:
        """Refuse a parameter of another protocol."""
        for protocol, names in PARAMETERS.items():
            for name in names:
                if getattr(self, name) is not None and protocol != self.protocol:
                    raise TaskError(
                        f"ppl(protocol={self.protocol},{name}={getattr(self, name)}): '{name}' "
                        f"belongs to protocol={protocol}; drop it or change the protocol"
                    )

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document; see the class for the protocols."""
        if context_length < 2:
            raise TaskError(f"--len {context_length}: ppl needs at least 2 tokens; raise --len")
        make = {
            "last": self._last,
            "sliding": self._sliding,
            "by-position": self._by_position,
            "longppl": self._longppl,
        }
        sample = make[self.protocol]
        return [sample(one, tokenizer, context_length, trained_length) for one in documents]

    def _last(
        self, document: Document, tokenizer: Tokenizer, context_length: int, trained_length: int
    ) -> Sample:
        last = default_of("last", self.last, min(MAX_LAST, trained_length // 2))
        if last >= context_length:
            raise TaskError(
                f"--len {context_length}: ppl scores the last {last} tokens and needs a longer "
                f"input; raise --len or give ppl(last={context_length // 2})"
            )
        bos = prefix(tokenizer)
        need = context_length - len(bos)
        text = encode(document, tokenizer, need, f"a length of {context_length}")
        tokens = (*bos, *text[len(text) - need :])
        scored = Pass(tokens, context_length - last)
        return Sample(f"{document.id}[-{last}:]", document.id, passes=(scored,))

    def _sliding(
        self, document: Document, tokenizer: Tokenizer, context_length: int, trained_length: int
    ) -> Sample:
        stride = default_of("stride", self.stride, min(MAX_STRIDE, trained_length // 2))
        bos = prefix(tokenizer)
        window = context_length - len(bos)
        if stride > window:
            raise TaskError(
                f"--len {context_length}: a stride of {stride} leaves tokens out of windows of "
                f"{window} text tokens; raise --len or give a stride of at most {window}"
            )
        if self.tokens is not None and self.tokens < window:
            raise TaskError(
                f"--len {context_length}: ppl(tokens={self.tokens}) does not fill one window; "
                f"lower --len or give at least tokens={window}"
            )
        text = encode(document, tokenizer, self.tokens or window, "protocol=sliding")
        text = text[: self.tokens or 2 * context_length]
        passes = windows(text, window, stride, bos)
        return Sample(f"{document.id}[0:{len(text)}]", document.id, passes=passes)

    def _by_position(
        self, document: Document, tokenizer: Tokenizer, context_length: int, trained_length: int
    ) -> Sample:
        bos = prefix(tokenizer)
        need = context_length - len(bos)
        text = encode(document, tokenizer, need, f"a length of {context_length}")
        scored = Pass((*bos, *text[:need]), 1)
        return Sample(f"{document.id}[0:{need}]", document.id, passes=(scored,))

    def _longppl(
        self, document: Document, tokenizer: Tokenizer, context_length: int, trained_length: int
    ) -> Sample:
        short = default_of("short", self.short, min(MAX_SHORT, trained_length // 2))
        return longppl.sample(document, tokenizer, context_length, short)

    def scored_tokens(self, sample: Sample) -> int:
        """Tokens of all passes, of longppl those behind the first `short` of the first."""
        if self.protocol == "longppl":
            return len(sample.passes[0].tokens) - sample.score_from
        return super().scored_tokens(sample)

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (sum of nll, scored tokens) for nll and ppl, overall and for each bucket."""
        if self.protocol == "longppl":
            return longppl.score(sample, output)
        scores = _both(nll_stats(output), "")
        if self.protocol == "by-position":
            context_length = len(sample.passes[0].tokens)
            bucket = self.bucket or max(1, context_length // 8)
            nll = np.concatenate([[0.0], output.nll[0]])  # position 0 is never scored
            for low in range(0, context_length, bucket):
                high = min(low + bucket, context_length)
                count = high - max(low, 1)
                if count:
                    stats = (float(nll[low:high].sum()), float(count))
                    scores += _both(stats, f"{low}:{high}")
        return scores


def _both(stats: tuple[float, float], position: str) -> list[Score]:
    return [Score(metric, stats, position) for metric in ("nll", "ppl")]


TASK = Ppl
