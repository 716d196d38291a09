"""Cosines and sines shared by the layers of a forward: made once, never another layer's."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import patches
from harness.cache import RowCache
from patches import rotation
from patches.apply import apply
from patches.base import Extent, Layout, Rope
from patches.hook import planned
from patches.tables import Tables
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
    monkeypatch.setattr(Tables, "get", lambda self, key, make: make())
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


def test_a_forward_keeps_no_tables_of_an_earlier_one() -> None:
    tables = Tables()
    pair = torch.ones(2), torch.ones(2)
    for layer in (0, 2, 5):
        tables.enter(layer)
        tables.get(layer, lambda: pair)
    assert set(tables.found) == {0, 2, 5}
    tables.enter(2)  # the first layer of a model whose first two do not attend
    assert not tables.found
