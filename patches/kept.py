"""Rotated keys that are kept from one decoding step to the next.

A key's rotation by a band depends on its own position alone, so a step has to rotate the new key
only. What is kept lives with the cache that the keys come from: its tensors carry a dictionary as
attribute `kept`, which the cache empties whenever it holds other tokens. Keys without it are
rotated anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["KeptKeys", "kept_keys"]

SLACK = 256  # tokens of room that a buffer has for later steps
Rotate = Callable[[int, int], Tensor]  # columns [first, stop) to rotated keys


@dataclass
class Part:
    """Rotated keys of columns [first, stop) in a buffer [batch, kv_heads, capacity, head_dim]."""

    buffer: Tensor
    first: int
    stop: int

    def view(self, first: int, stop: int) -> Tensor:
        """Columns [first, stop), which must be there."""
        return self.buffer[:, :, first - self.first : stop - self.first]

    def append(self, new: Tensor) -> None:
        """Add the columns behind the last one; there must be room."""
        start = self.stop - self.first
        self.buffer[:, :, start : start + new.shape[2]].copy_(new)
        self.stop += new.shape[2]


class KeptKeys:
    """Rotated keys of the bands of one layer."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.parts: dict[int, Part] = {}

    def get(self, band: int, first: int, stop: int, rotate: Rotate) -> Tensor:
        """Rotated keys of columns [first, stop) for a band; only new ones are rotated."""
        part = self.parts.get(band)
        if part is None or not part.first <= first <= part.stop <= stop:
            part = self.parts[band] = grown(rotate(first, stop), first)
        elif stop > part.stop:
            new = rotate(part.stop, stop)
            if stop - part.first > part.buffer.shape[2]:
                old = part.view(first, part.stop)
                part = self.parts[band] = grown(old, first, new.shape[2])
            part.append(new)
        return part.view(first, stop)


def grown(keys: Tensor, first: int, more: int = 0) -> Part:
    """A part that begins with these keys, with room for some more."""
    batch, heads, length, dim = keys.shape
    part = Part(keys.new_empty(batch, heads, length + more + SLACK, dim), first, first)
    part.append(keys)
    return part


def kept_keys(key: Any, pads: tuple[int, ...]) -> KeptKeys | None:
    """What is kept of a cache's keys behind so much padding, if the cache keeps anything."""
    kept: dict[tuple[int, ...], KeptKeys] | None = getattr(key, "kept", None)
    return None if kept is None else kept.setdefault(pads, KeptKeys())
