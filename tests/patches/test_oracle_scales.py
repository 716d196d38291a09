"""Logit scales and the lower bound of the base, against published values."""

from __future__ import annotations

import math

import pytest
import torch

from patches import parse
from patches.attention import partial_attention
from patches.base import Extent, Rope
from patches.rope_base import base_lower_bound


def measured_scale(spec: str, trained: int, context_length: int, position: int) -> float:
    """Factor on the logits of the query at a position, read off the log-sum-exp of one key."""
    dim = 128
    rope = Rope(torch.zeros(dim // 2, dtype=torch.float64), 1.0, 1e4)
    plan = parse(spec).resolve(rope, Extent(context_length, trained, dim), layer=0)
    query = torch.zeros(1, 1, 1, dim, dtype=torch.float64)
    query[..., 0] = 1
    _, lse = partial_attention(query, query, query, plan, scaling=1.0, q_start=position, k_start=0)
    return lse.item()


@pytest.mark.parametrize(
    ("spec", "length", "published"),
    [
        ("infoscale", 8192, 1.038),
        ("infoscale", 16384, 1.074),
        ("infoscale", 32768, 1.109),
        ("logn", 16384, 1.16667),
        ("longrope-scale", 16384, 1.16667),
        ("longrope-scale(factor=4)", 16384, 1.16667),
        ("yarn-scale", 16384, 1.1386294**2),
        ("yarn-scale(factor=4)", 16384, 1.1386294**2),
        ("logn", 4096, 1.0),
        ("logn", 1, 1.0),
        ("infoscale", 4096, 1.0),
        ("infoscale", 1, 1.0),
        ("temperature(value=0.5)", 16384, 0.5),
    ],
)
def test_published_logit_scales(spec: str, length: int, published: float) -> None:
    scale = measured_scale(spec, 4096, length, length - 1)
    assert scale == pytest.approx(published, abs=5.1e-4 if spec == "infoscale" else 5e-6)


@pytest.mark.parametrize("spec", ["logn", "infoscale", "yarn-scale", "longrope-scale"])
def test_scales_within_the_trained_length_are_exactly_one(spec: str) -> None:
    assert all(measured_scale(spec, 4096, 4096, i) == 1.0 for i in (0, 1, 63, 4094, 4095))


def test_constant_scales_act_on_short_queries_too() -> None:
    for spec in ("yarn-scale", "longrope-scale"):
        first, last = (measured_scale(spec, 4096, 16384, i) for i in (0, 16383))
        assert first == last > 1.1


BOUNDS = {1024: 4.3e3, 2048: 1.2e4, 4096: 2.7e4, 8192: 8.4e4, 16384: 2.3e5, 32768: 6.3e5}


@pytest.mark.parametrize(("length", "published"), BOUNDS.items())
def test_base_lower_bound_meets_the_table_of_article_18(length: int, published: float) -> None:
    assert base_lower_bound(length, 128) == pytest.approx(published, rel=0.15)


def least_score(base: float, length: int, rotary_dim: int) -> float:
    rates = [base ** (-2 * d / rotary_dim) for d in range(rotary_dim // 2)]
    return min(math.fsum(math.cos(m * rate) for rate in rates) for m in range(length))


@pytest.mark.parametrize(("length", "rotary_dim"), [(1024, 128), (2048, 128), (512, 64)])
def test_base_lower_bound_is_the_first_base_that_keeps_similar_tokens_ahead(
    length: int, rotary_dim: int
) -> None:
    bound = base_lower_bound(length, rotary_dim)
    assert least_score(bound, length, rotary_dim) >= -1e-6
    for share in (0.99, 0.97, 0.9, 0.7, 0.4, 0.1):
        assert least_score(share * bound, length, rotary_dim) < 0
