"""Shares of attention by group of keys, against transformers' own weights and the dense oracle."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from patches import PatchError, parse
from patches.apply import apply, watched
from patches.base import Region
from patches.shares import Share, Shares, group_shares
from tests.models import TRAINED_LENGTH, logits, tiny, tokens
from tests.oracle import oracle_attention
from tests.patches.cases import PROBLEMS, Problem, inputs, plan_of, split

LENGTH = 60
SINKS, WINDOW, FIRST_QUERY = 3, 16, 25
SPECS = [
    "none",
    "pi",
    "yarn(ramp=code)",
    "logn",
    "ntk(factor=2)+logn",
    "rerope(window=7)",
    "rerope(window=7)+logn",
    "self-extend(neighbor_window=8,group_size=4)",
    "dca(chunk_size=16,local_window=8)",
    "streaming(window=12,sinks=3)",
    "streaming(window=20,sinks=5)",
    "window(size=16)",
    "window(size=20)",
    "window(size=9)+sinks(size=2)+logn",
    "yarn(ramp=code)+window(size=30)",
]
WINDOWED = {
    "llama": {},
    "gpt_neox": {},
    "qwen3": {},
    "mistral": {"sliding_window": 12},
    "qwen2": {"sliding_window": 20, "use_sliding_window": True, "max_window_layers": 1},
}


def of_weights(weights: torch.Tensor, first_query: int, sinks: int, window: int) -> list[float]:
    """First, sinks, far and window share of weights [heads, length, length], key by key."""
    total = {"first": 0.0, "sinks": 0.0, "far": 0.0, "window": 0.0}
    heads, length, _ = weights.shape
    for head in weights.tolist():
        for i in range(first_query, length):
            for j in range(length):
                group = "sinks" if j < sinks else "window" if i - j < window else "far"
                total[group] += head[i][j]
                total["first"] += head[i][j] if j == 0 else 0.0
    return [share / (heads * (length - first_query)) for share in total.values()]


def eager_copy(model: Any) -> Any:
    """The same weights with transformers' plain attention."""
    config = copy.deepcopy(model.config)
    made = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    made.load_state_dict(model.state_dict())
    return made


def values(shares: list[Share]) -> torch.Tensor:
    """Shares as numbers [layers, 4]."""
    return torch.tensor([[one.first, one.sinks, one.far, one.window] for one in shares])


def recorded(model: Any, spec: str, ids: torch.Tensor, **wanted: Any) -> tuple[list[Share], Any]:
    """Shares of every layer, and what the watched forward returned."""
    shares = Shares(SINKS, WINDOW, FIRST_QUERY)
    with (
        torch.inference_mode(),
        apply(model, parse(spec), ids.shape[1]) as applied,
        watched(model, applied, shares.watch),
    ):
        output = model(ids, use_cache=False, **wanted)
    return shares.means(), output


