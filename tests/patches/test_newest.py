"""One query a row: rows of unequal length together, as the oracle has each of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import patches
from harness.cache import RowCache
from patches import newest
from patches.apply import apply
from patches.base import Layout, Plan, Rope
from patches.kept import KeptKeys
from patches.newest import newest_attention
from patches.rotation import Turn, rotate, turn_of
from tests.models import tiny
from tests.patches.cases import FULL, PROBLEMS, Problem, expected, inputs, plan_of
from tests.patches.test_oracle_attention import BANDS, SCALES, STACKS, VISIBLE

LENGTHS = (61, 1, 40, 40, 23, 9)  # of rows, where the problem is long enough
STEP = ["rerope(window=7)", "self-extend(neighbor_window=8,group_size=4)"]
STEP += ["leaky-rerope(window=5,k=4)", "string(shift=10,window=3)"]
STEP += ["dca(chunk_size=7,local_window=3)"]
STEP += [
    "streaming(window=7,sinks=3)",
    "dca(chunk_size=7,local_window=3)+window(size=11)+sinks(size=2)",
]


def rows_of(problem: Problem, hidden: float = float("nan")) -> tuple[list[Any], tuple[int, ...]]:
    """Queries, keys and values of rows that end at one column, and their padding."""
    lengths = [min(length, problem.length) for length in LENGTHS]
    pads = tuple(max(lengths) - length for length in lengths)
    filled = []
    for index in range(3):
        rows = []
        for seed, (length, pad) in enumerate(zip(lengths, pads, strict=True)):
            x = inputs(problem, seed)[index][:, :, :length]
            rows.append(torch.cat((x.new_full((1, x.shape[1], pad, x.shape[3]), hidden), x), 2))
        filled.append(torch.cat(rows))
    return [filled[0][:, :, -1:], *filled[1:]], pads


def wanted(spec: str, problem: Problem) -> torch.Tensor:
    """The oracle's output for the last query of each row."""
    lengths = [min(length, problem.length) for length in LENGTHS]
    return torch.cat(
        [expected(spec, problem, 0, seed)[0][:, :, n - 1 : n] for seed, n in enumerate(lengths)]
    )


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("spec", ["none", *SCALES, *BANDS, *VISIBLE, *STACKS])
def test_rows_of_unequal_length_equal_the_oracle(spec: str, problem: Problem) -> None:
    """What stands in the padding is never read: it is no number."""
    tensors, pads = rows_of(problem)
    out = newest_attention(*tensors, plan_of(spec, problem), pads, scaling=problem.scaling)
    torch.testing.assert_close(out, wanted(spec, problem), rtol=0, atol=1e-10)
    single = [x.float() for x in tensors]
    plan = plan_of(spec, problem, torch.float32)
    out = newest_attention(*single, plan, pads, scaling=problem.scaling)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), wanted(spec, problem), rtol=0, atol=2e-5)


@pytest.mark.parametrize("spec", STEP)
def test_rows_of_equal_length_behind_padding_are_one(spec: str) -> None:
    query, key, value = inputs(FULL)
    plan, i = plan_of(spec, FULL), FULL.length - 1
    out = expected(spec, FULL)[0][:, :, i:]
    padded = [torch.nn.functional.pad(x, (0, 0, 5, 0)) for x in (key, value)]
    for pads, tensors in (((0,), (key, value)), ((5,), padded)):
        got = newest_attention(query[:, :, i:], *tensors, plan, pads, scaling=FULL.scaling)
        torch.testing.assert_close(got, out, rtol=0, atol=1e-10)


def test_a_row_of_padding_alone_gives_zero() -> None:
    (query, key, value), pads = rows_of(FULL, 0.0)
    gone = (key.shape[2], *pads[1:])
    for spec in [*STEP, "logn"]:
        plan = plan_of(spec, FULL)
        out = newest_attention(query, key, value, plan, gone, scaling=FULL.scaling)
        assert (out[0] == 0).all()
        torch.testing.assert_close(out[1:], wanted(spec, FULL)[1:], rtol=0, atol=1e-10)


