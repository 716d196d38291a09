"""NTK-RoPE: extrapolate the fast pairs, interpolate the slow ones.

With D the rotary dimension, d = 0 ... D/2 - 1 the pair and s the factor, each method divides
inv_freq[d] by a power of s that grows with d. The model's shipped frequencies are the starting
point, so that a new base theta' = theta * x is written as the multiplier x^(-2d/D).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from patches.base import Extent, Patch, Rope, RopeParameters
from patches.method import Method, Parameter
from patches.pi import FACTOR

PUBLISHED_MIXED = {"article": (None, 0.625), "repository": (12.0, 0.75)}


def pairs(rope: Rope) -> Tensor:
    """Pair indices d = 0 ... D/2 - 1."""
    return torch.arange(rope.rotary_dim // 2, dtype=torch.float64)


def scaled_by(multiplier: Callable[[Rope, float], Tensor], factor: float | None) -> Patch:
    """A patch that multiplies the frequencies by multiplier(rope, factor)."""

    def rope(rope: Rope, extent: Extent) -> Rope:
        scale = multiplier(rope, factor or extent.factor)
        return rope.scaled(scale.to(rope.inv_freq))

    return Patch(rope=rope)


def rebased(rope: Rope, ratio: float) -> Tensor:
    """Multiplier that turns the base theta into theta * ratio."""
    return ratio ** (-2 * pairs(rope) / rope.rotary_dim)


def aware_ratio(rope: Rope, factor: float) -> float:
    """theta'/theta = s^(D/(D-2)); one pair alone is interpolated by 1/s."""
    dim = rope.rotary_dim
    return factor ** (dim / (dim - 2)) if dim > 2 else factor


def with_base(ratio: Callable[[Rope, Extent], float]) -> Patch:
    """A patch that gives the model the base theta * ratio(rope, extent)."""

    def rope(rope: Rope, extent: Extent) -> Rope:
        return rope.scaled(rebased(rope, ratio(rope, extent)).to(rope.inv_freq))

    def parameters(rope: Rope, extent: Extent) -> RopeParameters:
        return {"rope_type": "default", "rope_theta": rope.theta * ratio(rope, extent)}

    return Patch(rope=rope, rope_parameters=parameters)


def ntk_old(factor: float | None = None) -> Patch:
    """New base: theta' = theta * s."""
    return with_base(lambda rope, extent: factor or extent.factor)


def ntk(factor: float | None = None) -> Patch:
    """New base: theta' = theta * s^(D/(D-2)): the last pair is slowed by exactly s."""
    return with_base(lambda rope, extent: aware_ratio(rope, factor or extent.factor))


def ntk_fixed(factor: float | None = None) -> Patch:
    """inv_freq'[d] = inv_freq[d] * s^(-2(d+1)/D): the first pair is slowed as well."""
    return scaled_by(lambda rope, s: s ** (-2 * (pairs(rope) + 1) / rope.rotary_dim), factor)


def ntk_mixed(
    factor: float | None = None, beta: float | None = None, setting: str = "article"
) -> Patch:
    """inv_freq'[d] = inv_freq[d] * exp(-a (d+1)^beta) with a = ln s / (D/2)^beta."""
    published_factor, published_beta = PUBLISHED_MIXED[setting]
    exponent = published_beta if beta is None else beta

    def multiplier(rope: Rope, s: float) -> Tensor:
        a = math.log(s) / (rope.rotary_dim / 2) ** exponent
        return torch.exp(-a * (pairs(rope) + 1) ** exponent)

    return scaled_by(multiplier, factor or published_factor)


def ntk_dynamic(factor: float = 1.0) -> Patch:
    """New base: theta' = theta (f L/L_train - (f - 1))^(D/(D-2)), L the context length."""
    return with_base(lambda rope, extent: aware_ratio(rope, factor * extent.factor - (factor - 1)))


SU_RADIX = "Su Jianlin, kexue.fm/archives/9706"

METHODS = (
    Method(
        name="ntk-old",
        seam="frequencies",
        build=ntk_old,
        parameters=(FACTOR,),
        formula="theta' = theta * s",
        claims="first training-free method that keeps some loss; the last pair is not quite / s",
        source="Su Jianlin, kexue.fm/archives/9675 (radix reading)",
    ),
    Method(
        name="ntk",
        seam="frequencies",
        build=ntk,
        parameters=(FACTOR,),
        formula="theta' = theta * s^(D/(D-2))",
        claims="good to about half of the length that it is set for (9948): give twice the ratio",
        source="bloc97 (reddit, 2023); Peng et al. 2023 (2309.00071), section 3.1",
    ),
    Method(
        name="ntk-fixed",
        seam="frequencies",
        build=ntk_fixed,
        parameters=(FACTOR,),
        formula="inv_freq'[d] = inv_freq[d] * s^(-2(d+1)/D)",
        claims="every pair is stretched, the last by exactly s; a little better than ntk-old",
        source=SU_RADIX,
    ),
    Method(
        name="ntk-mixed",
        seam="frequencies",
        build=ntk_mixed,
        parameters=(
            FACTOR,
            Parameter("beta", float, "the setting's exponent", low=0),
            Parameter("setting", ("article", "repository"), "article"),
        ),
        formula="inv_freq'[d] = inv_freq[d] * exp(-a (d+1)^beta), a = ln s / (D/2)^beta",
        claims="best of the NTK family with log n; beta=1 is ntk-fixed, beta=0 is pi",
        source=f"{SU_RADIX} (setting=article: beta 0.625, chosen at s=8); "
        "bojone/rerope ntk_patch (setting=repository: beta 0.75 and s=12)",
        differs="log n, which the repository multiplies in, is a patch of its own: ntk-mixed+logn",
    ),
    Method(
        name="ntk-dynamic",
        seam="frequencies",
        build=ntk_dynamic,
        parameters=(Parameter("factor", float, "1", low=1),),
        formula="theta' = theta * (f L/L_train - (f-1))^(D/(D-2)), L = context_length >= L_train",
        claims="plain inside the trained length, stretched only as far as needed",
        source="emozilla (reddit, 2023); HF `dynamic`",
        differs="L is fixed once for a cell (prompt and generated), as 9948 advises, so that no "
        "key carries an older base; HF recomputes it as the input grows",
    ),
)