@pytest.mark.parametrize("family", WINDOWED)
def test_unpatched_shares_are_those_of_eager_attention(family: str) -> None:
    model, ids = tiny(family, **WINDOWED[family]), tokens(LENGTH)
    eager = eager_copy(model)
    with torch.inference_mode():
        weights = eager(ids, use_cache=False, output_attentions=True).attentions
    expected = [of_weights(one[0], FIRST_QUERY, SINKS, WINDOW) for one in weights]
    shares, _ = recorded(model, "none", ids)
    assert [one.layer for one in shares] == list(range(len(weights)))
    torch.testing.assert_close(values(shares), torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", SPECS)
def test_shares_of_a_patched_model_are_those_of_the_oracle(spec: str) -> None:
    model, ids = tiny("llama"), tokens(LENGTH)
    shares, output = recorded(model, spec, ids, output_hidden_states=True)
    method, params = split(spec)
    one_hot = torch.eye(LENGTH).expand(2, -1, -1)
    with torch.inference_mode():
        for layer, block in enumerate(model.model.layers):
            hidden = block.input_layernorm(output.hidden_states[layer][0])
            query, key = (
                project(hidden).view(LENGTH, -1, 16).transpose(0, 1)
                for project in (block.self_attn.q_proj, block.self_attn.k_proj)
            )
            sizes = (TRAINED_LENGTH, LENGTH, 10000.0, 16, 16**-0.5)
            weights = oracle_attention(method, params, query, key, one_hot, *sizes, layer)
            expected = of_weights(torch.tensor(weights), FIRST_QUERY, SINKS, WINDOW)
            found = values(shares)[layer]
            torch.testing.assert_close(found, torch.tensor(expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("spec", ["none", "rerope(window=7)+logn", "window(size=9)+sinks(size=2)"])
def test_every_share_is_the_sum_of_its_weights(problem: Problem, spec: str) -> None:
    query, key, value = inputs(problem)
    groups = (Region(keys=(0, 5)), Region((7, None), (5, None)), Region((0, 7), (5, None)))
    newest = query[:, :, 11:]
    plan = plan_of(spec, problem)
    shares, out = group_shares(newest, key, value, plan, groups, problem.scaling)
    method, params = split(spec)
    one_hot = torch.eye(problem.length).expand(problem.kv_heads, -1, -1)
    sizes = (problem.trained, problem.context_length, problem.base, problem.rotary_dim)
    dense = oracle_attention(method, params, query[0], key[0], one_hot, *sizes, problem.scaling)
    weights = torch.tensor(dense, dtype=torch.float64)[:, 11:]  # [heads, q_len, kv_len]
    i = torch.arange(11, problem.length)[:, None]
    j = torch.arange(problem.length)
    masks = [(j < 5).expand(len(i), -1), (j >= 5) & (i - j >= 7), (j >= 5) & (i - j < 7)]
    for share, mask in zip(shares[:, 0], masks, strict=True):
        torch.testing.assert_close(share, (weights * mask).sum(-1), atol=1e-9, rtol=0)
    wanted = oracle_attention(method, params, query[0], key[0], value[0], *sizes, problem.scaling)
    torch.testing.assert_close(out[0], torch.tensor(wanted, dtype=out.dtype)[:, 11:])


@pytest.mark.parametrize("spec", SPECS)
def test_shares_add_up_and_the_logits_stay_bit_equal(spec: str) -> None:
    model, ids = tiny("llama"), tokens(LENGTH)
    with apply(model, parse(spec), LENGTH):
        plain = logits(model, ids)
    shares, output = recorded(model, spec, ids)
    assert torch.equal(output.logits, plain)
    for one in shares:
        assert one.sinks + one.far + one.window == pytest.approx(1, abs=1e-6)
        assert 0 <= one.first <= one.sinks


@pytest.mark.parametrize("spec", ["window(size=16)", "streaming(window=16,sinks=3)"])
def test_what_a_patch_hides_has_no_share(spec: str) -> None:
    shares, _ = recorded(tiny("llama"), spec, tokens(LENGTH))
    assert all(one.far == 0 for one in shares)
    assert all((one.sinks == 0) == spec.startswith("window") for one in shares)


@pytest.mark.parametrize("spec", ["none", "logn", "rerope(window=7)+logn", "window(size=9)"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_reading_in_pieces_gives_the_same_shares(family: str, spec: str) -> None:
    model, ids = tiny(family, **WINDOWED[family]), tokens(LENGTH)
    whole, _ = recorded(model, spec, ids)
    shares, cache = Shares(SINKS, WINDOW, FIRST_QUERY), DynamicCache(config=None)
    with (
        torch.inference_mode(),
        apply(model, parse(spec), LENGTH) as applied,
        watched(model, applied, shares.watch),
    ):
        for start in range(0, LENGTH, 13):
            model(ids[:, start : start + 13], past_key_values=cache, use_cache=True)
    torch.testing.assert_close(values(shares.means()), values(whole), atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", ["none", "rerope(window=7)+logn"])
def test_half_precision_has_the_shares_of_single(spec: str) -> None:
    model, ids = tiny("llama"), tokens(LENGTH)
    whole, _ = recorded(model, spec, ids)
    half, _ = recorded(copy.deepcopy(model).to(torch.bfloat16), spec, ids)
    torch.testing.assert_close(values(half)[0], values(whole)[0], atol=0.02, rtol=0)


def test_an_attention_that_the_plan_does_not_describe_is_refused() -> None:
    model, shares = tiny("llama"), Shares(SINKS, WINDOW, FIRST_QUERY)
    with apply(model, parse("rerope(window=7)"), LENGTH) as other:
        pass
    refused = pytest.raises(PatchError, match="attention put together from its shares differs")
    with refused, watched(model, other, shares.watch):
        logits(model, tokens(LENGTH))


def test_attention_outside_the_interface_is_refused() -> None:
    eager = eager_copy(tiny("llama"))
    refused = pytest.raises(PatchError, match="attention 'eager' cannot be watched")
    shares = Shares(SINKS, WINDOW, FIRST_QUERY)
    with (
        refused,
        apply(eager, parse("none"), LENGTH) as applied,
        watched(eager, applied, shares.watch),
    ):
        pass


def test_the_model_is_as_before_after_an_error() -> None:
    model = tiny("llama")
    shares = Shares(SINKS, WINDOW, FIRST_QUERY)
    with (
        pytest.raises(RuntimeError),
        apply(model, parse("none"), LENGTH) as applied,
        watched(model, applied, shares.watch),
    ):
        raise RuntimeError
    assert model.config._attn_implementation == "sdpa"
