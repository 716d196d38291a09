"""The algebra of patches: a method is data on a few seams, and `+` composes methods.

logit(i, j) = c(i) * <R(Pq(i)) q_i, R(Pk(j)) k_j> * scaling, with query i and key j.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import reduce

import torch
from torch import Tensor

from patches.decoding import Decoding
from patches.region import EVERYWHERE, Region
from patches.shared import Shared, Value
from patches.spec import PatchError

__all__ = [
    "Band",
    "Extent",
    "Layout",
    "Patch",
    "PatchError",
    "Plan",
    "Region",
    "Rope",
    "RopeParameters",
    "Window",
]


@dataclass(frozen=True)
class Extent:
    """The lengths that a method derives its values from; fixed once for a cell.

    Attributes:
        context_length: whole token budget of the run, prompt and generated, in tokens.
        original_max_position_embeddings: length the model was trained at, in tokens.
        head_dim: size of one attention head (InfoScale needs it).
    """

    context_length: int
    original_max_position_embeddings: int
    head_dim: int

    @property
    def factor(self) -> float:
        """context_length / original_max_position_embeddings, never below 1."""
        return max(1.0, self.context_length / self.original_max_position_embeddings)


@dataclass(frozen=True)
class Layout:
    """Which channels of a head rotate together.

    Attributes:
        interleaved: pairs are (2d, 2d + 1); otherwise (d, d + rotary_dim/2).
        last: the last rotary_dim channels rotate; otherwise the first.
        reverse: they turn the other way.
        skews: for queries and keys, weight of the first channel of a pair over that of the second
            [rotary_dim/2], where a norm with weights follows the rotation; None: it does not.
    """

    interleaved: bool = False
    last: bool = False
    reverse: bool = False
    skews: tuple[Tensor | None, Tensor | None] = field(default=(None, None), compare=False)


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary frequencies.

    Attributes:
        inv_freq: rotation speed of each pair [rotary_dim/2], rad/token; empty: nothing rotates.
        attention_factor: multiplier of cos and sin (logits get its square).
        theta: base of the model's geometric series.
        layout: the channels of each pair.
    """

    inv_freq: Tensor
    attention_factor: float
    theta: float
    layout: Layout = Layout()

    @property
    def rotary_dim(self) -> int:
        """Number of channels of a head that rotate."""
        return 2 * self.inv_freq.numel()

    def turns(self, length: int) -> Tensor:
        """Turns that each pair makes within `length` tokens [rotary_dim/2]."""
        return self.inv_freq * (length / (2 * math.pi))

    def scaled(self, multiplier: Tensor | float, attention_factor: float = 1.0) -> "Rope":
        """Frequencies times `multiplier`, attention factor times `attention_factor`."""
        return replace(
            self,
            inv_freq=self.inv_freq * multiplier,
            attention_factor=self.attention_factor * attention_factor,
        )


PositionMap = Callable[[Tensor], Tensor]


def unchanged(positions: Tensor) -> Tensor:
    """The position itself."""
    return positions


@dataclass(frozen=True)
class Band:
    """A region and the positions that its queries and keys are rotated by.

    Attributes:
        region: the pairs this band covers.
        query_position: map of query positions [q_len] to rotation positions [q_len].
        key_position: map of key positions [kv_len]; None leaves the keys un-rotated (position 0).
    """

    region: Region = EVERYWHERE
    query_position: PositionMap = unchanged
    key_position: PositionMap | None = unchanged


@dataclass(frozen=True)
class Window:
    """Keys at distance < size, counting the current token, on layers [layers[0], layers[1])."""

    size: int
    layers: tuple[int, int | None] = (0, None)

    def covers(self, layer: int) -> bool:
        """True if this window acts on the layer."""
        return self.layers[0] <= layer and (self.layers[1] is None or layer < self.layers[1])


