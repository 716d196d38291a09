"""What a model is measured for before a patch goes on, and what the user is told."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from patches.base import Extent, Patch, PatchError, Rope
from patches.hook import AttentionFunction

__all__ = [
    "IDENTITY_TOKENS",
    "check_layers",
    "compare",
    "few_logits",
    "name_of",
    "native_window",
    "notes",
    "own_windows",
]

IDENTITY_TOKENS = 24
IDENTITY_TOLERANCE = 1e-4


def compare(
    model: Any,
    function: AttentionFunction,
    attach: Callable[[AttentionFunction], AbstractContextManager[None]],
) -> float:
    """Difference that an attention function makes; every layer has to call it.

    Raises:
        PatchError: the difference is too large, or a layer computes its attention elsewhere.
    """
    called = set()

    def counted(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        called.add(module.layer_idx)
        return function(module, *args, **kwargs)

    plain = few_logits(model)
    if not plain.isfinite().all():  # nothing to compare; whoever reads the logits will see it
        return float("nan")
    with attach(counted):
        difference = float((few_logits(model) - plain).abs().max())
    half = model.dtype in (torch.float16, torch.bfloat16)
    limit = 0.03 * max(float(plain.abs().max()), 1.0) if half else IDENTITY_TOLERANCE
    if not difference <= limit:
        raise PatchError(
            f"{name_of(model)}: patched attention differs from the original by {difference:.1e} "
            f"with no patch applied (at most {limit:.0e}); model not supported"
        )
    missing = set(range(model.config.num_hidden_layers)) - called
    if missing:
        raise PatchError(
            f"{name_of(model)}: {len(missing)} of its layers do not call the attention interface, "
            f"the first is layer {min(missing)}; model not supported"
        )
    return difference


def few_logits(model: Any) -> Tensor:
    """Logits of a few fixed tokens in fp32 [1, tokens, vocabulary]."""
    size = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(1, IDENTITY_TOKENS + 1, device=model.device)[None] * 7919 % size
    with torch.inference_mode():
        logits: Tensor = model(ids, use_cache=False).logits
    return logits.float()


def name_of(model: Any) -> str:
    """The model's type, for messages."""
    return str(model.config.model_type)


def check_layers(patch: Patch, extent: Extent, layers: int) -> None:
    """Refuse a window on layers that the model does not have."""
    for rule in patch.visible:
        first, stop = rule(extent).layers
        if (stop or 0) > layers or first >= layers:
            raise PatchError(
                f"'{patch}': layers={first}:{stop} but the model has {layers} layers; "
                f"expected a range within 0:{layers}"
            )


def own_windows(config: Any) -> list[int | None]:
    """The model's own sliding window of each layer."""
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    every = "sliding_attention" if getattr(config, "use_sliding_window", True) else ""
    kinds = getattr(config, "layer_types", None) or [every] * config.num_hidden_layers
    return [int(window) if window and kind == "sliding_attention" else None for kind in kinds]


def native_window(config: Any, extent: Extent) -> int | None:
    """The model's own sliding window if it would hide keys at this length."""
    windows = (window for window in own_windows(config) if window)
    return next((window for window in windows if window < extent.context_length), None)


def notes(
    patch: Patch, extent: Extent, shipped: Rope, rope: Rope, window: int | None
) -> tuple[str, ...]:
    """Remarks on what is legal but rarely meant, and on what was switched off."""
    remarks = []
    scales = len(patch.query_scales) + (rope.attention_factor != shipped.attention_factor)
    if scales > 1:
        remarks.append(f"'{patch}' scales the logits {scales} times")
    if patch.sinks and not patch.visible:
        remarks.append(f"'{patch}': sinks hide nothing by themselves; add a window")
    if window is not None:
        remarks.append(f"the model's own window of {window} tokens is off under '{patch}'")
    return tuple(remarks)