def test_sink_logits_take_their_share_of_each_row() -> None:
    tensors, pads = rows_of(FULL)
    plan, sinks = plan_of(STEP[0], FULL), torch.tensor([-1.0, 0.0, 2.0, 5.0]).double()
    out = newest_attention(*tensors, plan, pads, scaling=FULL.scaling, sink_logits=sinks)
    for seed, length in enumerate(LENGTHS):
        alone, lse = expected(STEP[0], FULL, 0, seed)
        share = torch.sigmoid(lse[:, :, length - 1] - sinks)[..., None]
        torch.testing.assert_close(
            out[seed : seed + 1, :, 0], alone[:, :, length - 1] * share, rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("spec", STEP)
def test_a_call_is_given_the_keys_that_its_rows_see(spec: str, monkeypatch: Any) -> None:
    read = []
    fused = newest.fused_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        assert query.shape[0] == key.shape[0] and key.shape[1] == FULL.kv_heads
        read.append(key.shape[0] * key.shape[2])
        return fused(query, key, *args, **kwargs)

    monkeypatch.setattr(newest, "fused_attention", watched)
    tensors, pads = rows_of(FULL)
    plan = plan_of(spec, FULL)
    newest_attention(*tensors, plan, pads, scaling=FULL.scaling)
    spans = [band.region.interval(length - 1) for band in plan.bands for length in LENGTHS]
    assert sum(read) == sum(max(0, stop - start) for start, stop in spans)


def steps(model: Any, spec: str, pads: list[int], count: int) -> list[tuple[int, int]]:
    """Rows and lengths of what the last of some steps behind 40 random keys rotates."""
    size, rows = 40, len(pads)
    seen: list[tuple[int, int]] = []
    rotated, turn = newest.rotated, Turn.__call__

    def watched(
        x: torch.Tensor, span: tuple[int, int, int], positions: Any, *args: Any
    ) -> torch.Tensor:
        if positions is not None:  # keys that stay as they are
            seen.append((x.shape[0], span[1] - span[0]))
        return rotated(x, span, positions, *args)

    def turning(self: Turn, x: torch.Tensor) -> torch.Tensor:
        seen.append((x.shape[0], x.shape[2]))
        return turn(self, x)

    cache = RowCache(rows, size + count)
    cache.open(slice(0, rows), 0)
    config = model.config
    shape = rows, config.num_key_value_heads, size, config.head_dim
    for layer in range(config.num_hidden_layers):
        cache.update(torch.randn(shape), torch.randn(shape), layer)
    with (
        pytest.MonkeyPatch.context() as patching,
        apply(model, patches.parse(spec), size + count),
        torch.inference_mode(),
    ):
        patching.setattr(newest, "rotated", watched)
        patching.setattr(Turn, "__call__", turning)
        for step in range(count):
            columns = torch.arange(size + step + 1)[None]
            mask = (columns >= torch.tensor(pads)[:, None]).long()
            seen.clear()
            model(torch.full((rows, 1), 5), attention_mask=mask, past_key_values=cache)
    return seen


@pytest.mark.parametrize("spec", STEP)
def test_a_step_rotates_new_keys_alone_once_for_all_rows(spec: str) -> None:
    model = tiny("llama")
    bands = len(plan_of(spec, FULL).bands)
    for pads in ([3, 3, 3], [0, 3, 11]):
        found = steps(model, spec, pads, 4)
        assert set(found) == {(3, 1)}
        assert len(found) <= (1 + bands) * model.config.num_hidden_layers  # queries of all at once


def test_kept_keys_are_those_of_all_rows() -> None:
    tensors, pads = rows_of(FULL, 0.0)
    plan, kept = plan_of("leaky-rerope(window=5,k=4)", FULL), KeptKeys()
    for stop in range(FULL.length - 3, FULL.length + 1):
        here = [tensors[0], *(x[:, :, :stop] for x in tensors[1:])]
        out = newest_attention(*here, plan, pads, scaling=FULL.scaling, kept=kept)
    torch.testing.assert_close(out, wanted("leaky-rerope(window=5,k=4)", FULL), rtol=0, atol=1e-10)
    assert all(part.buffer.shape[0] == len(LENGTHS) for part in kept.parts.values())


def test_a_query_without_bands_sees_nothing() -> None:
    tensors, pads = rows_of(FULL, 0.0)
    plan = Plan(plan_of("none", FULL).rope, bands=())
    assert (newest_attention(*tensors, plan, pads, scaling=1.0) == 0).all()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("is_skewed", [False, True])
@pytest.mark.parametrize("rotary_dim", [0, 8, 12])
def test_three_calls_rotate_as_halves_do(
    interleaved: bool, last: bool, reverse: bool, is_skewed: bool, rotary_dim: int
) -> None:
    generator = torch.Generator().manual_seed(rotary_dim)
    x = torch.randn(2, 3, 5, 12, dtype=torch.float64, generator=generator)
    inv_freq = torch.rand(rotary_dim // 2, dtype=torch.float64, generator=generator)
    skew = 0.5 + torch.rand(rotary_dim // 2, generator=generator) if is_skewed else None
    rope = Rope(inv_freq, 1.25, 1e4, Layout(interleaved, last, reverse))
    positions = torch.tensor([0.0, 3.5, 17.0, 400.0, 2.0])
    wanted = rotate(x, positions, rope, skew)
    torch.testing.assert_close(turn_of(x, positions, rope, skew)(x), wanted, rtol=0, atol=1e-12)
    doubled = turn_of(x, positions, rope, skew, 2.0)(x)
    torch.testing.assert_close(doubled, 2 * wanted, rtol=0, atol=1e-12)
