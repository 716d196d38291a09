"""Whether a model can be read as losses and answers need it: measured on a few tokens.

A model that ignores the cache it is given, that lets go of a state between two forwards, or whose
tokens see later ones gives wrong losses without an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from harness.cache import RowCache
from patches.checks import IDENTITY_TOKENS, few_logits, few_tokens, has_values, tolerance

__all__ = ["Faults", "faults_of"]

PIECE = IDENTITY_TOKENS // 2  # tokens read behind as many others
LEAK = 0.001  # of what another token changes in its own logits, that it may change before
RAISED = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
MOST, MOST_HALF = 0.01, 0.2  # of what the tokens before change, what rounding may; in 16 bits


@dataclass(frozen=True)
class Faults:
    """What goes wrong when a model reads; empty where nothing does.

    Attributes:
        pieces: when it reads several tokens behind others.
        steps: when it reads one token behind others.
        leaks: its tokens see later ones.
    """

    pieces: str = ""
    steps: str = ""
    leaks: bool = False


def faults_of(model: Any) -> Faults:
    """Read a few tokens at once, in pieces and before another last one, and compare the logits."""
    if not has_values(model):
        return Faults()
    pieces = fault(model, (0, PIECE, IDENTITY_TOKENS - 1, IDENTITY_TOKENS))
    steps = fault(model, (0, IDENTITY_TOKENS - 1, IDENTITY_TOKENS)) if pieces else ""
    return Faults(pieces, steps, leaks(model))


def leaks(model: Any) -> bool:
    """True if another last token changes the logits before it."""
    try:
        plain = few_logits(model)
        changed = (few_logits(model, newest=1) - plain).square().mean(-1)[0].sqrt()
    except RAISED:  # whoever reads on will see it
        return False
    share, least = (MOST_HALF, 0.0) if is_half(model) else (LEAK, tolerance(model, plain))
    return float(changed[:-1].max()) > max(share * float(changed[-1]), least)


@torch.inference_mode()
def fault(model: Any, borders: Sequence[int]) -> str:
    """What is wrong with the logits behind the first of these pieces."""
    ids, start = few_tokens(model), borders[1]
    cache, read = RowCache(1, IDENTITY_TOKENS, model.config), []
    try:
        whole = few_logits(model)
        for first, stop in pairwise(borders):
            out = model(input_ids=ids[:, first:stop], past_key_values=cache, use_cache=True)
            read.append(out.logits.float())
        behind = torch.cat(read, dim=1)[:, start:]
        alone = model(input_ids=ids[:, start:], use_cache=False).logits.float()
        apart, changed = size(behind - whole[:, start:]), size(alone - whole[:, start:])
    except RAISED as error:
        return f"{type(error).__name__}: {error}"
    if not whole.isfinite().all():  # nothing to compare; whoever reads the logits will see it
        return ""
    if apart <= max(tolerance(model, whole), (MOST_HALF if is_half(model) else MOST) * changed):
        return ""
    return f"its logits are {apart / changed:.0%} as far off as without what was read before"


def is_half(model: Any) -> bool:
    """True if the model computes in 16 bits."""
    return model.dtype in (torch.float16, torch.bfloat16)


def size(x: Tensor) -> float:
    """Root of the mean square."""
    return float(x.square().mean().sqrt())
