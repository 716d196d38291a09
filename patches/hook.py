"""Attention functions in transformers' signature that carry out a patch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from patches.attention import attend
from patches.base import Band, Plan, QueryScale, Region, Rope
from patches.spec import PatchError

__all__ = ["AttentionFunction", "Columns", "banded", "native_plans", "scaled"]

AttentionFunction = Callable[..., tuple[Tensor, None]]


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
    """The native attention on queries times the query scale."""

    def function(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        positions = columns.of_queries(query.shape[2], key.shape[2], query.device)
        scale = query_scale(positions).to(query.dtype)[:, None, :, None]  # [batch, 1, q_len, 1]
        return native(module, query * scale, key, value, *args, **kwargs)

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
        first_column = key.shape[2] - query.shape[2]
        pads = left_padding(attention_mask, query.shape[0], key.shape[2])
        if module.layer_idx == 0:  # reading positions waits for the device: once a forward
            check_positions(kwargs.get("position_ids"), pads, first_column)
        out = torch.empty_like(query)
        for pad in set(pads):  # queries before position 0 are padding: they see nothing
            rows = [row for row, own in enumerate(pads) if own == pad]
            q, k, v = (x if len(rows) == len(pads) else x[rows] for x in (query, key, value))
            start = first_column - pad
            k, v = k[:, :, pad:], v[:, :, pad:]
            out[rows] = attend(q, k, v, plan, scaling=scaling, q_start=start)
        return out.transpose(1, 2).contiguous(), None

    return function


def native_plans(
    windows: Sequence[int | None], query_scale: QueryScale | None = None
) -> tuple[Plan, ...]:
    """Plans of the model's own attention, whose queries and keys come rotated, by its windows."""
    rotated = Rope(torch.zeros(0), 1.0, 1.0)
    return tuple(
        Plan(rotated, (Band(Region(distance=(0, window))),), query_scale) for window in windows
    )


def refuse_extras(module: Any, kwargs: dict[str, Any], mask: Tensor | None, dropout: float) -> None:
    """Refuse what the blockwise attention does not compute, rather than leave it out."""
    extras = [
        name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None
    ]
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
        if newest >= pad and row not in (newest - pad, newest):
            raise PatchError(
                f"position {row} of the newest token is not its place {newest - pad}; packed or "
                "shifted sequences and caches that drop keys are not supported"
            )
