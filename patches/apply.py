"""The one hook: puts a patch on a HuggingFace causal LM and takes it off again.

While it is on, the rotary embedding answers cos = 1, sin = 0 (frequencies 0) and an attention
function registered for this model alone rotates queries and keys, so that the KV cache holds
un-rotated keys. A patch of frequencies alone needs no hook: it writes the frequencies and keeps the
model's native attention; a query scale alone multiplies the queries before the native attention.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from patches.attention import attend
from patches.base import Extent, Patch, PatchError, Plan, Rope

__all__ = ["Applied", "apply", "check_identity", "trained_length"]

IDENTITY_TOKENS = 24
IDENTITY_TOLERANCE = 1e-4
LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True)
class Applied:
    """What a patch became on a model.

    Attributes:
        attention: native kernel's name, with `+scale` after it if queries are scaled, or blockwise.
        keep: newest input tokens that the model may be given; None for all.
        notes: remarks for the user, a line each.
    """

    attention: str
    keep: int | None = None
    notes: tuple[str, ...] = ()


def trained_length(model: PreTrainedModel) -> int:
    """Tokens the model was trained at: original_max_position_embeddings, else the maximum."""
    parameters = getattr(model.config, "rope_parameters", None) or {}
    original = parameters.get("original_max_position_embeddings")
    return int(original or model.config.max_position_embeddings)


@contextmanager
def apply(model: PreTrainedModel, patch: Patch, context_length: int) -> Iterator[Applied]:
    """Put a patch on for the body of a `with`; the model is as before afterwards.

    Args:
        model: causal LM with one rotary embedding.
        patch: what `patches.parse` returned.
        context_length: whole token budget that length-dependent values are derived from.

    Raises:
        PatchError: the model is not supported, or a layer range misses its layers.
    """
    extent = Extent(context_length, trained_length(model), head_dim(model))
    native = str(model.config._attn_implementation)
    keep = patch.keep(extent) if patch.keep else None
    if not patch.parts or keep is not None:
        yield Applied(native, keep)
        return
    layers = int(model.config.num_hidden_layers)
    check_layers(patch, extent, layers)
    rotary = rotary_embedding(model)
    rope = shipped_rope(rotary, extent)
    window = native_window(model, extent)
    blockwise = patch.maps_attention or window is not None
    with ExitStack() as stack:
        if not blockwise:
            plan = patch.resolve(rope, extent)
            stack.enter_context(frequencies(rotary, plan.rope))
            if plan.query_scale is not None:
                stack.enter_context(attention_function(model, scaled_native(plan, native), native))
            yield Applied(native + ("+scale" if plan.query_scale else ""), notes=notes(patch))
            return
        if patch.maps_attention:
            check_identity(model)
        plans = [patch.resolve(rope, extent, layer) for layer in range(layers)]
        stack.enter_context(hooked(model, rotary, rope, plans))
        remark = (f"the model's own window of {window} tokens is off",) if window else ()
        yield Applied("blockwise", notes=notes(patch) + remark)


def notes(patch: Patch) -> tuple[str, ...]:
    """Warn of two scales on the logits, which is legal but rarely meant."""
    names = [spec.partition("(")[0] for _, spec in patch.parts]
    scales = [spec for seam, spec in patch.parts if seam == "3"]
    if "yarn" in names and scales and "attention_factor" not in str(patch):
        return (f"'{patch}' scales the logits twice; yarn(attention_factor=1) keeps {scales[0]} alone",)
    if len(scales) > 1:
        return (f"'{patch}' scales the logits by {' and '.join(scales)}",)
    return ()


def check_identity(model: PreTrainedModel) -> float:
    """Measure that the hook with no patch equals the untouched model; returns the difference.

    Raises:
        PatchError: the largest logit difference on a few tokens is above 1e-4 (relative in half
            precision), or the model lacks what the hook needs.
    """
    rotary = rotary_embedding(model)
    size = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(1, IDENTITY_TOKENS + 1, device=model.device)[None] * 7919 % size
    extent = Extent(IDENTITY_TOKENS, trained_length(model), head_dim(model))
    rope = shipped_rope(rotary, extent)
    plans = [Plan(rope)] * int(model.config.num_hidden_layers)
    with torch.inference_mode():
        plain = model(ids, use_cache=False).logits.float()
        try:
            with hooked(model, rotary, rope, plans):
                hook = model(ids, use_cache=False).logits.float()
        except RuntimeError as error:
            raise PatchError(f"{name_of(model)}: attention hook fails ({error}); model not supported") from error
    difference = float((hook - plain).abs().max())
    half = plain.new_tensor(0).to(model.dtype).dtype in (torch.float16, torch.bfloat16)
    scale = float(plain.abs().max()) if half else 1.0
    limit = (0.03 if half else IDENTITY_TOLERANCE) * max(scale, 1.0)
    if not difference <= limit:
        raise PatchError(
            f"{name_of(model)}: patched attention differs from the original by {difference:.1e} with "
            f"no patch applied (at most {limit:.0e}); model not supported"
        )
    return difference


def name_of(model: PreTrainedModel) -> str:
    """The model's type, for messages."""
    return str(model.config.model_type)


