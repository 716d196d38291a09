"""Naive Bayes context extension: contexts are read apart, the surest one speaks.

A reading S_k a context, and one without any: T is the next token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from patches.base import Patch, PatchError
from patches.decoding import Decoding, joined
from patches.method import Method, Parameter

FLOOR = -100.0  # a log-probability that counts as none


def nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    """Log-probabilities without the least likely tokens that together make up 1 - top_p.

    The likeliest token stays, the others are -inf; what stays is not normalised again.
    """
    rising, order = log_probs.sort(dim=-1)
    is_cut = rising.exp().cumsum(-1) <= 1 - top_p
    is_cut[..., -1] = False
    return log_probs.masked_fill(is_cut.scatter(-1, order, is_cut), -torch.inf)


def entropy(log_probs: Tensor) -> Tensor:
    """H = -sum p log p of what is not cut."""
    return -(log_probs.exp() * log_probs.clamp(min=FLOOR)).sum(-1)


def nbce(
    beta: float = 0.25, top_p: float = 0.95, eta: float = 0.1, windows: int | None = None
) -> Patch:
    """(1 + beta) log p(T|S_k) - beta log p(T), k = argmin_k H_k, less eta for the last k.

    Raises:
        PatchError: top_p above 1.
    """
    if top_p > 1:
        raise PatchError(f"nbce: top_p={top_p:g}: expected a number > 0 and at most 1")

    def combine(log_probs: Tensor, last: int | None) -> tuple[Tensor, int | None]:
        prior, *contexts = nucleus(log_probs, top_p)
        entropies = entropy(torch.stack(contexts))
        if last is not None:
            entropies[last] -= eta
        k = int(entropies.argmin())
        pooled = contexts[k]
        merged = (1 + beta) * pooled - beta * prior
        return torch.where(prior > FLOOR, merged, pooled), k

    def apart(borders: Sequence[int], most: int) -> Sequence[int]:
        return borders if windows is None else joined(borders, windows)

    return Patch(decoding=Decoding(combine, apart))


METHODS = (
    Method(
        name="nbce",
        seam="decoding",
        build=nbce,
        parameters=(
            Parameter("beta", float, "0.25", low=0),
            Parameter("top_p", float, "0.95", low=0, above=True),
            Parameter("eta", float, "0.1", low=0),
            Parameter("windows", int, "a window a context", low=1),
        ),
        formula="log p = (1+beta) log p(T|S_k) - beta log p(T), k = argmin_k (H_k - eta [k is the "
        "last k]); log p(T|S_k) alone where log p(T) is cut; all cut by top_p first",
        claims="any model reads any number of contexts, at linear cost; order and references "
        "between contexts are lost",
        source="Su Jianlin, kexue.fm/archives/9617 (pooling by least entropy), 9632 (eta); "
        "bojone/NBCE test.py",
        differs="greedy, where the repository draws at temperature 0.01; eta is of 9632, the "
        "repository has none (eta=0); entropy is of the cut, not normalised distribution, as in "
        "the repository. windows=N joins neighbouring contexts; other patches take their length "
        "from the whole cell, not from one context",
    ),
)
