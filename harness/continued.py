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

from harness.cache import RowCache, cached, padded
from harness.errors import OF_MODELS, one_line
from harness.memory import is_out_of_memory
from harness.states import beside
from patches.checks import (
    IDENTITY_TOKENS,
    few_logits,
    few_tokens,
    has_values,
    is_half,
    least,
    sees_later,
    size,
)

__all__ = ["Faults", "faults_of", "reads_together"]

TINY = 1e-9
SHOWN = 120  # characters of what a model's code raises, so that what to do is still read
PIECE = IDENTITY_TOKENS // 2  # tokens read behind as many others
MOST, MOST_HALF = 0.01, 0.2  # of what the tokens before change, what rounding may; in 16 bits
MOST_TOGETHER = 0.05  # as much in 16 bits where nothing is refused, but read singly


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
    """Read a few tokens at once, in pieces and before other last ones, and compare the logits."""
    if not has_values(model):
        return Faults()
    try:
        whole = few_logits(model)
    except OF_MODELS as error:
        return Faults(said(error), said(error))
    pieces = fault(model, whole, (0, PIECE, IDENTITY_TOKENS - 1, IDENTITY_TOKENS))
    steps = fault(model, whole, (0, IDENTITY_TOKENS - 1, IDENTITY_TOKENS)) if pieces else ""
    return Faults(pieces, steps, sees_later(model, whole))


@torch.inference_mode()
def reads_together(model: Any) -> bool:
    """True if a step of two rows, one with padding on its left, gives the logits of each alone."""
    if not beside(model.config):
        return False
    if not has_values(model):
        return True
    ids, pads, columns = few_tokens(model), (PIECE, 0), IDENTITY_TOKENS - 1
    ends = [columns - pad for pad in pads]
    cache = RowCache(2, IDENTITY_TOKENS, model.config)
    try:
        for row, (pad, end) in enumerate(zip(pads, ends, strict=True)):
            cache.open(slice(row, row + 1), pad)
            model(input_ids=ids[:, :end], **cached(model, cache))
            cache.blank(row, pad)
        cache.open(slice(0, 2), 0, columns)
        inputs = {"input_ids": ids[0, ends][:, None]}
        inputs |= padded(pads, columns, model.device)
        step = model(**inputs, **cached(model, cache)).logits[:, -1].float()
        alone = model(input_ids=inputs["input_ids"], use_cache=False).logits[:, -1].float()
    except OF_MODELS as error:
        said(error)
        return False
    return not too_far(model, step, few_logits(model)[0, ends], alone, MOST_TOGETHER)


@torch.inference_mode()
def fault(model: Any, whole: Tensor, borders: Sequence[int]) -> str:
    """What is wrong with the logits behind the first of these pieces, against those at once."""
    ids, start = few_tokens(model), borders[1]
    cache, read = RowCache(1, IDENTITY_TOKENS, model.config), []
    try:
        for first, stop in pairwise(borders):
            out = model(input_ids=ids[:, first:stop], **cached(model, cache))
            read.append(out.logits.float())
        behind = torch.cat(read, dim=1)[:, start:]
        alone = model(input_ids=ids[:, start:], use_cache=False).logits.float()
    except OF_MODELS as error:
        return said(error)
    if whole.isfinite().all() and not behind.isfinite().all():
        return "its logits are not finite then"
    share = too_far(model, behind, whole[:, start:], alone)
    return f"its logits are {share:.0%} as far off as without what was read before" if share else ""


def said(error: Exception) -> str:
    """What a model's code raised, in short; it goes on being raised where memory ran out."""
    if is_out_of_memory(error):
        raise error
    return f"{type(error).__name__}: {one_line(str(error))[:SHOWN]}"


def too_far(
    model: Any, read: Tensor, wanted: Tensor, alone: Tensor, most_half: float = MOST_HALF
) -> float:
    """How far logits are off, as a share of those without what stands before; 0 by rounding."""
    if not wanted.isfinite().all():  # nothing to compare; whoever reads the logits will see it
        return 0.0
    apart, changed = size(read - wanted), size(alone - wanted)
    limit = max(least(model, wanted), (most_half if is_half(model) else MOST) * changed)
    return 0.0 if apart <= limit else apart / max(changed, TINY)
