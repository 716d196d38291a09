"""Frequencies that transformers chooses by the positions of each forward: one choice for a cell."""

import random

import pytest
import torch
from transformers import DynamicCache

from patches import parse
from patches.apply import apply
from tests.models import TRAINED_LENGTH, logits, state, tiny, tokens
from tests.patches.test_apply import frozen
from tests.patches.test_contract import HOMES, SPECS

LENGTH = 4 * TRAINED_LENGTH
PAIRS = 8
KINDS = {
    "dynamic": frozen(rope_type="dynamic", rope_theta=1e4, factor=2.0),
    "longrope": frozen(
        rope_type="longrope",
        rope_theta=1e4,
        factor=4.0,
        short_factor=tuple([1.0] * PAIRS),
        long_factor=tuple(2.0 + pair for pair in range(PAIRS)),
        original_max_position_embeddings=TRAINED_LENGTH,
    ),
}
ORDERS, STEPS = 20, 6


def model_of(kind: str) -> torch.nn.Module:
    model = tiny("llama", rope_parameters=KINDS[kind], max_position_embeddings=TRAINED_LENGTH)
    assert model.model.rotary_emb.inv_freq.numel() == PAIRS
    return model


def in_pieces(model: torch.nn.Module, ids: torch.Tensor, size: int) -> torch.Tensor:
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        parts = [
            model(part, past_key_values=cache, use_cache=True).logits for part in ids.split(size, 1)
        ]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", ["none", "logn", "pi(factor=2)", "rerope+logn"])
def test_pieces_read_what_a_whole_forward_reads(kind: str, spec: str) -> None:
    model, ids = model_of(kind), tokens(LENGTH)
    own = logits(model, ids)
    assert (in_pieces(model, ids, 16) - own).abs().max() > 0.1  # transformers by itself
    with apply(model, parse(spec), LENGTH):
        whole = logits(model, ids)
        for size in (16, 1):  # chunks, and an answer token by token
            torch.testing.assert_close(in_pieces(model, ids, size), whole, atol=1e-4, rtol=0)
    if spec == "none":
        torch.testing.assert_close(whole, own, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_tokens_alone_are_read_as_at_the_trained_length(kind: str) -> None:
    model, ids = model_of(kind), tokens(TRAINED_LENGTH)
    wanted = logits(model, ids)
    with apply(model, parse("truncate"), LENGTH) as applied:
        assert applied.keep == TRAINED_LENGTH
        torch.testing.assert_close(logits(model, ids), wanted, atol=1e-5, rtol=0)


def test_patches_in_any_order_leave_nothing_on_the_model() -> None:
    model, ids, draw = tiny("llama"), tokens(LENGTH), random.Random(0)
    plain, before = logits(model, ids), state(model)
    specs = [spec for spec in SPECS if spec not in HOMES]
    alone = {}
    for spec in specs:
        with apply(model, parse(spec), LENGTH):
            alone[spec] = logits(model, ids)
    for _ in range(ORDERS):
        for spec in draw.sample(specs, STEPS):
            with apply(model, parse(spec), LENGTH):
                assert torch.equal(logits(model, ids), alone[spec]), spec
        assert torch.equal(logits(model, ids), plain)
    assert state(model) == before
