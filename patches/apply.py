"""The one hook: puts a patch on a HuggingFace causal LM and takes it off again.

While it is on, the rotary embedding answers cos = 1, sin = 0 (frequencies 0) and an attention
function registered for this model alone rotates queries and keys, so that the KV cache holds
un-rotated keys. A patch of frequencies alone needs no hook: it writes the frequencies and keeps the
model's native attention; a query scale alone multiplies the queries before the native attention.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from patches.base import Extent, Patch, PatchError, Plan, Rope
from patches.hook import AttentionFunction, banded, scaled

__all__ = ["Applied", "apply", "check_identity", "trained_length"]

IDENTITY_TOKENS = 24
IDENTITY_TOLERANCE = 1e-4
UNBOUNDED_WINDOW = 1 << 30
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
    remarks = notes(patch)
    if window is not None:
        remarks += (f"the model's own window of {window} tokens is off under '{patch}'",)
    with ExitStack() as stack:
        stack.enter_context(unwindowed(model))
        if patch.maps_attention:
            check_identity(model)
            plans = [patch.resolve(rope, extent, layer) for layer in range(layers)]
            stack.enter_context(hooked(model, rotary, rope, plans))
            yield Applied("blockwise", notes=remarks)
            return
        plan = patch.resolve(rope, extent)
        check_frequencies(model)
        if plan.query_scale is not None:
            check_identity(model)
            function = scaled(plan.query_scale, ALL_ATTENTION_FUNCTIONS[native])
            stack.enter_context(attention_function(model, function, native))
        stack.enter_context(frequencies(rotary, plan.rope))
        yield Applied(native + ("+scale" if plan.query_scale else ""), notes=remarks)


def notes(patch: Patch) -> tuple[str, ...]:
    """Warn of two scales on the logits, which is legal but rarely meant."""
    names = [spec.partition("(")[0] for _, spec in patch.parts]
    scales = [spec for seam, spec in patch.parts if seam == "3"]
    if "yarn" in names and scales and "attention_factor" not in str(patch):
        return (
            f"'{patch}' scales the logits twice; yarn(attention_factor=1) keeps {scales[0]} alone",
        )
    if len(scales) > 1:
        return (f"'{patch}' scales the logits by {' and '.join(scales)}",)
    return ()


def check_identity(model: PreTrainedModel) -> float:
    """Measure that the hook with no patch equals the untouched model; returns the difference.

    Weights that give no finite logits cannot be checked: the difference is nan then.

    Raises:
        PatchError: the largest logit difference on a few tokens is above 1e-4 (3 % of the largest
            logit in half precision), or the model lacks what the hook needs.
    """
    rotary = rotary_embedding(model)
    rope = shipped_rope(rotary, Extent(IDENTITY_TOKENS, trained_length(model), head_dim(model)))
    plans = [Plan(rope)] * int(model.config.num_hidden_layers)
    with unwindowed(model):
        plain = few_logits(model)
        if not plain.isfinite().all():  # nothing to compare; whoever reads the logits will see it
            return float("nan")
        with hooked(model, rotary, rope, plans):
            difference = float((few_logits(model) - plain).abs().max())
    half = model.dtype in (torch.float16, torch.bfloat16)
    limit = 0.03 * max(float(plain.abs().max()), 1.0) if half else IDENTITY_TOLERANCE
    if not difference <= limit:
        raise PatchError(
            f"{name_of(model)}: patched attention differs from the original by {difference:.1e} "
            f"with no patch applied (at most {limit:.0e}); model not supported"
        )
    return difference


def check_frequencies(model: PreTrainedModel) -> None:
    """Make sure that new frequencies reach the logits: zero ones must move them.

    Raises:
        PatchError: they do not.
    """
    rotary = rotary_embedding(model)
    plain = few_logits(model)
    still = Rope(torch.zeros_like(rotary.inv_freq), 1.0, 1.0)
    with frequencies(rotary, still):
        if torch.equal(few_logits(model), plain):
            raise PatchError(
                f"{name_of(model)}: frequencies do not reach the logits; model not supported"
            )


def few_logits(model: PreTrainedModel) -> Tensor:
    """Logits of a few fixed tokens in fp32 [1, tokens, vocabulary]."""
    size = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(1, IDENTITY_TOKENS + 1, device=model.device)[None] * 7919 % size
    with torch.inference_mode():
        logits: Tensor = model(ids, use_cache=False).logits
    return logits.float()


def name_of(model: PreTrainedModel) -> str:
    """The model's type, for messages."""
    return str(model.config.model_type)


def head_dim(model: PreTrainedModel) -> int:
    """Size of one attention head."""
    config = model.config
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
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


def rotary_embedding(model: PreTrainedModel) -> Any:
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
def frequencies(rotary: Any, rope: Rope) -> Iterator[None]:
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
def unwindowed(model: PreTrainedModel) -> Iterator[None]:
    """Switch the model's own sliding window off: masks read it from the config at every forward."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    with settings(config, {"sliding_window": window} if window else {}):
        if window:
            config.sliding_window = UNBOUNDED_WINDOW
        yield


@contextmanager
def hooked(model: PreTrainedModel, rotary: Any, rope: Rope, plans: list[Plan]) -> Iterator[None]:
    """Rotate at attention time, by one plan a layer."""
    still = Rope(torch.zeros_like(rope.inv_freq), 1.0, rope.theta)
    with frequencies(rotary, still), attention_function(model, banded(plans), None):
        yield


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
