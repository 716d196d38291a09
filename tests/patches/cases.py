"""What the oracle tests share: problems, specs read without `patches`, a probe of positions."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import Any

import torch

from patches import parse
from patches.attention import partial_attention
from patches.base import Extent, Rope
from tests.oracle import oracle_attention_lse

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """Shapes and lengths of one attention problem; the run may be longer than the input."""

    length: int
    trained: int
    context_length: int
    head_dim: int
    rotary_dim: int
    base: float = 10000.0
    heads: int = 4
    kv_heads: int = 2

    @property
    def scaling(self) -> float:
        return self.head_dim**-0.5


FULL = Problem(length=61, trained=24, context_length=61, head_dim=8, rotary_dim=8)
PARTIAL = Problem(
    length=40, trained=16, context_length=100, head_dim=12, rotary_dim=8, base=500.0, heads=6
)
LONG = Problem(
    length=97, trained=32, context_length=97, head_dim=8, rotary_dim=4, heads=4, kv_heads=1
)
PROBLEMS = {"full": FULL, "partial": PARTIAL, "long": LONG}


def split(spec: str) -> tuple[str, list[dict[str, Any]]]:
    """Names joined by `+`, and one dict of parameters a name."""
    names, params = [], []
    for name, inside in re.findall(r"([a-z][a-z0-9-]*)(?:\(([^)]*)\))?", spec):
        pairs = [pair.split("=") for pair in inside.split(",") if pair]
        names.append(name)
        params.append({key: _value(text) for key, text in pairs})
    return "+".join(names), params


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@functools.cache
def inputs(problem: Problem, seed: int = 0) -> Tensors:
    """Unrotated query, key and value [1, heads, length, head_dim] in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(heads: int) -> torch.Tensor:
        shape = (1, heads, problem.length, problem.head_dim)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return 2 * draw(problem.heads), draw(problem.kv_heads), draw(problem.kv_heads)


@functools.cache
def expected(spec: str, problem: Problem, layer: int = 0, seed: int = 0) -> Tensors:
    """The oracle's output [1, heads, length, head_dim] and log-sum-exp [1, heads, length]."""
    method, params = split(spec)
    query, key, value = (x[0].tolist() for x in inputs(problem, seed))
    sizes = (problem.trained, problem.context_length, problem.base, problem.rotary_dim)
    out, lse = oracle_attention_lse(
        method, params, query, key, value, *sizes, problem.scaling, layer
    )
    return torch.tensor(out, dtype=torch.float64)[None], torch.tensor(lse, dtype=torch.float64)[
        None
    ]


def plain_rope(base: float, rotary_dim: int, dtype: torch.dtype = torch.float64) -> Rope:
    """The untouched rotary embedding."""
    rates = [base ** (-2 * d / rotary_dim) for d in range(rotary_dim // 2)]
    return Rope(torch.tensor(rates, dtype=dtype), 1.0, base)


def plan_of(spec: str, problem: Problem, dtype: torch.dtype = torch.float64, layer: int = 0) -> Any:
    """The spec resolved for the problem."""
    rope = plain_rope(problem.base, problem.rotary_dim, dtype)
    extent = Extent(problem.context_length, problem.trained, problem.head_dim)
    return parse(spec).resolve(rope, extent, layer=layer)


RATE = 0.01


def measured_positions(
    spec: str, length: int, trained: int, layer: int = 0
) -> dict[tuple[int, int], float]:
    """Position difference that the code uses for every visible pair (i, j), read off its logits.

    One slow pair rotates; queries point along its first axis and keys along its first or second,
    so the two logits are cos and sin of the angle between query and key. Values are one-hot, which
    makes the output the softmax weights.
    """
    width = 2 * math.ceil(max(length, 4) / 2)
    rope = Rope(torch.tensor([RATE], dtype=torch.float64), 1.0, RATE**-1.0)
    plan = parse(spec).resolve(rope, Extent(length, trained, width), layer=layer)
    query = torch.zeros(2, 1, length, width, dtype=torch.float64)
    key, value = torch.zeros_like(query), torch.zeros_like(query)
    query[:, :, :, 0] = 1
    key[0, :, :, 0] = key[1, :, :, 1] = 1
    value[..., :length] = torch.eye(length, dtype=torch.float64)
    out, lse = partial_attention(query, key, value, plan, scaling=1.0, q_start=0, k_start=0)
    logits = out[:, 0, :, :length].log() + lse[:, 0, :, None]
    table = {}
    for i in range(length):
        for j in range(length):
            if logits[0, i, j] > -math.inf:
                cos, sin = logits[0, i, j].item(), logits[1, i, j].item()
                table[i, j] = math.atan2(sin, cos) / RATE
    return table
