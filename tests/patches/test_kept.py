"""Keys that are kept rotated from step to step: the same output, and only new keys rotated."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import patches
from harness.cache import RowCache
from patches import kept as kept_module
from patches.apply import apply
from patches.kept import SLACK, KeptKeys
from tests.models import tiny

SPECS = [
    "rerope(window=9)",
    "leaky-rerope(window=9)",
    "self-extend(neighbor_window=8,group_size=4)",
    "dca(chunk_size=12,local_window=4)",
    "string",
    "streaming(window=14)",
    "lm-infinite(window=14)",
    "window(size=11)+sinks",
    "ntk+leaky-rerope(window=9)+logn",
]
STEPS = 60


def logits(model: Any, cache: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, past_key_values=cache, use_cache=True).logits


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("family", ["llama", "cohere", "phi"])
def test_steps_with_kept_keys_equal_one_forward(family: str, spec: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(kept_module, "SLACK", 7)  # buffers grow on the way
    model = tiny(family)
    ids = torch.randint(1, 100, (1, 20 + STEPS), generator=torch.manual_seed(0))
    with apply(model, patches.parse(spec), 20 + STEPS):
        whole = logits(model, None, ids)
        cache = RowCache(1, 20 + STEPS)
        parts = [logits(model, cache, ids[:, :20])]
        parts += [logits(model, cache, ids[:, i : i + 1]) for i in range(20, 20 + STEPS)]
        assert cache.layers[0].kept
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)


def test_a_row_that_is_opened_again_forgets() -> None:
    model = tiny("llama")
    first, second = torch.randint(1, 100, (2, 1, 30), generator=torch.manual_seed(1))
    with apply(model, patches.parse("leaky-rerope(window=9)"), 40):
        cache = RowCache(1, 40)
        for ids, end in ((first, 20), (second, 30)):
            cache.open(slice(0, 1), 0)
            logits(model, cache, ids[:, : end - 2])
            steps = [logits(model, cache, ids[:, i : i + 1]) for i in (end - 2, end - 1)]
        whole = logits(model, None, second)
    torch.testing.assert_close(torch.cat(steps, 1), whole[:, 28:], atol=2e-5, rtol=1e-4)


def test_only_new_keys_are_rotated() -> None:
    asked: list[tuple[int, int]] = []

    def rotate(first: int, stop: int) -> torch.Tensor:
        asked.append((first, stop))
        return torch.arange(first, stop, dtype=torch.float32)[None, None, :, None]

    keys = KeptKeys()
    for stop in range(50, 50 + 3 * SLACK):  # a window of 40 that moves, and all from 5 on
        for band, first in ((0, stop - 40), (1, 5)):
            found = keys.get(band, first, stop, rotate)
            assert found[0, 0, :, 0].tolist() == list(range(first, stop))
    assert asked[:4] == [(10, 50), (5, 50), (50, 51), (50, 51)]
    assert all(stop - first == 1 for first, stop in asked[2:])
    assert keys.parts[0].buffer.shape[2] <= 40 + 2 * SLACK


@pytest.mark.parametrize(("first", "stop"), [(3, 20), (12, 15), (30, 35)])
def test_other_positions_than_the_next_are_rotated_anew(first: int, stop: int) -> None:
    def rotate(first: int, stop: int) -> torch.Tensor:
        return torch.arange(first, stop, dtype=torch.float32)[None, None, :, None]

    keys = KeptKeys()
    keys.get(0, 10, 20, rotate)
    found = keys.get(0, first, stop, rotate)
    assert found[0, 0, :, 0].tolist() == list(range(first, stop))


def test_keys_of_other_caches_keep_nothing() -> None:
    assert kept_module.kept_keys(torch.zeros(1), (0,)) is None


def test_keys_behind_other_padding_are_kept_apart() -> None:
    key = torch.zeros(1)
    key.kept = {}
    found = [kept_module.kept_keys(key, pads) for pads in ((0,), (0, 5), (5, 0), (0, 5))]
    assert found[1] is found[3] and len(set(map(id, found))) == 3
