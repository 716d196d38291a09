"""LongPPL: the loss of the tokens that need a long context.

Source: Fang et al. 2024, https://arxiv.org/abs/2410.23771; github.com/PKU-ML/LongPPL.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from tasks.base import Document, Output, Pass, Sample, Score, TaskError, Tokenizer
from tasks.fit import encode, prefix, windows

__all__ = ["found_keys", "intervals", "sample", "score"]

GAIN = 2.0  # nats that the long context must be worth to a key token
NLL = 2.0  # nats that a key token may cost with it
Intervals = tuple[tuple[int, int], ...]


def sample(document: Document, tokenizer: Tokenizer, context_length: int, short: int) -> Sample:
    """The document's first tokens in one pass, and where it has no keys in short windows too.

    Every token behind the first `short` has `short` to 5/4 `short` tokens of context in its window.
    """
    if short >= context_length:
        raise TaskError(
            f"--len {context_length}: protocol=longppl compares with {short} tokens of context; "
            f"raise --len or give ppl(protocol=longppl,short={max(1, context_length // 2)})"
        )
    bos = prefix(tokenizer)
    need = context_length - len(bos)
    text = encode(document, tokenizer, need, f"a length of {context_length}")[:need]
    passes: tuple[Pass, ...] = (Pass((*bos, *text), 1),)
    keys = None
    if document.keys is None:
        stride = max(1, short // 4)
        passes += windows(text, short + stride, stride, bos)
    else:
        spans = tokenizer.offsets(document.text)[:need]
        keys = tuple(place + len(bos) for place in _inside(spans, document.keys))
        keys = tuple(place for place in keys if place > 0)
    return Sample(
        f"{document.id}[{short}:{need}]", document.id, passes, keys=keys, score_from=short
    )


def _inside(spans: Sequence[tuple[int, int]], keys: Intervals) -> list[int]:
    """Indices of the tokens that lie wholly inside one of the rising intervals."""
    found, here = [], 0
    for place, (start, end) in enumerate(spans):
        while here < len(keys) and keys[here][1] <= start:
            here += 1
        if here < len(keys) and keys[here][0] <= start < end <= keys[here][1]:
            found.append(place)
    return found


def found_keys(sample: Sample, output: Output) -> tuple[int, ...]:
    """Positions in the long pass of the tokens that the model itself finds to be key.

    Key: worth more than 2 nats to have the long context, less than 2 nats with it, and behind the
    first `short` tokens, which have no longer context.
    """
    long, *parts = output.nll
    gained = np.concatenate(parts) - long
    first = sample.passes[0].score_from
    keys = np.flatnonzero((gained > GAIN) & (long < NLL)) + first
    return tuple(int(place) for place in keys if place >= sample.score_from)


def intervals(spans: Iterable[tuple[int, int]]) -> Intervals:
    """Character intervals of tokens in their order, those that touch made one."""
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    assert all(a[1] < b[0] for a, b in pairwise(merged))
    return tuple(merged)


def score(sample: Sample, output: Output) -> list[Score]:
    """Loss of the key tokens, their share, and loss of all tokens behind the first `short`.

    A document without a key token gives no longppl, and does not count in its mean.
    """
    long = output.nll[0]
    first = sample.passes[0].score_from
    all_of_them = long[sample.score_from - first :]
    keys, name = sample.keys, "longppl"
    if keys is None:
        keys, name = found_keys(sample, output), "longppl-self"
    count = float(len(all_of_them))
    stats = (float(all_of_them.sum()), count)
    scores = [Score("nll", stats), Score("ppl", stats)]
    if keys:
        costs = long[np.array(keys) - first]
        scores.append(Score(name, (float(costs.sum()), float(len(keys)))))
    return [*scores, Score("key_share", (float(len(keys)), count))]
