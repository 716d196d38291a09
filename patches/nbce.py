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
STICKINESS = 0.1
POOLINGS = ("entropy", "average")


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


def surest(contexts: Tensor, last: int | None, eta: float) -> int:
    """Return k = argmin_k H_k, less eta for the last k."""
    entropies = entropy(contexts)
    if last is not None:
        entropies[last] -= eta
    return int(entropies.argmin())


def nbce(
    beta: float = 0.25,
    top_p: float = 0.95,
    eta: float | None = None,
    windows: int | None = None,
    pooling: str = "entropy",
) -> Patch:
    """(1 + beta) P_k[log p(T|S_k)] - beta log p(T), P the surest of the contexts, or their mean.

    Raises:
        PatchError: top_p above 1, or eta where no context is chosen.
    """
    if top_p > 1:
        raise PatchError(f"nbce: top_p={top_p:g}: expected a number > 0 and at most 1")
    if pooling == "average" and eta is not None:
        raise PatchError(
            f"nbce: eta={eta:g} with pooling=average: an average chooses no context to stay with; "
            "leave eta out"
        )
    stickiness = STICKINESS if eta is None else eta

    def combine(log_probs: Tensor, last: int | None) -> tuple[Tensor, int | None]:
        cut = nucleus(log_probs, top_p)
        prior, k = cut[0], None
        if pooling == "average":
            pooled = log_probs[1:].mean(dim=0)
        else:
            k = surest(cut[1:], last, stickiness)
            pooled = cut[1 + k]
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
            Parameter("pooling", POOLINGS, "entropy"),
        ),
        formula="log p = (1+beta) P - beta log p(T), P = log p(T|S_k), k = argmin_k (H_k - eta [k "
        "is the last k]), or with pooling=average P = mean_k log p(T|S_k); P alone where log p(T) "
        "is cut; all but that mean cut by top_p first",
        claims="any model reads any number of contexts, at linear cost; order and references "
        "between contexts are lost",
        source="Su Jianlin, kexue.fm/archives/9617 (both poolings), 9632 (eta); "
        "bojone/NBCE test.py",
        differs="greedy, where the repository draws at temperature 0.01; eta is of 9632, the "
        "repository has none (eta=0); entropy is of the cut, not normalised distribution, as in "
        "the repository. The mean is of whole distributions: a mean of cut ones would cut what any "
        "context cuts; with top_p=1 and beta one less than the contexts it is the article's naive "
        "Bayes. windows=N joins neighbouring contexts; other patches take their length from the "
        "whole cell, not from one context",
    ),
)
