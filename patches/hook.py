"""Attention functions in transformers' signature that carry out a patch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from patches.attention import attend
from patches.base import Band, Extent, Patch, Plan, QueryScale, Region, Rope
from patches.kept import kept_keys
from patches.newest import newest_attention
from patches.shared import Shared
from patches.spec import PatchError

__all__ = ["AttentionFunction", "Columns", "banded", "native_plans", "planned", "scaled", "swapped"]

AttentionFunction = Callable[..., tuple[Tensor, None]]
KNOWN = ("position_ids", "cache_position", "softcap", "s_aux")  # tensors that need no refusal


class Columns:
    """Real positions of the key columns of the forward under way, padding left out."""

    def __init__(self) -> None:
        """No padding until a mask tells of some."""
        self.positions: Tensor | None = None  # [batch, kv_len]

    def watch(self, mask: Callable[..., Any]) -> Callable[..., Any]:
        """The mask function, its padding mask noted on the way."""

        def function(*args: Any, **kwargs: Any) -> Any:
            padding = kwargs.get("attention_mask")
            self.positions = None if padding is None else (padding.cumsum(-1) - 1).clamp(min=0)
            return mask(*args, **kwargs)

        return function

    def of_queries(self, q_len: int, kv_len: int, device: torch.device) -> Tensor:
        """Positions of the newest columns [batch or 1, q_len]."""
        if self.positions is None:
            return torch.arange(kv_len - q_len, kv_len, device=device)[None]
        return self.positions[:, kv_len - q_len : kv_len]


def scaled(
    query_scale: QueryScale, native: AttentionFunction, columns: Columns
) -> AttentionFunction:
    """The native attention on queries times the query scale, which is found once a forward."""
    of_forward = Shared()

    def function(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        def make() -> Tensor:
            positions = columns.of_queries(query.shape[2], key.shape[2], query.device)
            return query_scale(positions).to(query.dtype)[:, None, :, None]  # [batch, 1, q_len, 1]

        of_forward.enter(-1 if (layer := getattr(module, "layer_idx", None)) is None else layer)
        about = (query.shape[2], key.shape[2], query.dtype, query.device)
        scale = of_forward.get(about, make)
        return native(module, query * scale, key, value, *args, **kwargs)

    return function


def banded(plans: Mapping[int, Plan]) -> AttentionFunction:
    """Attention by the plan of each layer, for any left padding."""
    first = min(plans, default=0)

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
        softcap, sink_logits = extras(module, kwargs, attention_mask, dropout)
        plan = plans[module.layer_idx]
        if plan.shared is not None:
            plan.shared.enter(module.layer_idx)
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        pads = padding_of_forward(plan, attention_mask, query.shape[0], key.shape[2])
        if module.layer_idx == first:  # reading positions waits for the device: once a forward
            check_positions(kwargs.get("position_ids"), pads, key.shape[2] - query.shape[2])
        settings: dict[str, Any] = {
            "scaling": scaling,
            "softcap": softcap,
            "sink_logits": sink_logits,
        }
        if query.shape[2] == 1:
            own = tuple(pads) if len(set(pads)) > 1 else (pads[0],)
            kept = kept_keys(key, own)
            out = newest_attention(query, key, value, plan, own, kept=kept, **settings)
        else:
            out = by_padding(query, key, value, plan, pads, settings)
        return out.transpose(1, 2).contiguous(), None

    return function


def by_padding(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, pads: list[int], settings: dict[str, Any]
) -> Tensor:
    """Attention of rows with as much padding together, each from its first token on."""
    first_column = key.shape[2] - query.shape[2]
    if len(set(pads)) == 1:  # views: choosing rows would copy all keys
        key, value = key[:, :, pads[0] :], value[:, :, pads[0] :]
        return attend(query, key, value, plan, q_start=first_column - pads[0], **settings)
    out = query.new_empty(*query.shape[:3], value.shape[-1])
    for pad in set(pads):  # queries before position 0 are padding: they see nothing
        here = place([row for row, own in enumerate(pads) if own == pad])
        q, k, v = query[here], key[here, :, pad:], value[here, :, pad:]
        out[here] = attend(q, k, v, plan, q_start=first_column - pad, **settings)
    return out


def planned(
    patch: Patch, extent: Extent, ropes: Mapping[int, Rope], kept: Mapping[int, Region]
) -> dict[int, Plan]:
    """What each layer does: the patch, or its own window alone where that is kept.

    Layers with the same frequencies and windows have the same position maps, and find each
    other's cosines and sines.

    Raises:
        PatchError: a window on some layers of a model whose layers share an attention module.
    """
    shared = min(ropes, default=0) < 0  # transformers numbers such a module -1
    if shared and any(rule(extent).layers != (0, None) for rule in patch.visible):
        raise PatchError(f"'{patch}': the model's layers share their attention; leave layers= out")
    of_forward = Shared()
    plans: dict[int, Plan] = {}
    alike: dict[Any, Plan] = {}
    for layer, rope in ropes.items():
        if layer in kept:
            plans[layer] = Plan(rope, (Band(kept[layer]),), shared=of_forward)
            continue
        index = max(layer, 0)
        key = rope.inv_freq, *(rule(extent).covers(index) for rule in patch.visible)
        if key not in alike:
            alike[key] = replace(patch.resolve(rope, extent, index), shared=of_forward)
        own = replace(alike[key].rope, layout=rope.layout)
        plans[layer] = replace(alike[key], rope=own)
    return plans


@contextmanager
def swapped(plans: dict[int, Plan], others: Mapping[int, Plan]) -> Iterator[None]:
    """Let attention by some plans follow others for the body of a `with`."""
    before = dict(plans)
    plans.update(others)
    try:
        yield
    finally:
        plans.update(before)


def place(rows: list[int]) -> slice | list[int]:
    """Rows in rising order as an index: a slice where they stand together.

    So no cache is copied, and no list goes to the device in each layer, which waits for it.
    """
    first, stop = rows[0], rows[-1] + 1
    return slice(first, stop) if len(rows) == stop - first else rows


def native_plans(
    layers: int, windows: Mapping[int, Region], query_scale: QueryScale | None = None
) -> dict[int, Plan]:
    """Plans of the model's own attention, whose queries and keys come rotated, by its windows.

    Layer -1 is the number that transformers gives a module that several layers share.
    """
    rotated = Rope(torch.zeros(0), 1.0, 1.0)
    return {
        layer: Plan(rotated, (Band(windows.get(layer, Region())),), query_scale)
        for layer in range(-1, layers)
    }


def extras(
    module: Any, kwargs: dict[str, Any], mask: Tensor | None, dropout: float
) -> tuple[float | None, Tensor | None]:
    """The cap on scores and the sink logits of a layer.

    Raises:
        PatchError: attention is given something else that changes it; better than leaving it out.
    """
    others = [
        name
        for name, value in kwargs.items()
        if name not in KNOWN and (isinstance(value, Tensor) or name == "position_bias")
        if value is not None
    ]
    if mask is not None and mask.ndim != 2:
        others.append("a 4-D attention mask")
    if dropout:
        others.append("attention dropout")
    if others:
        kind = module.config.model_type
        raise PatchError(f"{kind}: attention uses {', '.join(others)}; not supported by this patch")
    return kwargs.get("softcap"), kwargs.get("s_aux")


def padding_of_forward(plan: Plan, mask: Tensor | None, batch: int, kv_len: int) -> list[int]:
    """What `left_padding` gives, read once a forward: reading it waits for the device."""
    return plan.once((mask, batch, kv_len), lambda: left_padding(mask, batch, kv_len))


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
    if position_ids is None or position_ids.is_meta:
        return
    rows = position_ids.expand(len(pads), -1)
    newest = first_column + rows.shape[1] - 1
    for row, pad in zip(rows[:, -1].tolist(), pads, strict=True):
        if newest >= pad and row not in (newest - pad, newest):
            raise PatchError(
                f"position {row} of the newest token is not its place {newest - pad}; packed or "
                "shifted sequences and caches that drop keys are not supported"
            )
