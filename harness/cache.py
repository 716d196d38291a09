"""A KV cache that is allocated once and handed out as views: no copy when it grows."""

from functools import partial

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["make_cache"]


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in two buffers of fixed length.

    `keys` and `values` are views of the filled part [batch, heads, kv_len, head_dim], so whatever
    reads them (lengths, masks) sees an ordinary growing cache.
    """

    def __init__(self, capacity: int) -> None:
        """Make an empty layer for at most `capacity` tokens; buffers come with the first update."""
        super().__init__()
        self.capacity = capacity
        self.buffers: tuple[Tensor, Tensor] | None = None

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
            self.length = 0
        start, self.length = self.length, self.length + key_states.shape[-2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self.length].copy_(new)
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)
        return self.keys, self.values

    def _allocate(self, states: Tensor) -> Tensor:
        batch, heads, _, head_dim = states.shape
        return torch.empty(
            (batch, heads, self.capacity, head_dim), dtype=states.dtype, device=states.device
        )


def make_cache(capacity: int) -> Cache:
    """Return an empty cache for `capacity` tokens; layers come as the model asks for them."""
    return Cache(layer_class_to_replicate=partial(PreallocatedLayer, capacity))
