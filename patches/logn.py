"""Scales of the logits: one factor per query, or one constant."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from patches.base import Extent, Patch
from patches.method import Method, Parameter
from patches.pi import FACTOR


def logn() -> Patch:
    """c(i) = max(1, ln(i + 1) / ln L_train); i + 1 keys are visible to query i."""

    def scale(positions: Tensor, extent: Extent) -> Tensor:
        trained = math.log(extent.original_max_position_embeddings)
        logs: Tensor = torch.log(positions.double() + 1)
        ratio: Tensor = (logs / trained).clamp(min=1)
        return ratio

    return Patch(query_scales=(scale,))


def infoscale() -> Patch:
    """c(i) = max(1, sqrt(1 - n^(-2/dh)) / sqrt(1 - L_train^(-2/dh))) with n = i + 1."""

    def scale(positions: Tensor, extent: Extent) -> Tensor:
        exponent = -2 / extent.head_dim
        trained = 1.0 - float(extent.original_max_position_embeddings**exponent)
        entropy: Tensor = 1 - (positions.double() + 1) ** exponent
        return (entropy / trained).sqrt().clamp(min=1)

    return Patch(query_scales=(scale,))


def temperature(value: float) -> Patch:
    """c(i) = value."""
    return constant(lambda extent: value)


def yarn_scale(factor: float | None = None) -> Patch:
    """c(i) = (0.1 ln s + 1)^2."""
    return constant(lambda extent: (0.1 * math.log(factor or extent.factor) + 1) ** 2)


def longrope_scale(factor: float | None = None) -> Patch:
    """c(i) = 1 + ln s / ln L_train."""

    def value(extent: Extent) -> float:
        trained = math.log(extent.original_max_position_embeddings)
        return 1 + math.log(factor or extent.factor) / trained

    return constant(value)


def constant(value: Callable[[Extent], float]) -> Patch:
    """A patch that multiplies every logit by value(extent)."""

    def scale(positions: Tensor, extent: Extent) -> Tensor:
        return torch.full_like(positions, value(extent), dtype=torch.float64)

    return Patch(query_scales=(scale,))


METHODS = (
    Method(
        name="logn",
        seam="query scale",
        build=logn,
        formula="c(i) = max(1, ln(i+1) / ln L_train)",
        claims="keeps the entropy of attention as keys grow in number; adds to ntk and rerope",
        source="Su Jianlin, kexue.fm/archives/8823 and 9706 (clipped, training-free form)",
    ),
    Method(
        name="infoscale",
        seam="query scale",
        build=infoscale,
        formula="c(i) = max(1, sqrt(1 - n^(-2/dh)) / sqrt(1 - L_train^(-2/dh))), n = i+1",
        claims="information-entropy invariance; much weaker than log n",
        source="Li et al. 2025 (2501.08570), InfoScale",
    ),
    Method(
        name="temperature",
        seam="query scale",
        build=temperature,
        parameters=(Parameter("value", float, "", low=0, above=True, required=True),),
        formula="c(i) = value, a multiplier of the logits: above 1 sharpens, below 1 flattens",
        claims="a constant, to tell a method's hidden scale from its position map",
        source="ablation",
        exceptions={"identity": "a constant acts at every length"},
    ),
    Method(
        name="yarn-scale",
        seam="query scale",
        build=yarn_scale,
        parameters=(FACTOR,),
        formula="c(i) = (0.1 ln s + 1)^2",
        claims="YaRN's attention factor without its frequencies; yarn-scale(factor=2) is the 1.143 "
        "that the code of STRING multiplies in",
        source="Peng et al. 2023 (2309.00071), section 3.4",
    ),
    Method(
        name="longrope-scale",
        seam="query scale",
        build=longrope_scale,
        parameters=(FACTOR,),
        formula="c(i) = 1 + ln s / ln L_train",
        claims="LongRoPE's attention factor alone; it is log n's value at the last query",
        source="Ding et al. 2024 (2402.13753); HF `longrope`",
    ),
)
