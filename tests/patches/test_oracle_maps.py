"""Position maps read off the logits against the oracle's tables, and what the maps must satisfy."""

from __future__ import annotations

import functools
import random

import pytest
import torch

from patches import PatchError, parse
from patches.attention import attend, partial_attention
from tests.oracle import oracle_relative_position
from tests.patches.cases import FULL, Problem, inputs, measured_positions, plan_of, split

LENGTH, TRAINED = 48, 16

MAPPED = [
    "none",
    "rerope(window=1)",
    "rerope(window=7)",
    "rerope(window=16)",
    "leaky-rerope(window=7,k=4)",
    "leaky-rerope(window=1,k=3)",
    "leaky-rerope(window=10,k=2.5)",
    "self-extend(neighbor_window=4,group_size=4)",
    "self-extend(neighbor_window=8,group_size=4)",
    "self-extend(neighbor_window=9,group_size=3)",
    "dca(chunk_size=7,local_window=3)",
    "dca(chunk_size=12,local_window=4)",
    "dca(chunk_size=8,local_window=8)",
    "dca(chunk_size=5,local_window=1)",
    "dca(chunk_size=47,local_window=1)",
    "string(shift=8,window=1)",
    "string(shift=10,window=3)",
    "string(shift=16,window=16)",
    "lm-infinite(window=7,sinks=3)",
    "lm-infinite(window=1,sinks=1)",
    "lm-infinite(window=9,sinks=99)",
    "streaming(window=7,sinks=3)",
    "streaming(window=1,sinks=1)",
    "streaming(window=3,sinks=9)",
    "streaming(window=9,sinks=99)",
    "streaming(window=99,sinks=4)",
    "window(size=1)",
    "window(size=7)+sinks(size=3)",
    "sinks(size=3)",
    "rerope(window=5)+window(size=12)",
    "leaky-rerope(window=5,k=4)+window(size=11)+sinks(size=3)",
    "dca(chunk_size=7,local_window=3)+window(size=11)+sinks(size=2)",
    "streaming(window=7,sinks=3)+window(size=20)",
    "window(size=9)+window(size=5)+sinks(size=1)+sinks(size=4)",
]


@functools.cache
def measured(spec: str, length: int = LENGTH) -> dict[tuple[int, int], float]:
    return measured_positions(spec, length, TRAINED)


def tabulated(spec: str, length: int = LENGTH) -> dict[tuple[int, int], float]:
    method, params = split(spec)
    table = {}
    for i in range(length):
        for j in range(length):
            used = oracle_relative_position(method, params, i, j)
            if used is not None:
                table[i, j] = used
    return table


@pytest.mark.parametrize("spec", MAPPED)
def test_position_differences_equal_the_oracle(spec: str) -> None:
    got, wanted = measured(spec), tabulated(spec)
    assert got.keys() == wanted.keys()
    assert got == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("spec", MAPPED)
def test_visible_pairs_are_in_one_band_and_hidden_pairs_in_none(spec: str) -> None:
    plan = plan_of(spec, Problem(LENGTH, TRAINED, LENGTH, 8, 8))
    wanted = tabulated(spec)
    for i in range(LENGTH):
        intervals = [band.region.interval(i) for band in plan.bands]
        for j in range(LENGTH):
            count = sum(start <= j < stop for start, stop in intervals)
            assert count == ((i, j) in wanted), (i, j)


