"""What a model is measured for before a patch goes on, and what the user is told."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from patches.base import Extent, Patch, PatchError, Rope
from patches.hook import AttentionFunction

__all__ = [
    "IDENTITY_TOKENS",
    "attention_layers",
    "check_causal",
    "check_layers",
    "compare",
    "few_logits",
    "few_tokens",
    "has_values",
    "is_half",
    "least",
    "name_of",
    "notes",
    "sees_later",
    "size",
    "without_rotary",
]

IDENTITY_TOKENS = 24
IDENTITY_TOLERANCE, USUAL_LOGIT = 1e-4, 10.0
LEAK, LEAK_HALF = 0.001, 0.1  # of what tokens change from them on, that they may change before


def compare(
    model: Any,
    function: AttentionFunction,
    attach: Callable[[AttentionFunction], AbstractContextManager[None]],
) -> float:
    """Difference that an attention function makes; every layer of attention has to call it.

    Raises:
        PatchError: the difference is too large, or a layer computes its attention elsewhere.
    """
    if not has_values(model):
        return float("nan")
    called = set()

    def counted(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        called.add(module.layer_idx)
        return function(module, *args, **kwargs)

    plain = few_logits(model)
    if not plain.isfinite().all():  # nothing to compare; whoever reads the logits will see it
        return float("nan")
    with attach(counted):
        difference = float((few_logits(model) - plain).abs().max())
    missing = attention_layers(model) - called
    if missing:
        raise PatchError(
            f"{name_of(model)}: {len(missing)} of its layers do not call the attention interface, "
            f"the first is layer {min(missing)}; model not supported"
        )
    limit = tolerance(model, plain)
    if not difference <= limit:
        raise PatchError(
            f"{name_of(model)}: patched attention differs from the original by {difference:.1e} "
            f"with no patch applied (at most {limit:.0e}); model not supported"
        )
    return difference


def attention_layers(model: Any) -> set[int]:
    """Layers with attention; the others of a hybrid are recurrent and have none to patch.

    All layers if no module tells.
    """
    found = {
        int(module.layer_idx)
        for module in model.modules()
        if hasattr(module, "is_causal") and getattr(module, "layer_idx", None) is not None
    }
    return found or set(range(model.config.get_text_config().num_hidden_layers))


def few_tokens(model: Any, length: int = IDENTITY_TOKENS) -> Tensor:
    """A few fixed tokens [1, length]."""
    config = model.config.get_text_config()
    ids = torch.arange(1, length + 1, device=model.device)[None] * 7919
    ids %= int(config.vocab_size)
    padding = getattr(config, "pad_token_id", None)
    if padding is not None:  # some count no position where it stands
        ids[ids == padding] = (padding + 1) % int(config.vocab_size)
    return ids


def few_logits(model: Any, length: int = IDENTITY_TOKENS) -> Tensor:
    """Logits of these in fp32 [1, length, vocabulary]."""
    return logits_of(model, few_tokens(model, length))


@torch.inference_mode()
def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Logits in fp32, read at once."""
    logits: Tensor = model(ids, use_cache=False).logits
    return logits.float()


def has_values(model: Any) -> bool:
    """False on the device meta, where nothing can be measured and only shapes are wanted."""
    return bool(model.device.type != "meta")


def check_causal(model: Any) -> None:
    """Refuse a model whose tokens see later ones.

    Raises:
        PatchError: they do.
    """
    if has_values(model) and sees_later(model, few_logits(model)):
        raise PatchError(
            f"{name_of(model)}: its tokens see later ones too; it takes patches of frequencies or "
            "of the position table alone"
        )


def sees_later(model: Any, plain: Tensor) -> bool:
    """True if another second half of the few tokens changes the logits `plain` of the first."""
    ids, half = few_tokens(model), IDENTITY_TOKENS // 2
    changed = logits_of(model, torch.cat([ids[:, :half], ids[:, :half]], dim=1)) - plain
    share = LEAK_HALF if is_half(model) else LEAK
    return size(changed[:, :half]) > max(least(model, plain), share * size(changed[:, half:]))


def least(model: Any, plain: Tensor) -> float:
    """A difference from these logits that rounding makes whatever they are: in 16 bits a digit."""
    if not is_half(model):
        return IDENTITY_TOLERANCE
    return torch.finfo(model.dtype).eps * float(plain.abs().max())


def size(x: Tensor) -> float:
    """Root of the mean square."""
    return float(x.square().mean().sqrt())


def tolerance(model: Any, plain: Tensor) -> float:
    """Largest difference from these logits that a patch which changes nothing may make."""
    largest = float(plain.abs().max())
    if is_half(model):
        return 0.03 * max(largest, 1.0)
    return IDENTITY_TOLERANCE * max(largest / USUAL_LOGIT, 1.0)  # rounding grows with the logits


def is_half(model: Any) -> bool:
    """True if the model computes in 16 bits."""
    return model.dtype in (torch.float16, torch.bfloat16)


def name_of(model: Any) -> str:
    """The model's type, for messages."""
    return str(model.config.model_type)


def without_rotary(model: Any) -> PatchError:
    """Why a model without a standard rotary embedding takes no patch."""
    names = {name.lower() for kind in {type(m) for m in model.modules()} for name in dir(kind)}
    positions = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and ("pos" in name or name.endswith("wpe"))
    ]
    end = "model not supported, run it with none or truncate"
    if any("alibi" in name for name in names) or getattr(model.config, "alibi", False):
        why = "ALiBi biases"
    elif positions:
        why = f"learned absolute positions ({positions[0]})"
        end = "choose hierarchical, or a patch without frequencies and bands"
    elif not any("attention" in type(module).__name__.lower() for module in model.modules()):
        why = "a recurrence, no attention"
    else:
        why = "positions of its own kind or none"
    return PatchError(
        f"{name_of(model)}: has 0 rotary embeddings with inv_freq and attention_scaling but {why}; "
        f"{end}"
    )


def check_layers(patch: Patch, extent: Extent, layers: int) -> None:
    """Refuse a window on layers that the model does not have."""
    for rule in patch.visible:
        first, stop = rule(extent).layers
        if (stop or 0) > layers or first >= layers:
            raise PatchError(
                f"'{patch}': layers={first}:{stop} but the model has {layers} layers; "
                f"expected a range within 0:{layers}"
            )


def notes(patch: Patch, shipped: Rope, rope: Rope) -> tuple[str, ...]:
    """Remarks on what is legal but rarely meant."""
    remarks = []
    scales = len(patch.query_scales) + (rope.attention_factor != shipped.attention_factor)
    if scales > 1:
        remarks.append(f"'{patch}' scales the logits {scales} times")
    if patch.sinks and not patch.visible:
        remarks.append(f"'{patch}': sinks hide nothing by themselves; add a window")
    return tuple(remarks)
