"""Invariants 2, 4 and 6 of methods.md over the registry, with the declared exceptions only."""

from collections import Counter

import pytest
import torch

from patches import PATCHES, lookup, parse
from patches.base import Extent, Rope
from patches.calls import MANY, calls
from patches.region import Region
from tests.patches.cases import measured_positions

TRAINED, LENGTH = 32, 100
MAPS = [name for name, entry in PATCHES.items() if entry.seam in ("bands", "visible")]
HIDING = ("lm-infinite", "streaming", "window")


def plan_of(spec: str, length: int):
    rope = Rope(torch.tensor([0.01], dtype=torch.float64), 1.0, 100.0)
    return parse(spec).resolve(rope, Extent(length, TRAINED, 2))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("length", [1, 31, 32, 33, LENGTH])
def test_every_visible_pair_is_in_exactly_one_band(name: str, length: int) -> None:
    count = torch.zeros(length, length, dtype=torch.long)
    for band in plan_of(name, length).bands:
        for i in range(length):
            start, stop = band.region.interval(i)
            count[i, start : max(start, stop)] += 1
    causal = torch.ones_like(count).tril()
    assert (count <= causal).all()
    if name not in HIDING:
        assert torch.equal(count, causal)
    assert (count.diagonal() == 1).all()


@pytest.mark.parametrize("name", MAPS)
def test_within_the_trained_length_positions_are_plain_unless_declared(name: str) -> None:
    table = measured_positions(name, TRAINED, TRAINED)
    plain = all(abs(rel - (i - j)) < 1e-4 for (i, j), rel in table.items())
    assert plain != ("identity" in lookup(name).exceptions)


@pytest.mark.parametrize("name", MAPS)
def test_no_untrained_position_is_used_unless_declared(name: str) -> None:
    host = "window+" if name == "sinks" else ""
    largest = max(measured_positions(host + name, LENGTH, TRAINED).values())
    assert (largest > TRAINED - 1 + 1e-4) == ("range" in lookup(name).exceptions)


def test_the_code_form_of_dca_caps_positions_at_three_quarters() -> None:
    size, cap = 20, 24  # trained length 32: chunks of 3/4 - 1/8, positions up to 3/4
    expected = {
        0: lambda i: i % size,
        1: lambda i: min(i % size + size, cap),
    }
    for (i, j), rel in measured_positions("dca(variant=code)", LENGTH, TRAINED).items():
        query = expected.get(i // size - j // size, lambda i: cap)(i)
        assert rel == pytest.approx((query - j % size) * 1.0, abs=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_no_call_holds_more_than_a_linear_share(name: str) -> None:
    for length in (1024, 4096):
        for band in plan_of(name, length).bands:
            for call in calls(band.region, 0, length, 0, length):
                assert call.count * (call.q_len + call.k_len) <= 2 * length


def test_rectangles_of_short_chunks_are_put_together_until_they_are_large() -> None:
    region = Region(chunk_size=512, lag=(2, None))
    found = list(calls(region, 0, 8192, 0, 8192))
    pairs = Counter(
        (i // 256, j // 256)
        for call in found
        for i in range(call.q_start, call.q_start + call.q_len, 256)
        for j in range(call.k_start, call.k_start + call.k_len, 256)
    )
    wanted = {(i, j) for i in range(32) for j in range(32) if i // 2 - j // 2 >= 2}
    assert set(pairs) == wanted and set(pairs.values()) == {1}
    large = sum(call.q_len * call.k_len for call in found if call.q_len >= MANY)
    assert large > 0.9 * sum(call.q_len * call.k_len for call in found)
