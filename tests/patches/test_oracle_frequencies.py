"""Frequencies and logit scales: published values, transformers' own functions, and the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from patches import parse
from patches.base import Extent, Rope
from tests.oracle import FREQUENCIES, Setting, correction_range, oracle_inv_freq
from tests.patches.cases import plain_rope, split

PAIRS = (0, 10, 30, 40, 63)


def resolved(
    spec: str,
    trained: int,
    context_length: int,
    base: float = 1e4,
    dim: int = 128,
    dtype: torch.dtype = torch.float64,
) -> Rope:
    extent = Extent(context_length, trained, dim)
    return parse(spec).resolve(plain_rope(base, dim, dtype), extent, layer=0).rope


def base_of(rope: Rope, pair: int) -> float:
    return rope.inv_freq[pair].item() ** (-rope.inv_freq.numel() / pair)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("spec", "golden", "attention_factor"),
    [
        ("pi(factor=4)", (0.25, 0.0592843, 0.0033338, 0.000790569, 2.88695e-05), 1.0),
        ("ntk-dynamic(factor=4)", (1, 0.157828, 0.00393143, 0.000620489, 8.88294e-06), 1.0),
        (
            "yarn(factor=4,ramp=code)",
            (1, 0.237137, 0.00948852, 0.00133789, 2.88695e-05),
            1.1386294,
        ),
        ("llama3(factor=8)", (1, 0.237137, 0.0133352, 0.00137432, 1.44348e-05), 1.0),
    ],
)
def test_published_frequencies(
    spec: str, golden: tuple[float, ...], attention_factor: float, dtype: torch.dtype
) -> None:
    rope = resolved(spec, 4096, 16384, dtype=dtype)
    assert rope.inv_freq.dtype == dtype
    assert [rope.inv_freq[d].item() for d in PAIRS] == pytest.approx(golden, rel=1e-5)
    assert rope.attention_factor == pytest.approx(attention_factor, rel=1e-6)
    assert rope.inv_freq.shape == (64,)


@pytest.mark.parametrize(
    ("spec", "base"),
    [
        ("ntk-old(factor=4)", 40000),
        ("ntk(factor=4)", 40889.9),
        ("ntk-dynamic(factor=1)", 40889.9),
        ("ntk-dynamic(factor=2)", 72196),
        ("ntk-dynamic(factor=4)", 135402),
        ("rope-base(theta=500000)", 500000),
    ],
)
def test_published_bases(spec: str, base: float) -> None:
    rope = resolved(spec, 4096, 16384)
    for pair in (1, 20, 63):
        assert base_of(rope, pair) == pytest.approx(base, rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "first", "last"),
    [
        ("ntk-mixed(factor=12,beta=0.75)", 0.8960, 1 / 12),
        ("ntk-mixed(factor=8,beta=0)", 1 / 8, 1 / 8),
        ("ntk-mixed(factor=8,beta=1)", 8 ** (-2 / 128), 1 / 8),
        ("ntk-fixed(factor=8)", 8 ** (-2 / 128), 1 / 8),
        ("ntk-old(factor=8)", 1, 8 ** (-126 / 128)),
        ("ntk(factor=8)", 1, 1 / 8),
        ("pi(factor=8)", 1 / 8, 1 / 8),
    ],
)
def test_stretch_of_the_first_and_the_last_pair(spec: str, first: float, last: float) -> None:
    ratio = resolved(spec, 4096, 16384).inv_freq / plain_rope(1e4, 128).inv_freq
    assert ratio[0].item() == pytest.approx(first, abs=5e-5)
    assert ratio[-1].item() == pytest.approx(last, rel=1e-9)


@pytest.mark.parametrize(
    ("base", "dim", "trained", "low", "high", "truncated", "below_one_turn"),
    [
        (1e4, 128, 4096, 20.944, 45.027, (20, 46), 18),
        (1e4, 128, 2048, 16.128, 40.210, (16, 41), 23),
        (1e4, 64, 2048, 8.064, 20.105, (8, 21), 11),
        (1e4, 16, 2048, 2.016, 5.026, (2, 6), 2),
        (5e5, 128, 8192, 18.081, 34.984, (18, 35), 29),
        (1e6, 64, 32768, 11.798, 19.825, (11, 20), 12),
    ],
    ids=["llama-2", "llama-1", "tinyllama", "pythia", "llama-3", "qwen2.5-0.5b"],
)
def test_yarn_ramps_of_known_models(
    base: float,
    dim: int,
    trained: int,
    low: float,
    high: float,
    truncated: tuple[int, int],
    below_one_turn: int,
) -> None:
    setting = Setting(trained, 4 * trained, base, dim, dim)
    assert correction_range(setting) == pytest.approx((low, high), abs=6e-4)
    plain = plain_rope(base, dim).inv_freq
    code = resolved("yarn(factor=4,ramp=code)", trained, 4 * trained, base, dim).inv_freq / plain
    paper = resolved("yarn(factor=4,ramp=paper)", trained, 4 * trained, base, dim).inv_freq / plain
    pairs = range(dim // 2)
    assert [d for d in pairs if code[d] > 1 - 1e-9] == list(range(truncated[0] + 1))
    assert [d for d in pairs if code[d] < 0.25 + 1e-9] == list(range(truncated[1], dim // 2))
    assert sum(1 for d in pairs if paper[d] < 0.25 + 1e-9) == below_one_turn


def test_the_two_yarn_ramps_of_llama_2_differ_as_published() -> None:
    plain = plain_rope(1e4, 128).inv_freq
    ramps = {}
    for ramp in ("paper", "code"):
        ratio = resolved(f"yarn(factor=4,ramp={ramp})", 4096, 16384).inv_freq / plain
        ramps[ramp] = ratio
    kept = {ramp: (ratio[30].item() - 0.25) / 0.75 for ramp, ratio in ramps.items()}
    assert kept["paper"] == pytest.approx(0.25, abs=0.01)
    assert kept["code"] == pytest.approx(0.61, abs=0.01)
    assert (ramps["code"] / ramps["paper"]).max().item() == pytest.approx(1.73, abs=0.01)


GRID = [(1e4, 128, 4096), (1e4, 64, 2048), (5e5, 128, 8192), (1e6, 64, 32768), (1e4, 16, 2048)]


@pytest.mark.parametrize(("base", "dim", "trained"), GRID)
@pytest.mark.parametrize(
    ("spec", "kind", "settings"),
    [
        ("pi(factor=6)", "linear", {"factor": 6.0}),
        ("ntk-dynamic(factor=4)", "dynamic", {"factor": 4.0}),
        ("ntk-dynamic(factor=1)", "dynamic", {"factor": 1.0}),
        ("yarn(factor=4,ramp=code)", "yarn", {"factor": 4.0}),
        ("yarn(factor=16,ramp=code)", "yarn", {"factor": 16.0}),
        (
            "yarn(factor=4,ramp=code,attention_factor=1.25)",
            "yarn",
            {"factor": 4.0, "attention_factor": 1.25},
        ),
        (
            "llama3(factor=8)",
            "llama3",
            {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        ),
    ],
)
def test_frequencies_equal_those_of_transformers(
    spec: str, kind: str, settings: dict[str, float], base: float, dim: int, trained: int
) -> None:
    context_length = 3 * trained
    parameters: dict[str, Any] = {"rope_type": kind, "rope_theta": base, **settings}
    if kind in ("yarn", "llama3"):
        parameters["original_max_position_embeddings"] = trained
    positions = trained if kind == "dynamic" else int(settings["factor"] * trained)
    config = LlamaConfig(
        hidden_size=4 * dim,
        num_attention_heads=4,
        head_dim=dim,
        max_position_embeddings=positions,
        rope_parameters=parameters,
    )
    inv_freq, attention_factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=context_length)
    rope = resolved(spec, trained, context_length, base, dim, torch.float32)
    torch.testing.assert_close(rope.inv_freq, inv_freq.float(), rtol=2e-5, atol=0)
    assert rope.attention_factor == pytest.approx(attention_factor, rel=1e-6)


SPECS = [
    "none",
    "pi",
    "pi(factor=2.5)",
    "ntk-old",
    "ntk-old(factor=8)",
    "ntk",
    "ntk(factor=8)",
    "ntk-fixed",
    "ntk-fixed(factor=8)",
    "ntk-mixed(factor=8,beta=0.625)",
    "ntk-mixed(factor=12,beta=0.75)",
    "ntk-mixed(beta=0.5)",
    "ntk-dynamic(factor=1)",
    "ntk-dynamic(factor=3)",
    "ntk-by-parts(alpha=1,beta=32)",
    "ntk-by-parts(factor=8,alpha=1,beta=32)",
    "ntk-by-parts(factor=8,alpha=2,beta=16)",
    "yarn(ramp=paper)",
    "yarn(ramp=code)",
    "yarn(factor=8,ramp=paper)",
    "yarn(factor=8,ramp=code)",
    "yarn(factor=8,ramp=paper,attention_factor=1)",
    "llama3",
    "llama3(factor=32)",
    "rope-base(theta=2500000)",
]


@pytest.mark.parametrize("stretch", [0.5, 1, 1.5, 8])
@pytest.mark.parametrize(("base", "dim", "trained"), [*GRID, (100.0, 8, 512)])
@pytest.mark.parametrize("spec", SPECS)
def test_frequencies_equal_the_oracle(
    spec: str, base: float, dim: int, trained: int, stretch: float
) -> None:
    context_length = int(stretch * trained)
    method, params = split(spec)
    wanted, attention_factor = oracle_inv_freq(method, params, trained, context_length, base, dim)
    rope = resolved(spec, trained, context_length, base, dim)
    assert rope.inv_freq.tolist() == pytest.approx(wanted, rel=1e-9, abs=0)
    assert rope.attention_factor == pytest.approx(attention_factor, rel=1e-12)


def test_every_frequency_method_has_an_oracle_spec() -> None:
    assert {split(spec)[0] for spec in SPECS} == set(FREQUENCIES)


SHIPPED = "llama3(factor=8)"


@pytest.mark.parametrize(
    "spec", ["pi", "ntk-old", "ntk", "ntk-fixed", "ntk-mixed(factor=4,beta=0.625)"]
)
def test_frequencies_start_from_the_shipped_ones(spec: str) -> None:
    shipped = resolved(SHIPPED, 8192, 32768, 5e5)
    extent = Extent(32768, 8192, 128)
    rope = parse(spec).resolve(Rope(shipped.inv_freq, 1.2, 5e5), extent, layer=0).rope
    plain = resolved(spec, 8192, 32768, 5e5).inv_freq / plain_rope(5e5, 128).inv_freq
    torch.testing.assert_close(rope.inv_freq, shipped.inv_freq * plain, rtol=1e-9, atol=0)
    assert rope.attention_factor == pytest.approx(1.2)


UNCHANGED = [
    "pi",
    "ntk-old",
    "ntk",
    "ntk-fixed",
    "ntk-mixed",
    "ntk-dynamic",
    "ntk-dynamic(factor=4)",
    "ntk-by-parts",
    "yarn",
    "yarn(ramp=code)",
    "yarn(ramp=paper)",
    "llama3",
]


@pytest.mark.parametrize("context_length", [100, 4096])
@pytest.mark.parametrize("spec", UNCHANGED)
def test_defaults_within_the_trained_length_change_nothing(spec: str, context_length: int) -> None:
    plain = plain_rope(1e4, 128, torch.float32).inv_freq
    rope = resolved(spec, 4096, context_length, dtype=torch.float32)
    assert torch.equal(rope.inv_freq, plain)
    assert rope.attention_factor == 1.0
