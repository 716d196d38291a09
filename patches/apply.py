"""The one hook: puts a patch on a HuggingFace causal LM and takes it off again.

While it is on, the rotary embeddings answer cos = 1, sin = 0 (frequencies 0) and an attention
function registered for this model alone rotates queries and keys, so that the KV cache holds
un-rotated keys. What a layer rotates by, and which channels, is measured on the model itself. A
patch of frequencies alone needs no hook: it writes the frequencies and keeps the model's native
attention; a query scale alone multiplies the queries before the native attention. Frequencies that
depend on the length are those of the cell's, with no patch too, however its input is read.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from patches.base import Extent, Patch, PatchError, Plan, QueryScale, Region, Rope
from patches.checks import (
    IDENTITY_TOKENS,
    check_causal,
    check_layers,
    compare,
    notes,
    without_rotary,
)
from patches.config import head_dim, trained_length
from patches.hook import AttentionFunction, Columns, banded, native_plans, planned, scaled, swapped
from patches.positions import lengthened, tables_for
from patches.rotary import (
    Rotations,
    check_frequencies,
    first_of,
    frequencies,
    layer_ropes,
    layer_rotations,
    passes_factor,
    still,
)
from patches.sets import RotarySet, rotary_sets, standard_sets
from patches.windows import hiding, lifted_note, unwindowed

__all__ = ["Applied", "apply", "check_identity", "trained_length", "watched"]

LENGTH_DEPENDENT = ("dynamic", "longrope")
Ropes = Mapping[RotarySet, Rope]


@dataclass(frozen=True)
class Applied:
    """What a patch became on a model.

    Attributes:
        attention: native kernel's name, with `+scale` after it if queries are scaled, or blockwise.
        keep: newest input tokens that the model may be given; None for all.
        notes: remarks for the user, a line each.
        plans: what each layer does to the queries and keys that its attention is given.
        readings: contexts to read a prompt in, where a patch has several; plans are of none.
    """

    attention: str
    keep: int | None = None
    notes: tuple[str, ...] = ()
    plans: Mapping[int, Plan] = field(default_factory=dict)
    readings: tuple[Callable[[], AbstractContextManager[None]], ...] = ()


@contextmanager
def apply(
    model: PreTrainedModel, patch: Patch, context_length: int, trained: int | None = None
) -> Iterator[Applied]:
    """Put a patch on for the body of a `with`; the model is as before afterwards.

    Args:
        model: causal LM, or one that fills in masked tokens.
        patch: what `patches.parse` returned.
        context_length: whole token budget that length-dependent values are derived from.
        trained: tokens the model was trained at; by default what its config says.

    Raises:
        PatchError: the model is not supported or already patched, has too few positions, or a
            layer range misses its layers.
    """
    extent = Extent(context_length, trained or trained_length(model.config), head_dim(model))
    native = str(model.config._attn_implementation)
    keep = patch.keep(extent) if patch.keep else None
    config = model.config.get_text_config()
    layers, windows = int(config.num_hidden_layers), hiding(config, extent)
    if patch.needs_rotary:
        some_rotary_sets(model)
    tables = tables_for(model, patch, extent, keep)
    if patch.leaves_model or keep is not None:
        with frequencies(settled(model, replace(extent, context_length=keep or context_length))):
            yield Applied(native, keep, plans=native_plans(layers, windows))
        return
    if not tables:
        some_rotary_sets(model)
    check_layers(patch, extent, layers)
    sets = rotary_sets(model, extent.context_length)
    shipped = {rotary: shipped_rope(rotary, extent) for rotary in sets}
    kept = windows if patch.native_window else {}
    usual = first_of(shipped)
    remarks = notes(patch, usual, patch.resolve(usual, extent).rope) + lifted_note(windows, patch)
    with (
        unwindowed(config),
        lengthened(model, tables, patch.position_table, extent),
        attached(model, patch, extent, shipped, kept) as applied,
    ):
        yield replace(applied, notes=remarks)


@contextmanager
def attached(
    model: PreTrainedModel,
    patch: Patch,
    extent: Extent,
    shipped: Ropes,
    kept: Mapping[int, Region],
) -> Iterator[Applied]:
    """Put new frequencies on, or the hook where a patch needs it."""
    native, patched = str(model.config._attn_implementation), resolved(patch, extent, shipped)
    scale = patch.resolve(first_of(shipped), extent).query_scale
    ropes = patch.decoding.ropes if patch.decoding else ()
    others = [replace(patch, rope=rope) for rope in ropes]
    if patch.maps_attention or scale is not None:
        check_causal(model)
    unscalable = scale is not None and native not in ALL_ATTENTION_FUNCTIONS
    if patch.maps_attention or kept or unscalable or loses_factor(model, shipped, patched):
        rotations = measured(model)
        identity(model, rotations)
        turned = layer_ropes(rotations, shipped)
        plans = planned(patch, extent, turned, kept)
        swaps = [partial(swapped, plans, planned(one, extent, turned, kept)) for one in others]
        with hooked(model, shipped, banded(plans)):
            yield Applied("blockwise", plans=plans, readings=tuple(swaps))
        return
    if shipped:
        check_frequencies(model, shipped)
    each = [partial(frequencies, resolved(one, extent, shipped)) for one in others]
    plans = native_plans(int(model.config.get_text_config().num_hidden_layers), {}, scale)
    with scaled_attention(model, scale, native), frequencies({} if each else patched):
        yield Applied(native + ("+scale" if scale else ""), plans=plans, readings=tuple(each))


@contextmanager
def watched(
    model: PreTrainedModel,
    applied: Applied,
    watch: Callable[[AttentionFunction, Mapping[int, Plan]], AttentionFunction],
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


def resolved(patch: Patch, extent: Extent, shipped: Ropes) -> dict[RotarySet, Rope]:
    """The frequencies of each set under a patch."""
    return {rotary: patch.resolve(rope, extent).rope for rotary, rope in shipped.items()}


def check_identity(model: PreTrainedModel) -> float:
    """Measure that the hook with no patch equals the untouched model; returns the difference.

    Weights that give no finite logits cannot be checked: the difference is nan then.

    Raises:
        PatchError: the largest logit difference on a few tokens is above 1e-4 (1e-5 of the largest
            logit where that is more, 3 % of it in half precision), or the model lacks what the hook
            needs.
    """
    some_rotary_sets(model)
    with unwindowed(model.config.get_text_config()):
        return identity(model, measured(model))


def measured(model: PreTrainedModel) -> Rotations:
    """What each layer of attention rotates by, and which channels."""
    return layer_rotations(model, rotary_sets(model), partial(attention_function, model))


def identity(model: PreTrainedModel, rotations: Rotations) -> float:
    """Difference of the hook with the shipped frequencies from the untouched model."""
    extent = Extent(IDENTITY_TOKENS, IDENTITY_TOKENS, head_dim(model))
    shipped = {rotary: shipped_rope(rotary, extent) for rotary in rotary_sets(model)}
    plans = {layer: Plan(rope) for layer, rope in layer_ropes(rotations, shipped).items()}
    return compare(model, banded(plans), lambda counted: hooked(model, shipped, counted))


def loses_factor(model: PreTrainedModel, shipped: Ropes, patched: Ropes) -> bool:
    """True if the patch sets an attention factor that the model itself would undo."""
    if all(patched[one].attention_factor == rope.attention_factor for one, rope in shipped.items()):
        return False
    attach = partial(attention_function, model)
    return not passes_factor(model, measured(model), list(shipped), attach)


def check_scale(model: PreTrainedModel, native: str) -> float:
    """Measure that scaling queries by 1 equals the untouched model, as `check_identity`."""
    function = scaled(torch.ones_like, ALL_ATTENTION_FUNCTIONS[native], Columns())
    return compare(model, function, lambda counted: attention_function(model, counted, native))


def some_rotary_sets(model: PreTrainedModel) -> list[RotarySet]:
    """The model's sets of frequencies.

    Raises:
        PatchError: it has none.
    """
    found = rotary_sets(model)
    if not found:
        raise without_rotary(model)
    return found


def shipped_ropes(model: PreTrainedModel, extent: Extent) -> dict[RotarySet, Rope]:
    """The frequencies that a model ships with, at the cell's length where they depend on it."""
    return {rotary: shipped_rope(rotary, extent) for rotary in some_rotary_sets(model)}


