"""The one hook: puts a patch on a HuggingFace causal LM and takes it off again.

While it is on, the rotary embedding answers cos = 1, sin = 0 (frequencies 0) and an attention
function registered for this model alone rotates queries and keys, so that the KV cache holds
un-rotated keys. A patch of frequencies alone needs no hook: it writes the frequencies and keeps the
model's native attention; a query scale alone multiplies the queries before the native attention.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from patches.base import Extent, Patch, PatchError, Plan, QueryScale, Rope
from patches.checks import (
    IDENTITY_TOKENS,
    check_layers,
    compare,
    few_logits,
    name_of,
    native_window,
    notes,
    own_windows,
)
from patches.hook import AttentionFunction, Columns, banded, native_plans, scaled

__all__ = ["Applied", "apply", "check_identity", "trained_length", "watched"]

UNBOUNDED_WINDOW = 1 << 30
PATCHED = "patched"  # rope_type while a patch is on
LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True)
class Applied:
    """What a patch became on a model.

    Attributes:
        attention: native kernel's name, with `+scale` after it if queries are scaled, or blockwise.
        keep: newest input tokens that the model may be given; None for all.
        notes: remarks for the user, a line each.
        plans: what each layer does to the queries and keys that its attention is given.
    """

    attention: str
    keep: int | None = None
    notes: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()


def trained_length(config: Any) -> int:
    """Tokens a model was trained at: original_max_position_embeddings, else the maximum."""
    parameters = getattr(config, "rope_parameters", None) or {}
    original = parameters.get("original_max_position_embeddings")
    return int(original or config.max_position_embeddings)


@contextmanager
def apply(
    model: PreTrainedModel, patch: Patch, context_length: int, trained: int | None = None
) -> Iterator[Applied]:
    """Put a patch on for the body of a `with`; the model is as before afterwards.

    Args:
        model: causal LM with one rotary embedding.
        patch: what `patches.parse` returned.
        context_length: whole token budget that length-dependent values are derived from.
        trained: tokens the model was trained at; by default what its config says.

    Raises:
        PatchError: the model is not supported or already patched, or a layer range misses its
            layers.
    """
    extent = Extent(context_length, trained or trained_length(model.config), head_dim(model))
    native = str(model.config._attn_implementation)
    keep = patch.keep(extent) if patch.keep else None
    if not patch.parts or keep is not None:
        yield Applied(native, keep, plans=native_plans(own_windows(model.config)))
        return
    layers = int(model.config.num_hidden_layers)
    check_layers(patch, extent, layers)
    rotary = rotary_embedding(model)
    rope = shipped_rope(rotary, extent)
    plans = [patch.resolve(rope, extent, layer) for layer in range(layers)]
    scale = plans[0].query_scale
    remarks = notes(patch, extent, rope, plans[0].rope, native_window(model.config, extent))
    with unwindowed(model):
        if patch.maps_attention or (scale and native not in ALL_ATTENTION_FUNCTIONS):
            check_identity(model)
            with hooked(model, rotary, rope, banded(plans)):
                yield Applied("blockwise", None, remarks, tuple(plans))
            return
        check_frequencies(model)
        with ExitStack() as stack:
            if scale is not None:
                check_scale(model, native)
                stack.enter_context(scaled_attention(model, scale, native))
            stack.enter_context(frequencies(rotary, plans[0].rope))
            name = native + ("+scale" if scale else "")
            yield Applied(name, None, remarks, native_plans(own_windows(model.config), scale))


@contextmanager
def watched(
    model: PreTrainedModel,
    applied: Applied,
    watch: Callable[[AttentionFunction, Sequence[Plan]], AttentionFunction],
) -> Iterator[None]:
    """Wrap the attention that runs under a patch, given the plan of each layer.

    Raises:
        PatchError: the model's attention is none that can be wrapped.
    """
    name = str(model.config._attn_implementation)
    if name not in ALL_ATTENTION_FUNCTIONS:
        raise PatchError(f"attention '{name}' cannot be watched; load the model with sdpa")
    with attention_function(model, watch(ALL_ATTENTION_FUNCTIONS[name], applied.plans), name):
        yield


def check_identity(model: PreTrainedModel) -> float:
    """Measure that the hook with no patch equals the untouched model; returns the difference.

    Weights that give no finite logits cannot be checked: the difference is nan then.

    Raises:
        PatchError: the largest logit difference on a few tokens is above 1e-4 (3 % of the largest
            logit in half precision), or the model lacks what the hook needs.
    """
    rotary = rotary_embedding(model)
    extent = Extent(IDENTITY_TOKENS, trained_length(model.config), head_dim(model))
    rope = shipped_rope(rotary, extent)
    function = banded([Plan(rope)] * int(model.config.num_hidden_layers))
    with unwindowed(model):
        return compare(model, function, lambda counted: hooked(model, rotary, rope, counted))


def check_scale(model: PreTrainedModel, native: str) -> float:
    """Measure that scaling queries by 1 equals the untouched model, as `check_identity`."""
    function = scaled(torch.ones_like, ALL_ATTENTION_FUNCTIONS[native], Columns())
    return compare(model, function, lambda counted: attention_function(model, counted, native))


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


def head_dim(model: PreTrainedModel) -> int:
    """Size of one attention head."""
    config = model.config
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
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


@contextmanager
def frequencies(rotary: Any, rope: Rope) -> Iterator[None]:
    """Let the rotary embedding use these frequencies, whatever its type recomputes.

    Raises:
        PatchError: it already has frequencies that are not its own.
    """
    if rotary.rope_type == PATCHED:
        raise PatchError("the model already has a patch on; compose patches with '+' instead")
    saved = {name: getattr(rotary, name) for name in ("inv_freq", "attention_scaling", "rope_type")}
    with settings(rotary, saved):
        rotary.inv_freq = rope.inv_freq.to(rotary.inv_freq)
        rotary.attention_scaling = rope.attention_factor
        rotary.rope_type = PATCHED
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
def hooked(
    model: PreTrainedModel, rotary: Any, rope: Rope, function: AttentionFunction
) -> Iterator[None]:
    """Let an attention function rotate queries and keys; the model itself does not."""
    still = Rope(torch.zeros_like(rope.inv_freq), 1.0, rope.theta)
    with frequencies(rotary, still), attention_function(model, function):
        yield


@contextmanager
def scaled_attention(
    model: PreTrainedModel, query_scale: QueryScale, native: str
) -> Iterator[None]:
    """Multiply queries by a scale of their real positions before the native attention."""
    columns = Columns()
    function = scaled(query_scale, ALL_ATTENTION_FUNCTIONS[native], columns)
    with attention_function(model, function, native, columns):
        yield


@contextmanager
def attention_function(
    model: PreTrainedModel,
    function: AttentionFunction,
    native: str | None = None,
    columns: Columns | None = None,
) -> Iterator[None]:
    """Register a function for this model alone, with the masks of `native` or padding masks.

    `columns`, if given, is told the padding of every forward.
    """
    name = f"length_extrapolation_{uuid.uuid4().hex}"
    before = model.config._attn_implementation
    mask = ALL_MASK_ATTENTION_FUNCTIONS[native] if native else flash_attention_mask
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, columns.watch(mask) if columns else mask)
    try:
        model.set_attn_implementation(name)
        yield
    finally:
        model.set_attn_implementation(before)
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)
