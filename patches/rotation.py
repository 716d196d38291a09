"""The rotation of queries and keys by their positions."""

import torch
from torch import Tensor

from patches.base import Rope

__all__ = ["rotate"]


def rotate(x: Tensor, positions: Tensor, rope: Rope) -> Tensor:
    """Rotate the channels of x that the rope's layout names by the positions of x.

    Args:
        x: queries or keys [batch, heads, length, head_dim].
        positions: rotation positions, fractions allowed [length].
        rope: frequencies; cos and sin are multiplied by its attention_factor.
    """
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    inv_freq = rope.inv_freq.to(x.device, precision)
    angles = positions.to(x.device, precision)[:, None] * inv_freq  # [length, rotary_dim/2]
    cos = (angles.cos() * rope.attention_factor).to(x.dtype)
    sign = -1 if rope.layout.reverse else 1
    sin = (angles.sin() * (sign * rope.attention_factor)).to(x.dtype)
    start = x.shape[-1] - rope.rotary_dim if rope.layout.last else 0
    before, turning, rest = x.tensor_split((start, start + rope.rotary_dim), dim=-1)
    if rope.layout.interleaved:
        low, high = turning[..., 0::2], turning[..., 1::2]
        turned = torch.stack((low * cos - high * sin, high * cos + low * sin), -1).flatten(-2)
        return torch.cat((before, turned, rest), dim=-1)
    low, high = turning.tensor_split(2, dim=-1)
    return torch.cat((before, low * cos - high * sin, high * cos + low * sin, rest), dim=-1)
