"""A KV cache that is allocated once and handed out as views: no copy when it grows.

It has one row a sequence. Prompts are read row by row, each right before a common column, so that
they need no padding among themselves; then all rows go on together. Layers that keep something else
than keys and values, as recurrent ones do, are the model's own: a set for each row until then.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from harness.states import KEYS_ALONE, joined, keeps_states, own_layers

__all__ = ["RowCache", "cached", "padded"]


@dataclass
class Place:
    """Where tokens go: all rows or one, from a column on."""

    rows: slice
    first: int


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in two buffers of fixed size [rows, heads, columns, head_dim].

    `keys` and `values` are views of the filled part of the rows in use, so whatever reads them
    (lengths, masks) sees an ordinary growing cache.
    """

    def __init__(self, size: int, capacity: int, place: Place) -> None:
        """Make an empty layer; buffers come with the first update.

        Args:
            size: number of rows.
            capacity: number of columns.
            place: where the first tokens go; shared by all layers.
        """
        super().__init__()
        self.size = size
        self.capacity = capacity
        self.place = place
        self.length = 0
        self.buffers: tuple[Tensor, Tensor] | None = None
        self.kept: dict[tuple[int, ...], object] = {}  # of patches: what they derive from the keys

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append new keys and values and return views of all of them.

        Args:
            key_states: [batch, heads, q_len, head_dim].
            value_states: [batch, heads, q_len, head_dim].
            args: ignored; part of the signature of transformers.
            kwargs: ignored likewise.
        """
        if self.buffers is None:
            self.buffers = (self._allocate(key_states), self._allocate(value_states))
            self.dtype, self.device = key_states.dtype, key_states.device
            self.is_initialized = True
        start = self.place.first + self.length
        stop = start + key_states.shape[-2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[self.place.rows, :, start:stop].copy_(new)
        self.show(stop - self.place.first)
        return self.keys, self.values

    def show(self, length: int) -> None:
        """Let `keys` and `values` be the first `length` tokens of the rows in use."""
        assert self.buffers is not None
        self.length = length
        rows, first = self.place.rows, self.place.first
        self.keys, self.values = (one[rows, :, first : first + length] for one in self.buffers)
        self.keys.kept = self.kept  # type: ignore[attr-defined]

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, head_dim = states.shape
        return states.new_empty(self.size, heads, self.capacity, head_dim)


class RowCache(Cache):
    """Keys and values of some sequences, read one by one and continued together."""

    def __init__(self, size: int, capacity: int, config: Any = None) -> None:
        """Make an empty cache, its first row open.

        Args:
            size: number of rows.
            capacity: number of columns.
            config: the model's; None if its layers keep keys and values alone.
        """
        self.place = Place(slice(0, 1), 0)
        self.own: list[dict[int, Any]] = [{} for _ in range(size)]
        make = functools.partial(PreallocatedLayer, size, capacity, self.place)
        if not keeps_states(config):
            super().__init__(layer_class_to_replicate=make)
            return
        own = own_layers(config)
        super().__init__(layers=[make() if type(one) in KEYS_ALONE else one for one in own])
        self.own = [self.states() for _ in range(size)]

    def open(self, rows: slice, first: int, length: int = 0) -> None:
        """Let the next tokens of some rows go behind `length` tokens from column `first` on.

        Rows that keep states go on together once, after which none of them goes on alone.
        """
        self.place.rows, self.place.first = rows, first
        for layer in self.begun():
            layer.kept = {}
            layer.show(length)
        opened = self.own[rows]
        for index in list(opened[0]):
            if len(opened) == 1:
                self.layers[index] = opened[0][index]
            else:  # let go of layer by layer: one may keep keys too
                self.layers[index] = joined([one.pop(index) for one in opened], length)

    def begun(self) -> list[PreallocatedLayer]:
        """The layers of keys and values that have been given some."""
        own = [layer for layer in self.layers if isinstance(layer, PreallocatedLayer)]
        return [layer for layer in own if layer.buffers is not None]

    def blank(self, row: int, columns: int) -> None:
        """Put zeros into the first columns of a row: what is masked must be finite."""
        for layer in self.begun():
            for buffer in layer.buffers or ():
                buffer[row, :, :columns] = 0

    def copy(
        self, row: int, first: int, other: RowCache, place: tuple[int, int], length: int
    ) -> None:
        """Open a row with `length` tokens that stand in a (row, first column) of another cache."""
        self.open(slice(row, row + 1), first)
        there, start = slice(place[0], place[0] + 1), place[1]
        for index, layer in enumerate(other.layers):
            if isinstance(layer, PreallocatedLayer) and layer.buffers is not None:
                keys, values = (one[there, :, start : start + length] for one in layer.buffers)
                self.update(keys, values, index)

    def states(self) -> dict[int, Any]:
        """A copy of the layers that keep states: those behind the tokens read so far."""
        return {
            index: copy.deepcopy(layer)
            for index, layer in enumerate(self.layers)
            if not isinstance(layer, PreallocatedLayer)
        }

    def go_on_from(self, states: dict[int, Any]) -> None:
        """Put a copy of such layers in the place of those of the open row."""
        for index, layer in states.items():
            self.layers[index] = self.own[self.place.rows][0][index] = copy.deepcopy(layer)


def padded(pads: Sequence[int], columns: int, device: torch.device) -> dict[str, Tensor]:
    """What a step of rows is told, `columns` before it, of which the first of a row are padding."""
    if not any(pads):
        return {}
    first = torch.tensor(pads, device=device)[:, None]
    places = torch.arange(columns + 1, device=device)[None]
    return {"attention_mask": (places >= first).long(), "position_ids": columns - first}


def cached(model: Any, cache: object) -> dict[str, object]:
    """What a forward is told of a cache, by the name that the model has for it; None for none."""
    return {_name(model.__class__): cache, "use_cache": cache is not None}


@functools.cache
def _name(kind: Any) -> str:
    names = inspect.signature(kind.forward).parameters
    return "cache_params" if "cache_params" in names else "past_key_values"  # of recurrences