def head_dim(model: PreTrainedModel) -> int:
    """Size of one attention head."""
    config = model.config
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def check_layers(patch: Patch, extent: Extent, layers: int) -> None:
    """Refuse a window on layers that the model does not have."""
    for rule in patch.visible:
        first, stop = rule(extent).layers
        if (stop or 0) > layers or first >= layers:
            raise PatchError(
                f"'{patch}': layers={first}:{stop} but the model has {layers} layers; "
                f"expected a range within 0:{layers}"
            )


def rotary_embedding(model: PreTrainedModel) -> nn.Module:
    """The one module that gives every layer its cos and sin.

    Raises:
        PatchError: there is none, or several.
    """
    found = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "inv_freq", None), Tensor)
        and hasattr(module, "attention_scaling")
    ]
    if len(found) != 1:
        raise PatchError(
            f"{name_of(model)}: has {len(found)} rotary embeddings with inv_freq and "
            "attention_scaling, expected 1; model not supported"
        )
    return found[0]


def shipped_rope(rotary: Any, extent: Extent) -> Rope:
    """The frequencies that the model ships with, at the cell's length where they depend on it."""
    parameters = rotary.config.rope_parameters
    inv_freq, attention_factor = rotary.inv_freq, rotary.attention_scaling
    if rotary.rope_type in LENGTH_DEPENDENT:
        compute = ROPE_INIT_FUNCTIONS[rotary.rope_type]
        inv_freq, attention_factor = compute(
            rotary.config, inv_freq.device, seq_len=extent.context_length
        )
    return Rope(inv_freq.clone(), float(attention_factor), float(parameters["rope_theta"]))