def shipped_rope(rotary: RotarySet, extent: Extent) -> Rope:
    """One set of frequencies as shipped."""
    inv_freq, attention_factor = rotary.inv_freq, rotary.attention_factor
    if rotary.rope_type in LENGTH_DEPENDENT:
        compute = ROPE_INIT_FUNCTIONS[rotary.rope_type]
        inv_freq, attention_factor = compute(
            rotary.module.config,
            inv_freq.device,
            seq_len=extent.context_length,
            **({"layer_type": rotary.kind} if rotary.kind else {}),
        )
    return Rope(inv_freq.clone(), float(attention_factor), rotary.theta)


def settled(model: PreTrainedModel, extent: Extent) -> dict[RotarySet, Rope]:
    """Shipped frequencies that transformers would choose anew by the positions of each forward."""
    moving = (one for one in standard_sets(model) if one.rope_type in LENGTH_DEPENDENT)
    return {rotary: shipped_rope(rotary, extent) for rotary in moving}


@contextmanager
def hooked(model: PreTrainedModel, shipped: Ropes, function: AttentionFunction) -> Iterator[None]:
    """Let an attention function rotate queries and keys; the model itself does not."""
    unrotated = {rotary: still(rotary) for rotary in shipped}
    with frequencies(unrotated), attention_function(model, function):
        yield


@contextmanager
def scaled_attention(
    model: PreTrainedModel, query_scale: QueryScale | None, native: str
) -> Iterator[None]:
    """Multiply queries by a scale of their real positions, if any, before the native attention."""
    if query_scale is None:
        yield
        return
    check_scale(model, native)
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
