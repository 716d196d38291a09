"""The rotation of queries and keys by their positions."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from patches.base import Layout, Plan, PositionMap, Rope

__all__ = [
    "Turn",
    "cos_sin",
    "mapped",
    "places",
    "rotate",
    "rotated",
    "split",
    "turn_of",
    "turned_to",
]

CosSin = tuple[Tensor, Tensor]  # cosine and sine of each pair's angle [.., length, rotary_dim/2]


@dataclass(frozen=True)
class Turn:
    """A rotation of whole heads in three calls, for few tokens, where each call counts.

    Attributes:
        own: what each channel is multiplied by [.., head_dim].
        other: what is added of its partner, likewise.
        partner: index of the other channel of its pair; of itself if it does not rotate [head_dim].
    """

    own: Tensor
    other: Tensor
    partner: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys [batch, heads, length, head_dim]."""
        return torch.addcmul(x * self.own, x.index_select(-1, self.partner), self.other)


def rotate(x: Tensor, positions: Tensor, rope: Rope, skew: Tensor | None = None) -> Tensor:
    """Rotate the channels of x that the rope's layout names by the positions of x.

    Args:
        x: queries or keys [batch, heads, length, head_dim].
        positions: rotation positions, fractions allowed [length].
        rope: frequencies; cos and sin are multiplied by its attention_factor.
        skew: weight of a pair's first channel over that of its second, if x has been multiplied by
            weights that belong after the rotation [rotary_dim/2].
    """
    return turned(x, cos_sin(x, positions, rope), rope, skew)


def turned(x: Tensor, tables: CosSin, rope: Rope, skew: Tensor | None) -> Tensor:
    """Rotate x as `rotate` does, by tables of its dtype."""
    if not rope.rotary_dim:
        return x
    cos, sin = tables
    before, low, high, rest = split(x, rope)
    onto_low, onto_high = skewed(sin, skew)
    # in place, as new memory costs more than sums; products are rounded by themselves, as models do
    pair = (low * cos).sub_(high * onto_low), (high * cos).add_(low * onto_high)
    return joined(before, pair, rest, rope.layout)


def turn_of(
    x: Tensor, positions: Tensor, rope: Rope, skew: Tensor | None, factor: Tensor | float = 1.0
) -> Turn:
    """The rotation of vectors like x by some positions [..], all times a factor [.., 1]."""
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    cos, sin = cos_sin(x.new_empty(0, dtype=precision), positions, rope)
    onto_low, onto_high = skewed(sin, skew)
    partner, before, rest = partners(x.shape[-1], rope.rotary_dim, rope.layout, x.device)

    def filled(value: float, channels: int) -> Tensor:
        return cos.new_full((*cos.shape[:-1], channels), value)

    own = joined(filled(1, before), (cos, cos), filled(1, rest), rope.layout)
    other = joined(filled(0, before), (-onto_low, onto_high), filled(0, rest), rope.layout)
    return Turn((own * factor).to(x.dtype), (other * factor).to(x.dtype), partner)


@functools.lru_cache(maxsize=64)
def partners(
    width: int, rotary_dim: int, layout: Layout, device: torch.device
) -> tuple[Tensor, int, int]:
    """The other channel of each one's pair, and how many do not rotate before and after them."""
    with torch.inference_mode(False):  # it outlives the forward that asks for it
        rope = Rope(torch.zeros(rotary_dim // 2), 1.0, 1.0, layout)
        before, low, high, rest = split(torch.arange(width, device=device), rope)
        return joined(before, (high, low), rest, layout), before.numel(), rest.numel()


def skewed(sin: Tensor, skew: Tensor | None) -> CosSin:
    """What of a pair's second channel goes onto its first, and of the first onto the second."""
    return (sin, sin) if skew is None else (sin * skew.to(sin), sin / skew.to(sin))


def cos_sin(x: Tensor, positions: Tensor, rope: Rope) -> CosSin:
    """Cosine and sine of each pair's angle in the dtype of x [.., rotary_dim/2], given [..]."""
    precision = torch.float64 if x.dtype == torch.float64 else torch.float32
    inv_freq = rope.inv_freq.to(x.device, precision)
    angles = positions.to(x.device, precision)[..., None] * inv_freq
    sign = -1 if rope.layout.reverse else 1
    cos = (angles.cos() * rope.attention_factor).to(x.dtype)
    sin = (angles.sin() * (sign * rope.attention_factor)).to(x.dtype)
    return cos, sin


def split(x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Channels of x before the pairs, first and second ones of the pairs, and those after."""
    start = x.shape[-1] - rope.rotary_dim if rope.layout.last else 0
    before, turning, rest = x.tensor_split((start, start + rope.rotary_dim), dim=-1)
    if rope.layout.interleaved:
        return before, turning[..., 0::2], turning[..., 1::2], rest
    low, high = turning.tensor_split(2, dim=-1)
    return before, low, high, rest


def joined(before: Tensor, pair: tuple[Tensor, Tensor], rest: Tensor, layout: Layout) -> Tensor:
    """What `split` takes apart."""
    if layout.interleaved:
        return torch.cat((before, torch.stack(pair, -1).flatten(-2), rest), dim=-1)
    return torch.cat((before, *pair, rest), dim=-1)


def rotated(
    x: Tensor,
    span: tuple[int, int, int],
    positions: PositionMap | None,
    plan: Plan,
    skew: Tensor | None,
    pads: tuple[int, ...] = (0,),
) -> Tensor:
    """Columns [first, stop) of x, which begins at `start`, rotated by a band's position map.

    `pads` are the columns before position 0 of each row, or of all rows.
    """
    first, stop, start = span
    x, rope = x[:, :, first - start : stop - start], plan.rope
    if positions is None and rope.attention_factor == 1.0:
        return x

    def make() -> CosSin:
        angle_at = turned_to(positions, places(first, stop, pads, x.device))
        return cos_sin(x, angle_at[:, None], rope)  # [rows, 1, length, rotary_dim/2]

    depends_on = (
        first,
        stop,
        pads,
        positions,
        rope.inv_freq,
        rope.layout.reverse,
        x.dtype,
        x.device,
    )
    return turned(x, plan.once(depends_on, make), rope, skew)


def places(first: int, stop: int, pads: tuple[int, ...], device: torch.device) -> Tensor:
    """Positions of columns [first, stop) behind so much padding in float64 [len(pads), length]."""
    rows = (torch.arange(first - pad, stop - pad, device=device).double() for pad in pads)
    return torch.stack(tuple(rows))


def mapped(positions: PositionMap, at: Tensor) -> Tensor:
    """A position map on several rows [rows, length]."""
    return positions(at.flatten()).reshape(at.shape)


def turned_to(positions: PositionMap | None, at: Tensor) -> Tensor:
    """The positions that a band rotates to; 0 where it does not rotate [rows, length]."""
    return torch.zeros_like(at) if positions is None else mapped(positions, at)
