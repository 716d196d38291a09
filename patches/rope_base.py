"""RoPE with another base, and the smallest base that a length wants."""

import itertools
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from patches.base import Extent, Patch, Rope, RopeParameters
from patches.method import Method, Parameter

# Su Jianlin, kexue.fm/archives/10122: lower bounds for rotary_dim 128.
LOWER_BOUNDS = {
    "1k": 4.3e3,
    "2k": 1.2e4,
    "4k": 2.7e4,
    "8k": 8.4e4,
    "16k": 2.3e5,
    "32k": 6.3e5,
    "64k": 2.1e6,
    "128k": 4.9e6,
    "256k": 2.4e7,
    "512k": 5.8e7,
    "1m": 6.5e7,
}

BLOCK = 4096  # distances checked at once
NEAR = 256  # a violation moves slowly with the base: look around the last one first


def frequencies(theta: float, rotary_dim: int) -> Tensor:
    """inv_freq[d] = theta^(-2d/D), in fp64 [rotary_dim/2]."""
    return theta ** -(torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)


def violation(theta: float, distances: range, rotary_dim: int) -> int | None:
    """A distance m with sum_d cos(m inv_freq[d]) < 0, None if there is none among these."""
    inv_freq = frequencies(theta, rotary_dim)
    for start in range(distances.start, distances.stop, BLOCK):
        stop = min(start + BLOCK, distances.stop)
        m = torch.arange(start, stop, dtype=torch.float64)
        sums = (m[:, None] * inv_freq).cos().sum(1)
        if sums.min() < 0:
            return start + int(sums.argmin())
    return None


@cache
def base_lower_bound(length: int, rotary_dim: int) -> float:
    """Smallest base of three significant digits that keeps similar tokens ahead of random ones.

    The condition is sum_d cos(m inv_freq[d]) >= 0 for all distances m < length. Bases that meet it
    lie in narrow islands, so that the value moves by some percent with the grid.

    Source: Su Jianlin, kexue.fm/archives/10122 (article 18).
    """
    last = 0
    for exponent, digits in itertools.product(range(300), range(100, 1000)):
        theta = digits * 10.0**exponent
        around = range(max(0, last - NEAR), min(last + NEAR, length))
        if violation(theta, around, rotary_dim) is None:
            found = violation(theta, range(length), rotary_dim)
            if found is None:
                return theta
            last = found
    raise AssertionError("no base below 1e300 keeps similar tokens ahead")


def rope_base(theta: float | None = None) -> Patch:
    """inv_freq[d] = theta^(-2d/D); the shipped attention factor is dropped."""

    def base_of(rope: Rope, extent: Extent) -> float:
        return theta or max(rope.theta, base_lower_bound(extent.context_length, rope.rotary_dim))

    def rope(rope: Rope, extent: Extent) -> Rope:
        base = base_of(rope, extent)
        inv_freq = frequencies(base, rope.rotary_dim).to(rope.inv_freq)
        inv_freq = inv_freq.where(rope.inv_freq != 0, 0)  # pairs that never turn stay so
        return replace(rope, inv_freq=inv_freq, attention_factor=1.0, theta=base)

    def parameters(rope: Rope, extent: Extent) -> RopeParameters:
        return {"rope_type": "default", "rope_theta": base_of(rope, extent)}

    return Patch(rope=rope, rope_parameters=parameters)


METHODS = (
    Method(
        name="rope-base",
        seam="frequencies",
        build=rope_base,
        parameters=(
            Parameter(
                "theta",
                float,
                "the lower bound for context_length, at least the model's",
                low=1,
                above=True,
            ),
        ),
        formula="inv_freq[d] = theta^(-2d/D)",
        claims="a base above the lower bound keeps similar tokens apart from random ones: smallest "
        "theta with sum_d cos(m inv_freq[d]) >= 0 for all m < length; for D = 128: "
        + ", ".join(f"{length} {bound:.2g}" for length, bound in LOWER_BOUNDS.items()),
        source="Su Jianlin, kexue.fm/archives/10122; CodeLlama (2308.12950), ABF (2309.16039)",
        exceptions={"identity": "a fixed base acts at every length"},
    ),
)
