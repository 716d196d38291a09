"""What layers of a forward share: made once, never another layer's."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import patches
from harness.cache import RowCache
from patches import hook, rotation
from patches.apply import apply
from patches.base import Extent, Layout, Rope
from patches.hook import planned
from patches.shared import Shared
from tests.models import KINDS, tiny, tokens

LENGTH = 90
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 4},
    "gemma3_text": {  # two sets of frequencies
        "num_hidden_layers": 4,
        "layer_types": tuple(2 * KINDS),
        "sliding_window": 1 << 20,
    },
    "smollm3": {"num_hidden_layers": 4, "no_rope_layers": (1, 0, 1, 0)},
}
SPECS = [
    "rerope(window=9)+logn",
    "self-extend(neighbor_window=8,group_size=4)",
    "dca(chunk_size=12,local_window=4)",
    "yarn+window(size=21,layers=1:3)+sinks",
    "ntk+leaky-rerope(window=9)+window(size=50,layers=2:4)",
]


def read(model: Any, spec: str, pieces: list[int], pads: int) -> list[torch.Tensor]:
    """Logits of each piece of two rows, the first with padding on its left."""
    ids = tokens(LENGTH, batch=2)
    mask = torch.ones_like(ids)
    mask[0, :pads] = 0
    cache, found, start = RowCache(2, LENGTH), [], 0
    cache.open(slice(0, 2), 0)
    with apply(model, patches.parse(spec), LENGTH), torch.inference_mode():
        for size in pieces:
            stop = start + size
            given = {"attention_mask": mask[:, :stop]} if pads else {}
            output = model(ids[:, start:stop], past_key_values=cache, use_cache=True, **given)
            found.append(output.logits)
            start = stop
    return found


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("pads", [0, 5])
def test_sharing_changes_no_bit(family: str, spec: str, pads: int, monkeypatch: Any) -> None:
    model, pieces = tiny(family, **MODELS[family]), [40, 40, 1, 1, 7, 1]
    shared = read(model, spec, pieces, pads)
    monkeypatch.setattr(Shared, "get", lambda self, key, make: make())
    for got, wanted in zip(shared, read(model, spec, pieces, pads), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("spec", SPECS[:3])
def test_more_layers_make_no_more_tables(spec: str, monkeypatch: Any) -> None:
    made = []
    cos_sin = rotation.cos_sin
    monkeypatch.setattr(rotation, "cos_sin", lambda *args: made.append(args) or cos_sin(*args))
    counts = []
    for layers in (2, 4):
        model = tiny("llama", num_hidden_layers=layers)
        with apply(model, patches.parse(spec), LENGTH), torch.inference_mode():
            made.clear()
            model(tokens(LENGTH), use_cache=False)
            counts.append(len(made))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("spec", SPECS)
def test_each_layer_has_the_plan_of_its_own_frequencies_windows_and_layout(spec: str) -> None:
    extent, patch = Extent(LENGTH, 32, 8), patches.parse(spec)
    slow, fast = (Rope(base ** -(torch.arange(4) / 4), 1.0, base) for base in (1e6, 1e4))
    turned = replace(slow, layout=Layout(interleaved=True))
    ropes = dict(enumerate([slow, fast, turned, slow]))
    plans = planned(patch, extent, ropes, {})
    for layer, rope in ropes.items():
        wanted = patch.resolve(rope, extent, layer)
        assert torch.equal(plans[layer].rope.inv_freq, wanted.rope.inv_freq)
        assert plans[layer].rope.layout == wanted.rope.layout
        regions = [band.region for band in plans[layer].bands]
        assert regions == [band.region for band in wanted.bands]


def test_a_forward_keeps_nothing_of_an_earlier_one() -> None:
    shared = Shared()
    for layer in (0, 2, 5):
        shared.enter(layer)
        shared.get(layer, lambda: 1)
    assert set(shared.found) == {0, 2, 5}
    shared.enter(2)  # the first layer of a model whose first two do not attend
    assert not shared.found


def test_padding_is_read_and_factors_are_made_once_a_forward(monkeypatch: Any) -> None:
    calls = []
    read = hook.left_padding
    monkeypatch.setattr(hook, "left_padding", lambda *args: calls.append("pads") or read(*args))
    model = tiny("llama", num_hidden_layers=4)
    patch = patches.parse("rerope(window=9)")
    scaled = replace(patch, query_scales=(lambda at, _: calls.append("scale") or at * 0.01 + 1,))
    mask = torch.ones(1, LENGTH, dtype=torch.long)
    with apply(model, scaled, LENGTH), torch.inference_mode():
        for pads in (3, 7):  # another mask is another padding
            calls.clear()
            mask[0, :pads] = 0
            model(tokens(LENGTH), attention_mask=mask.clone(), use_cache=False)
            assert sorted(calls) == ["pads", "scale"]


def test_what_is_held_does_not_grow_from_forward_to_forward() -> None:
    model = tiny("llama", num_hidden_layers=4)
    with apply(model, patches.parse(SPECS[0]), LENGTH) as applied, torch.inference_mode():
        (shared,) = {id(plan.shared): plan.shared for plan in applied.plans.values()}.values()
        held = []
        for length in (50, 60, 70):
            model(tokens(length), use_cache=False)
            held.append(len(shared.found))
    assert held[0] == held[1] == held[2] > 0
