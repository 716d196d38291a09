"""Decoding methods by loops over the vocabulary in float64, from the article and the papers.

Nothing here imports `patches` or `harness`. A distribution is a list of log-probabilities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Log = Sequence[float]


def log_softmax(logits: Sequence[float]) -> list[float]:
    """Log-probabilities of logits."""
    top = max(logits)
    total = top + math.log(sum(math.exp(x - top) for x in logits))
    return [x - total for x in logits]


def top_p_cut(log_probs: Log, top_p: float) -> list[float]:
    """Keep a token while those likelier than it sum to less than top_p; the rest is impossible."""
    kept, seen = [-math.inf] * len(log_probs), 0.0
    for token in sorted(range(len(log_probs)), key=lambda t: -log_probs[t]):
        if seen >= top_p:
            break
        kept[token] = log_probs[token]
        seen += math.exp(log_probs[token])
    return kept


def nbce(
    empty: Log, contexts: Sequence[Log], last: int | None, beta: float, top_p: float, eta: float
) -> tuple[list[float], int]:
    """Scores of the next token, and the context that was chosen (kexue.fm/archives/9617, 9632)."""
    cut = [top_p_cut(one, top_p) for one in contexts]
    prior = top_p_cut(empty, top_p)
    entropies = [-sum(math.exp(x) * x for x in one if x > -math.inf) for one in cut]
    if last is not None:
        entropies[last] -= eta
    k = min(range(len(cut)), key=lambda index: entropies[index])
    scores = []
    for with_context, without in zip(cut[k], prior, strict=True):
        if with_context == -math.inf or without == -math.inf:
            scores.append(with_context)
        else:
            scores.append((1 + beta) * with_context - beta * without)
    return scores, k


def nbce_average(empty: Log, contexts: Sequence[Log], beta: float, top_p: float) -> list[float]:
    """Scores of the next token by the mean over the contexts (kexue.fm/archives/9617)."""
    prior, scores = top_p_cut(empty, top_p), []
    for token, without in enumerate(prior):
        mean = sum(one[token] for one in contexts) / len(contexts)
        scores.append(mean if without == -math.inf else (beta + 1) * mean - beta * without)
    return scores


def attention_buckets(readings: Sequence[Log]) -> list[float]:
    """Scores of the next token: predictions averaged by their largest probability (2312.04455)."""
    confidence = [max(math.exp(x) for x in one) for one in readings]
    total = sum(confidence)
    mixed = []
    for token in range(len(readings[0])):
        p = sum(c * math.exp(one[token]) for c, one in zip(confidence, readings, strict=True))
        mixed.append(math.log(p / total) if p else -math.inf)
    return mixed


def attention_buckets_code(logits: Sequence[Log]) -> list[float]:
    """The same as modeling_llama.py of the authors has it: logits, averaged by the largest."""
    weights = [math.exp(max(one)) for one in logits]
    return [
        sum(w * one[token] for w, one in zip(weights, logits, strict=True)) / sum(weights)
        for token in range(len(logits[0]))
    ]


def pcw(borders: Sequence[int], length: int) -> tuple[list[int], list[list[bool]]]:
    """Position of each token, and whether query i may see key j (2212.10947, section 3).

    Tokens before the first border belong to all windows, those behind the last see all of them.
    """
    head, last = borders[0], borders[-1]
    longest = max(stop - start for start, stop in itertools.pairwise(borders))

    def window(token: int) -> int | None:
        inside = [k for k in range(len(borders) - 1) if borders[k] <= token < borders[k + 1]]
        return inside[0] if inside else None

    positions = []
    for token in range(length):
        k = window(token)
        if token < head:
            positions.append(token)
        elif k is not None:
            positions.append(head + token - borders[k])
        else:
            positions.append(head + longest + token - last)
    seen = [
        [j <= i and (j < head or i >= last or window(i) == window(j)) for j in range(length)]
        for i in range(length)
    ]
    return positions, seen
