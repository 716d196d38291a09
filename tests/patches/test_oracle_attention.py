"""Attention under every method against the dense oracle: whole, in pieces, one query at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from patches.attention import attend, partial_attention
from tests.patches.cases import FULL, PROBLEMS, Problem, expected, inputs, plan_of

FREQUENCIES = [
    "none",
    "pi",
    "pi(factor=2.5)",
    "ntk-old(factor=3)",
    "ntk",
    "ntk(factor=4)",
    "ntk-fixed(factor=4)",
    "ntk-mixed(factor=4,beta=0.625)",
    "ntk-mixed(factor=12,beta=0.75)",
    "ntk-dynamic(factor=1)",
    "ntk-dynamic(factor=4)",
    "ntk-by-parts(factor=4,alpha=1,beta=32)",
    "ntk-by-parts(factor=4,alpha=0.1,beta=3)",
    "yarn(ramp=code)",
    "yarn(factor=4,ramp=code)",
    "yarn(factor=4,ramp=paper)",
    "yarn(factor=2,ramp=paper,attention_factor=1.5)",
    "llama3(factor=8)",
    "rope-base(theta=250000)",
]
SCALES = [
    "logn",
    "infoscale",
    "temperature(value=0.7)",
    "temperature(value=1.6)",
    "yarn-scale",
    "yarn-scale(factor=4)",
    "longrope-scale",
    "longrope-scale(factor=4)",
    "logn+temperature(value=2)",
]
BANDS = [
    "rerope(window=1)",
    "rerope(window=7)",
    "rerope(window=16)",
    "rerope(window=60)",
    "rerope(window=200)",
    "leaky-rerope(window=1,k=16)",
    "leaky-rerope(window=7,k=4)",
    "leaky-rerope(window=13,k=2.5)",
    "leaky-rerope(window=200,k=8)",
    "self-extend(neighbor_window=4,group_size=4)",
    "self-extend(neighbor_window=8,group_size=4)",
    "self-extend(neighbor_window=9,group_size=3)",
    "self-extend(neighbor_window=200,group_size=8)",
    "dca(chunk_size=7,local_window=3)",
    "dca(chunk_size=10,local_window=10)",
    "dca(chunk_size=12,local_window=1)",
    "dca(chunk_size=16,local_window=8)",
    "dca(chunk_size=39,local_window=5)",
    "dca(chunk_size=200,local_window=8)",
    "string(shift=8,window=1)",
    "string(shift=10,window=3)",
    "string(shift=16,window=8)",
    "string(shift=200,window=4)",
    "lm-infinite(window=1,sinks=1)",
    "lm-infinite(window=7,sinks=3)",
    "lm-infinite(window=16,sinks=4)",
    "lm-infinite(window=9,sinks=150)",
    "lm-infinite(window=200,sinks=4)",
    "streaming(window=1,sinks=1)",
    "streaming(window=7,sinks=3)",
    "streaming(window=12,sinks=4)",
    "streaming(window=3,sinks=9)",
    "streaming(window=9,sinks=150)",
    "streaming(window=200,sinks=4)",
]
VISIBLE = [
    "window(size=1)",
    "window(size=7)",
    "window(size=16)",
    "window(size=200)",
    "window(size=7)+sinks(size=3)",
    "window(size=1)+sinks(size=1)",
    "window(size=5)+sinks(size=150)",
    "sinks(size=4)",
]
STACKS = [
    "ntk(factor=4)+logn",
    "ntk(factor=8)+rerope(window=7)",
    "pi(factor=3)+dca(chunk_size=7,local_window=3)",
    "yarn(factor=4,ramp=code)+rerope(window=9)",
    "yarn(factor=4,ramp=paper)+window(size=9)",
    "rerope(window=9)+logn",
    "self-extend(neighbor_window=8,group_size=4)+logn",
    "rerope(window=5)+window(size=12)",
    "leaky-rerope(window=5,k=4)+window(size=13)+sinks(size=3)",
    "dca(chunk_size=7,local_window=3)+window(size=11)+sinks(size=2)",
    "string(shift=10,window=3)+infoscale",
    "streaming(window=7,sinks=3)+window(size=20)",
    "streaming(window=7,sinks=3)+window(size=4)+sinks(size=2)",
    "lm-infinite(window=5,sinks=4)+window(size=9)+sinks(size=2)",
    "window(size=12)+window(size=7)",
    "yarn(factor=4,ramp=code)+leaky-rerope(window=9,k=4)",
    "ntk(factor=4)+rerope(window=7)+logn+window(size=15)+sinks(size=2)",
    "llama3(factor=8)+leaky-rerope(window=7,k=4)+temperature(value=0.8)+longrope-scale(factor=2)",
]
CUT = [
    "none",
    "rerope(window=7)",
    "leaky-rerope(window=5,k=4)",
    "self-extend(neighbor_window=8,group_size=4)",
    "dca(chunk_size=7,local_window=3)",
    "dca(chunk_size=16,local_window=8)",
    "string(shift=10,window=3)",
    "lm-infinite(window=7,sinks=3)",
    "streaming(window=7,sinks=3)",
    "streaming(window=3,sinks=9)",
    "window(size=7)+sinks(size=3)",
    "yarn(factor=4,ramp=code)+rerope(window=9)",
    "ntk(factor=4)+rerope(window=7)+logn+window(size=15)+sinks(size=2)",
]


def run(spec: str, problem: Problem, dtype: torch.dtype, layer: int = 0) -> torch.Tensor:
    query, key, value = (x.to(dtype) for x in inputs(problem))
    plan = plan_of(spec, problem, dtype, layer)
    return attend(query, key, value, plan, scaling=problem.scaling, q_start=0, k_start=0)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("spec", FREQUENCIES + SCALES + BANDS + VISIBLE + STACKS)
def test_attention_equals_the_oracle(spec: str, problem: Problem) -> None:
    wanted = expected(spec, problem)[0]
    torch.testing.assert_close(run(spec, problem, torch.float64), wanted, rtol=0, atol=1e-10)
    single = run(spec, problem, torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("cuts", [(0, 1, 2, 61), (0, 20, 40, 61), (0, 7, 8, 31, 60, 61)], ids=str)
@pytest.mark.parametrize("spec", CUT)
def test_queries_in_pieces_equal_the_oracle(spec: str, cuts: tuple[int, ...]) -> None:
    query, key, value = inputs(FULL)
    plan = plan_of(spec, FULL)
    pieces = [
        attend(
            query[:, :, start:stop],
            key[:, :, :stop],
            value[:, :, :stop],
            plan,
            scaling=FULL.scaling,
            q_start=start,
            k_start=0,
        )
        for start, stop in itertools.pairwise(cuts)
    ]
    wanted = expected(spec, FULL)[0]
    torch.testing.assert_close(torch.cat(pieces, dim=2), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", CUT)
def test_one_query_equals_its_row_of_the_oracle(spec: str) -> None:
    query, key, value = inputs(FULL)
    plan = plan_of(spec, FULL)
    wanted = expected(spec, FULL)[0]
    for i in range(FULL.length):
        stop = i + 1
        out = attend(
            query[:, :, i:stop],
            key[:, :, :stop],
            value[:, :, :stop],
            plan,
            scaling=FULL.scaling,
            q_start=i,
            k_start=0,
        )
        torch.testing.assert_close(out, wanted[:, :, i:stop], rtol=0, atol=1e-10)


def merge(pieces: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    total = torch.logsumexp(torch.stack([lse for _, lse in pieces]), dim=0)
    return sum(out * (lse - total).exp()[..., None] for out, lse in pieces), total


@pytest.mark.parametrize("key_cuts", [(0, 3, 61), (0, 20, 40, 61), (0, 1, 33, 61)], ids=str)
@pytest.mark.parametrize("spec", CUT)
def test_keys_in_pieces_merge_to_the_oracle(spec: str, key_cuts: tuple[int, ...]) -> None:
    query, key, value = inputs(FULL)
    plan = plan_of(spec, FULL)
    wanted, wanted_lse = expected(spec, FULL)
    for q_start, q_stop in ((0, 25), (25, 61)):
        pieces = [
            partial_attention(
                query[:, :, q_start:q_stop],
                key[:, :, start:stop],
                value[:, :, start:stop],
                plan,
                scaling=FULL.scaling,
                q_start=q_start,
                k_start=start,
            )
            for start, stop in itertools.pairwise(key_cuts)
        ]
        assert all(out.isfinite().all() for out, _ in pieces)
        out, lse = merge(pieces)
        torch.testing.assert_close(out, wanted[:, :, q_start:q_stop], rtol=0, atol=1e-10)
        torch.testing.assert_close(lse, wanted_lse[:, :, q_start:q_stop], rtol=0, atol=1e-10)


def test_a_query_that_sees_no_key_has_zero_weight() -> None:
    query, key, value = inputs(FULL)
    plan = plan_of("window(size=7)", FULL)
    for q_start, k_start in ((0, 30), (40, 0)):
        out, lse = partial_attention(
            query[:, :, q_start : q_start + 5],
            key[:, :, k_start : k_start + 5],
            value[:, :, k_start : k_start + 5],
            plan,
            scaling=FULL.scaling,
            q_start=q_start,
            k_start=k_start,
        )
        assert out.isfinite().all()
        assert (lse == -math.inf).all()


def test_rows_of_a_batch_do_not_mix() -> None:
    spec = "ntk(factor=4)+rerope(window=7)+logn"
    pairs = zip(inputs(FULL, 0), inputs(FULL, 1), strict=True)
    query, key, value = (torch.cat(pair) for pair in pairs)
    plan = plan_of(spec, FULL)
    out = attend(query, key, value, plan, scaling=FULL.scaling, q_start=0, k_start=0)
    wanted = torch.cat([expected(spec, FULL, 0, seed)[0] for seed in (0, 1)])
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize(
    "spec",
    ["window(size=9,layers=1:3)", "window(size=9,layers=0:2)+sinks(size=2)+rerope(window=5)"],
)
def test_a_window_of_some_layers_hides_keys_in_those_alone(spec: str, layer: int) -> None:
    out = run(spec, FULL, torch.float64, layer)
    torch.testing.assert_close(out, expected(spec, FULL, layer)[0], rtol=0, atol=1e-10)