QueryScale = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """A patch resolved for one layer of one cell: what the executors of attention need.

    Attributes:
        rope: the frequencies of every band.
        bands: disjoint bands that cover the visible pairs.
        query_scale: factors on queries, given their positions [q_len]; None is 1.
        shared: where layers find what others have made; None: each makes its own.
    """

    rope: Rope
    bands: tuple[Band, ...] = (Band(),)
    query_scale: QueryScale | None = None
    shared: Shared | None = None

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives, made once a forward for all layers that share it."""
        return make() if self.shared is None else self.shared.get(key, make)


SINGLE = {  # seams that hold one method
    "rope": "set the RoPE frequencies",
    "bands": "map positions",
    "decoding": "choose the next token",
    "position_table": "lengthen the position table",
}
RopeRule = Callable[[Rope, Extent], Rope]
RopeParameters = dict[str, str | int | float | bool | list[float]]
ParametersRule = Callable[[Rope, Extent], RopeParameters]
BandsRule = Callable[[Extent], tuple[Band, ...]]
ScaleRule = Callable[[Tensor, Extent], Tensor]
VisibleRule = Callable[[Extent], Window]
TableRule = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Patch:
    """One method or a composition of methods; `str` gives the canonical spec.

    Attributes:
        parts: canonical specs of the composed methods, sorted by seam, then name.
        rope: new frequencies from the model's.
        rope_parameters: the same in transformers' words, where it has a `rope_type` for them and
            the model ships plain frequencies; what deployed engines read.
        bands: position maps by region.
        query_scales: factors on queries; they multiply.
        visible: windows; they intersect.
        sinks: first keys that stay visible whatever a window hides.
        native_window: True if layers with a window of their own stay as they are.
        keep: number of newest input tokens the model is given at all.
        cuts_middle: True if a prompt longer than that loses its middle, not its beginning; None if
            it does where an answer is all that is asked for.
        decoding: how several readings of a prompt choose each token.
        position_table: from learned positions [trained length, width], those of a longer context
            [length, width].
    """

    parts: tuple[tuple[str, str], ...] = ()
    rope: RopeRule | None = None
    rope_parameters: ParametersRule | None = None
    bands: BandsRule | None = None
    query_scales: tuple[ScaleRule, ...] = ()
    visible: tuple[VisibleRule, ...] = ()
    sinks: int = 0
    native_window: bool = False
    keep: Callable[[Extent], int] | None = None
    cuts_middle: bool | None = False
    decoding: Decoding | None = None
    position_table: TableRule | None = None

    def __str__(self) -> str:
        """Canonical spec, `none` for the baseline."""
        return "+".join(spec for _, spec in self.parts) or "none"

    def __add__(self, other: "Patch") -> "Patch":
        """Compose two patches; the order does not matter.

        Raises:
            PatchError: both sit on a seam that holds one method, or a part comes twice.
        """
        both = f"'{self}+{other}'"
        for seam, what in SINGLE.items():
            if getattr(self, seam) is not None and getattr(other, seam) is not None:
                raise PatchError(f"{both}: both {what}; keep one of them")
        if (self.keep and other.parts) or (other.keep and self.parts):
            raise PatchError(
                f"{both}: a truncated input leaves nothing to extend; run them as separate patches"
            )
        twice = set(self.parts) & set(other.parts)
        if twice:
            raise PatchError(f"{both}: {twice.pop()[1]} comes twice; keep one of them")
        patch = Patch(
            parts=tuple(sorted(self.parts + other.parts)),
            rope=self.rope or other.rope,
            rope_parameters=self.rope_parameters or other.rope_parameters,
            bands=self.bands or other.bands,
            query_scales=self.query_scales + other.query_scales,
            visible=self.visible + other.visible,
            sinks=max(self.sinks, other.sinks),
            native_window=self.native_window or other.native_window,
            keep=self.keep or other.keep,
            cuts_middle=self.cuts_middle if self.keep else other.cuts_middle,
            decoding=self.decoding or other.decoding,
            position_table=self.position_table or other.position_table,
        )
        if patch.position_table and patch.needs_rotary:
            raise PatchError(
                f"{both}: no model has both learned positions and RoPE; keep one of them"
            )
        for seam, why in patch.decoding.excludes if patch.decoding else ():
            if getattr(patch, seam):
                raise PatchError(f"{both}: {why}")
        return patch

    @property
    def leaves_model(self) -> bool:
        """True if every forward is the model's own."""
        is_alone = self == Patch(self.parts, decoding=self.decoding)
        return is_alone and (self.decoding is None or self.decoding.leaves_model)

    @property
    def needs_rotary(self) -> bool:
        """True if it says how queries and keys rotate."""
        ropes = self.decoding.ropes if self.decoding else ()
        return self.rope is not None or self.bands is not None or bool(ropes)

    @property
    def maps_attention(self) -> bool:
        """True if attention itself changes, so that the native kernel cannot be used."""
        return self.bands is not None or bool(self.visible)

    def resolve(self, rope: Rope, extent: Extent, layer: int = 0) -> Plan:
        """Fix everything that depends on length, for one layer."""
        bands = self.bands(extent) if self.bands else (Band(),)
        windows = [window for rule in self.visible if (window := rule(extent)).covers(layer)]
        if windows:
            size = min(window.size for window in windows)
            recent = [replace(b, region=b.region.within((0, size), (0, None))) for b in bands]
            sinks = [
                replace(b, region=b.region.within((size, None), (0, self.sinks))) for b in bands
            ]
            bands = tuple(band for band in (*recent, *sinks) if not band.region.is_empty)
        rules = self.query_scales

        def query_scale(positions: Tensor) -> Tensor:
            return reduce(torch.mul, (rule(positions, extent) for rule in rules))

        return Plan(
            rope=self.rope(rope, extent) if self.rope and rope.rotary_dim else rope,
            bands=bands,
            query_scale=query_scale if rules else None,
        )