def counted(spec: str, queries: tuple[int, int], keys: tuple[int, int]) -> torch.Tensor:
    """How often each pair [q_len, kv_len] enters the softmax: with zero logits exp(lse) counts."""
    (q_start, q_stop), (k_start, k_stop) = queries, keys
    width = 8 * ((k_stop - k_start + 7) // 8)
    query = torch.zeros(1, 1, q_stop - q_start, width, dtype=torch.float64)
    key = torch.zeros(1, 1, k_stop - k_start, width, dtype=torch.float64)
    value = torch.eye(k_stop - k_start, width, dtype=torch.float64)[None, None]
    plan = plan_of(spec, Problem(200, TRAINED, 200, width, 8))
    out, lse = partial_attention(
        query, key, value, plan, scaling=1.0, q_start=q_start, k_start=k_start
    )
    return (out * lse.exp()[..., None])[0, 0, :, : k_stop - k_start]


@pytest.mark.parametrize("spec", MAPPED)
def test_any_block_counts_each_visible_pair_once(spec: str) -> None:
    method, params = split(spec)
    draw = random.Random(spec)
    for _ in range(12):
        queries = tuple(sorted(draw.sample(range(120), 2)))
        keys = tuple(sorted(draw.sample(range(120), 2)))
        wanted = [
            [oracle_relative_position(method, params, i, j) is not None for j in range(*keys)]
            for i in range(*queries)
        ]
        got = counted(spec, queries, keys)
        torch.testing.assert_close(
            got, torch.tensor(wanted).double(), rtol=0, atol=1e-9, msg=f"{spec} {queries} {keys}"
        )


IDENTICAL = [
    "none",
    f"rerope(window={FULL.length})",
    f"rerope(window={FULL.length - 1})",
    "rerope(window=1000)",
    "leaky-rerope(window=7,k=1)",
    "leaky-rerope(window=1,k=1)",
    "leaky-rerope(window=1000,k=9)",
    "self-extend(neighbor_window=8,group_size=1)",
    "self-extend(neighbor_window=1,group_size=1)",
    "self-extend(neighbor_window=1000,group_size=8)",
    f"dca(chunk_size={FULL.length},local_window=5)",
    "dca(chunk_size=1000,local_window=1)",
    f"string(shift={FULL.length},window=5)",
    "string(shift=1000,window=5)",
    "string(shift=9,window=9)",
    f"lm-infinite(window={FULL.length},sinks=4)",
    f"streaming(window={FULL.length},sinks=4)",
    "streaming(window=5,sinks=1000)",
    f"window(size={FULL.length})",
    "window(size=5)+sinks(size=1000)",
    "window(size=5,layers=1:2)",
    "sinks(size=4)",
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spec", IDENTICAL)
def test_settings_that_change_nothing_equal_plain_attention(spec: str, dtype: torch.dtype) -> None:
    query, key, value = (x.to(dtype) for x in inputs(FULL))
    out, plain = (
        attend(
            query,
            key,
            value,
            plan_of(name, FULL, dtype),
            scaling=FULL.scaling,
            q_start=0,
            k_start=0,
        )
        for name in (spec, "none")
    )
    atol = 1e-12 if dtype == torch.float64 else 5e-6
    torch.testing.assert_close(out, plain, rtol=0, atol=atol)


def test_leaky_rerope_with_a_great_k_is_rerope() -> None:
    assert measured("leaky-rerope(window=7,k=1000000000)") == pytest.approx(
        measured("rerope(window=7)"), abs=1e-6
    )


def test_leaky_rerope_without_a_window_is_position_interpolation() -> None:
    table = measured("leaky-rerope(window=1,k=8)")
    for (i, j), used in table.items():
        # The window counts the current token, so the interpolated part starts at distance 1.
        wanted = 0 if i == j else 1 + (i - j - 1) / 8
        assert used == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("group", [2, 3, 4, 8])
def test_self_extend_is_leaky_rerope_within_one_position(group: int) -> None:
    window = 2 * group
    table = measured(f"self-extend(neighbor_window={window},group_size={group})")
    smooth = tabulated(f"leaky-rerope(window={window},k={group})")
    for (i, j), used in table.items():
        assert abs(used - smooth[i, j]) < 1
        if i - j == window:
            assert used == pytest.approx(window, abs=1e-6)


def test_self_extend_wants_a_group_size_that_divides_its_window() -> None:
    with pytest.raises(PatchError, match=r"(?=.*10)(?=.*4)"):
        plan_of("self-extend(neighbor_window=10,group_size=4)", FULL)


@pytest.mark.parametrize("border", range(7, LENGTH, 7))
def test_dca_is_exact_within_its_local_window_of_a_border(border: int) -> None:
    table = measured("dca(chunk_size=7,local_window=3)")
    for i in range(border, min(border + 3, LENGTH)):
        for j in range(border - 7, border):
            assert table[i, j] == pytest.approx(i - j, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "largest"),
    [
        ("rerope(window=15)", 15),
        ("leaky-rerope(window=8,k=16)", 8 + 39 / 16),
        ("self-extend(neighbor_window=8,group_size=8)", 12),
        ("dca(chunk_size=12,local_window=4)", 15),
        ("dca(chunk_size=8,local_window=8)", 15),
        ("streaming(window=12,sinks=4)", 15),
        # Offenders, as published: one more than the largest trained distance.
        ("lm-infinite(window=16,sinks=4)", TRAINED),
        ("rerope(window=16)", TRAINED),
    ],
)
def test_largest_position_difference(spec: str, largest: float) -> None:
    assert max(measured(spec).values()) == pytest.approx(largest, abs=1e-6)
    offends = largest >= TRAINED
    assert offends == (spec in ("lm-infinite(window=16,sinks=4)", "rerope(window=16)"))


def test_string_drops_the_worst_trained_positions_inside_the_trained_length() -> None:
    table = measured("string(shift=6,window=2)", TRAINED)
    assert max(table.values()) == pytest.approx(TRAINED - 1 - 4, abs=1e-6)


OFFENDERS = {
    "lm-infinite": "sinks sit at the trained length itself",
    "string": "does not extend: only shift - window positions are won",
}


@pytest.mark.parametrize(
    "name", ["rerope", "leaky-rerope", "self-extend", "dca", "lm-infinite", "streaming", "string"]
)
def test_defaults_stay_within_trained_positions(name: str) -> None:
    length, trained = 256, 64
    largest = max(measured_positions(name, length, trained).values())
    assert (largest > trained - 1 + 1e-6) == (name in OFFENDERS), largest


@pytest.mark.parametrize("window", [1, 2, 9])
@pytest.mark.parametrize("name", ["rerope", "lm-infinite", "streaming", "leaky-rerope"])
def test_window_counts_the_current_token(name: str, window: int) -> None:
    rest = {
        "rerope": "",
        "lm-infinite": ",sinks=1",
        "streaming": ",sinks=1",
        "leaky-rerope": ",k=7",
    }
    table = measured(f"{name}(window={window}{rest[name]})")
    i = LENGTH - 1
    assert table[i, i - window + 1] == pytest.approx(window - 1, abs=1e-6)
    if name in ("lm-infinite", "streaming"):
        assert (i, i - window) not in table
    else:
        # The first distance outside is at the border still; the second is no longer exact.
        assert table[i, i - window - 1] < window + 1 - 1e-3


@pytest.mark.parametrize("size", [1, 2, 9, 48])
def test_visible_window_counts_the_current_token(size: int) -> None:
    assert {i - j for i, j in measured(f"window(size={size})")} == set(range(size))


@pytest.mark.parametrize("spec", MAPPED)
def test_str_of_a_spec_parses_to_the_same_map(spec: str) -> None:
    canonical = str(parse(spec))
    assert str(parse(canonical)) == canonical
    assert measured(canonical) == measured(spec)