def native_window(model: PreTrainedModel, extent: Extent) -> int | None:
    """The model's own sliding window if it would hide keys at this length."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    used = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    return int(window) if window and used and window < extent.context_length else None


@contextmanager
def frequencies(rotary: nn.Module, rope: Rope) -> Iterator[None]:
    """Let the rotary embedding use these frequencies, whatever its type recomputes."""
    saved = {name: getattr(rotary, name) for name in ("inv_freq", "attention_scaling", "rope_type")}
    with settings(rotary, saved):
        rotary.inv_freq = rope.inv_freq.to(rotary.inv_freq)
        rotary.attention_scaling = rope.attention_factor
        rotary.rope_type = "default"
        yield


@contextmanager
def settings(target: Any, saved: dict[str, Any]) -> Iterator[None]:
    """Put attributes back on the way out."""
    try:
        yield
    finally:
        for name, value in saved.items():
            setattr(target, name, value)


@contextmanager
def hooked(model: PreTrainedModel, rotary: nn.Module, rope: Rope, plans: list[Plan]) -> Iterator[None]:
    """Rotate at attention time, by one plan a layer."""
    still = Rope(torch.zeros_like(rope.inv_freq), 1.0, rope.theta)
    config = model.config
    own = {"sliding_window": None} if getattr(config, "sliding_window", None) else {}
    saved = {name: getattr(config, name) for name in own}
    with ExitStack() as stack:
        stack.enter_context(frequencies(rotary, still))
        stack.enter_context(attention_function(model, banded(plans), None))
        stack.enter_context(settings(config, saved))
        for name, value in own.items():
            setattr(config, name, value)
        yield


AttentionFunction = Callable[..., tuple[Tensor, None]]


@contextmanager
def attention_function(
    model: PreTrainedModel, function: AttentionFunction, native: str | None
) -> Iterator[None]:
    """Register a function for this model alone, with the masks of `native` or padding masks."""
    name = f"length_extrapolation_{uuid.uuid4().hex}"
    before = model.config._attn_implementation
    mask = ALL_MASK_ATTENTION_FUNCTIONS[native] if native else flash_attention_mask
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, mask)
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        model.set_attn_implementation(before)
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)


def scaled_native(plan: Plan, native: str) -> AttentionFunction:
    """The native attention on queries times the plan's query scale."""

    def function(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = torch.arange(key.shape[2] - query.shape[2], key.shape[2], device=key.device)[None]
        assert plan.query_scale is not None
        scale = plan.query_scale(positions).to(query.dtype)[:, None, :, None]  # [batch, 1, q_len, 1]
        attention = ALL_ATTENTION_FUNCTIONS[native]
        out: tuple[Tensor, None] = attention(module, query * scale, key, value, *args, **kwargs)
        return out

    return function


def banded(plans: list[Plan]) -> AttentionFunction:
    """Attention by the plan of each layer, for any left padding."""

    def function(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        refuse_extras(module, kwargs, attention_mask, dropout)
        plan = plans[module.layer_idx]
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        pads = left_padding(attention_mask, query.shape[0], key.shape[2])
        first_column = key.shape[2] - query.shape[2]
        check_positions(kwargs.get("position_ids"), pads, first_column)
        out = torch.zeros_like(query)
        for pad in sorted(set(pads)):
            rows = [row for row, own in enumerate(pads) if own == pad]
            everything = len(rows) == len(pads)
            q, k, v = (x if everything else x[rows] for x in (query, key, value))
            skipped = max(pad - first_column, 0)  # queries of this call that are padding themselves
            if skipped >= query.shape[2]:
                continue
            part = attend(
                q[:, :, skipped:],
                k[:, :, pad:],
                v[:, :, pad:],
                plan,
                scaling=scaling,
                q_start=first_column + skipped - pad,
            )
            if everything and not skipped:
                out = part
            else:
                out[rows, :, skipped:] = part
        return out.transpose(1, 2).contiguous(), None

    return function


def refuse_extras(module: Any, kwargs: dict[str, Any], mask: Tensor | None, dropout: float) -> None:
    """Refuse what the blockwise attention does not compute, rather than leave it out."""
    extras = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if mask is not None and mask.ndim != 2:
        extras.append("a 4-D attention mask")
    if dropout:
        extras.append("attention dropout")
    if extras:
        kind = module.config.model_type
        raise PatchError(f"{kind}: attention uses {', '.join(extras)}; not supported by this patch")


def left_padding(mask: Tensor | None, batch: int, kv_len: int) -> list[int]:
    """Number of padding columns before each row's first token.

    Raises:
        PatchError: padding elsewhere than on the left.
    """
    if mask is None:
        return [0] * batch
    pads = (kv_len - mask.sum(-1)).tolist()
    columns = torch.arange(kv_len, device=mask.device)
    expected = columns[None] >= torch.tensor(pads, device=mask.device)[:, None]
    if mask.shape[-1] != kv_len or not torch.equal(expected, mask.bool()):
        raise PatchError("attention_mask: padding is not on the left; set padding_side='left'")
    return [int(pad) for pad in pads]


def check_positions(position_ids: Tensor | None, pads: list[int], first_column: int) -> None:
    """Refuse positions that are not those of the columns, padding left out.

    Raises:
        PatchError: packed or shifted sequences, or a cache that has dropped keys.
    """
    if position_ids is None:
        return
    rows = position_ids.expand(len(pads), -1)
    newest = first_column + rows.shape[1] - 1
    for row, pad in zip(rows[:, -1].tolist(), pads, strict=True):
        if row not in (newest - pad, newest):
            raise PatchError(
                f"position {row} of the newest token is not its place {newest - pad}; packed or "
                "shifted sequences and caches that drop keys are not supported"
            )
