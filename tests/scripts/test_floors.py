"""The floors that benchmarks are held against: counted by hand and by torch's counter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
try:
    from floors import forward_flops, step_bytes, visible
finally:
    sys.path.pop(0)

CONFIG = LlamaConfig(
    vocab_size=100,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
)
LENGTH, TRAINED = 50, 16


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("none", lambda i: i + 1),
        ("ntk+logn", lambda i: i + 1),
        ("rerope(window=9)", lambda i: i + 1),
        ("dca(chunk_size=12,local_window=4)", lambda i: i + 1),
        ("window(size=7)", lambda i: min(i + 1, 7)),
        ("window(size=7)+sinks(size=3)", lambda i: min(i + 1, 10)),
    ],
)
def test_what_a_query_sees(spec: str, wanted) -> None:
    assert visible(CONFIG, spec, LENGTH, TRAINED) == [wanted(i) for i in range(LENGTH)]


def test_operations_are_those_that_torch_counts() -> None:
    model = AutoModelForCausalLM.from_config(CONFIG, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, LENGTH, dtype=torch.long), logits_to_keep=1)
    hidden = 4 * 3 * 48 * (LENGTH * LENGTH - LENGTH) // 2  # eager scores all pairs
    wanted = forward_flops(CONFIG, "none", LENGTH, TRAINED)
    angles = 2 * LENGTH * 4  # where a version of transformers makes them by a product
    assert counter.get_total_flops() - hidden - wanted in (0, angles)
    less = forward_flops(CONFIG, "window(size=7)", LENGTH, TRAINED)
    pairs = sum(max(0, i + 1 - 7) for i in range(LENGTH))
    assert wanted - less == 4 * 3 * 48 * pairs


def test_bytes_are_weights_and_what_is_seen() -> None:
    model = AutoModelForCausalLM.from_config(CONFIG)
    weights = sum(one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear))
    for spec, keys in (("none", LENGTH + 1), ("window(size=7)", 7)):
        kept = 2 * 3 * keys * 2 * 8
        assert step_bytes(CONFIG, spec, LENGTH, TRAINED, 2) == 2 * (weights + kept)
