"""Hierarchical decomposition: the article's table by loops, on every kind of learned table."""

import itertools
import math
import re

import pytest
import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForMaskedLM

from patches import describe, parse
from patches.apply import apply
from patches.base import PatchError
from patches.positions import position_tables
from tests.models import TRAINED_LENGTH, VOCABULARY, logits, state, tiny, tokens

LENGTH = 3 * TRAINED_LENGTH + 5
LEARNED = {  # with the table's name and the row of position 0
    "gpt2": ("transformer.wpe", 0, {}),
    "opt": ("model.decoder.embed_positions", 2, {}),
    "gpt_neo": (
        "transformer.wpe",
        0,
        {"attention_types": ((("global", "local"), 1),), "window_size": 8},
    ),
    "gpt_bigcode": ("transformer.wpe", 0, {}),
    "roberta": (
        "roberta.embeddings.position_embeddings",
        1,
        {"is_decoder": True, "max_position_embeddings": TRAINED_LENGTH + 1},
    ),
    "bert": ("bert.embeddings.position_embeddings", 0, {"is_decoder": True}),
}


def oracle(p: list[list[float]], alpha: float, length: int) -> list[list[float]]:
    """Article 7947, one-based: q_{(i-1)n+j} = alpha u_i + (1-alpha) u_j."""
    n, width = len(p), len(p[0])
    u = [[(p[k][d] - alpha * p[0][d]) / (1 - alpha) for d in range(width)] for k in range(n)]
    q = {}
    for i in range(1, n + 1):
        for j in range(1, n + 1):
            q[(i - 1) * n + j] = [
                alpha * u[i - 1][d] + (1 - alpha) * u[j - 1][d] for d in range(width)
            ]
    return [q[place] for place in range(1, length + 1)]


def model_of(family: str):
    return tiny(family, **LEARNED[family][2])


def masked(family: str):
    """A random model that fills in masks."""
    torch.manual_seed(0)
    more = {"max_position_embeddings": TRAINED_LENGTH + (family == "roberta")}
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, num_attention_heads=4, pad_token_id=0, **shape, **more
    )
    return AutoModelForMaskedLM.from_config(config).eval()


@pytest.mark.parametrize("alpha", [0.4, 0.25, 0.7])
@pytest.mark.parametrize("length", [5, 7, 12, 25])
def test_the_table_is_the_articles(alpha: float, length: int) -> None:
    p = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = parse(f"hierarchical(alpha={alpha})").position_table(p, length)
    expected = torch.tensor(oracle(p.tolist(), alpha, length), dtype=torch.float64)
    torch.testing.assert_close(table, expected, atol=1e-12, rtol=0)
    assert torch.equal(table[:5], p)


@pytest.mark.parametrize("second", ["hierarchical", "window(size=9)", "logn"])
def test_a_second_patch_on_a_longer_table_is_refused(second: str) -> None:
    model = model_of("gpt2")
    with apply(model, parse("hierarchical"), LENGTH):
        refused = pytest.raises(PatchError, match="already has a patch on")
        with refused, apply(model, parse(second), LENGTH):
            pass
    with apply(model, parse("hierarchical"), LENGTH):  # and none is left behind
        pass


def test_all_positions_differ() -> None:
    p = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = parse("hierarchical").position_table(p, 36)
    apart = torch.cdist(table, table) + torch.eye(36) * 9
    assert apart.min() > 0.1


@pytest.mark.parametrize("family", LEARNED)
def test_a_model_reads_on_with_the_longer_table(family: str) -> None:
    """Against a model that was built with so many positions and given the oracle's."""
    name, first, settings = LEARNED[family]
    model, ids = model_of(family), tokens(LENGTH)
    (found,) = position_tables(model)
    assert (found.name, found.first, found.positions) == (name, first, TRAINED_LENGTH)
    long = (
        tiny(family, **settings, max_position_embeddings=LENGTH)
        if family != "roberta"
        else (tiny(family, is_decoder=True, max_position_embeddings=LENGTH + 1))
    )
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    weight = weights[f"{name}.weight"]
    learned = oracle(weight[first:].double().tolist(), 0.4, LENGTH)
    weights[f"{name}.weight"] = torch.cat((weight[:first], torch.tensor(learned).to(weight)))
    before = {key: value.clone() for key, value in long.state_dict().items()}
    long.load_state_dict(weights)
    wanted = logits(long, ids)
    long.load_state_dict(before)  # `tiny` is shared
    with apply(model, parse("hierarchical"), LENGTH, TRAINED_LENGTH):
        torch.testing.assert_close(logits(model, ids), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", LEARNED)
def test_the_tables_of_a_model_without_values_are_those_of_one_with_them(family: str) -> None:
    model = model_of(family)
    with init_empty_weights(include_buffers=False):
        empty = type(model)(model.config).eval()
    (wanted,), (found,) = position_tables(model), position_tables(empty)
    assert (found.name, found.first, found.is_learned) == (wanted.name, wanted.first, True)
    assert found.module is empty.get_submodule(found.name) and found.positions == wanted.positions
    with apply(empty, parse("hierarchical"), LENGTH, TRAINED_LENGTH):
        assert found.positions == LENGTH and found.module.weight.is_meta
    refused = pytest.raises(PatchError, match=f"has {TRAINED_LENGTH} positions, fewer than")
    with refused, apply(empty, parse("none"), LENGTH, TRAINED_LENGTH):
        pass


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "albert"])
def test_a_masked_model_reads_on_and_is_restored(family: str) -> None:
    model, ids = masked(family), tokens(LENGTH)
    plain, before = logits_of(model, ids[:, :TRAINED_LENGTH]), state(model)
    with apply(model, parse("hierarchical"), LENGTH, TRAINED_LENGTH) as applied:
        assert logits_of(model, ids).isfinite().all()
        near = logits_of(model, ids[:, :TRAINED_LENGTH])
    assert torch.equal(near, plain)
    assert state(model) == before
    assert torch.equal(logits_of(model, ids[:, :TRAINED_LENGTH]), plain)
    assert applied.attention in ("sdpa", "eager")
    with pytest.raises((IndexError, RuntimeError)):
        logits_of(model, ids)


def logits_of(model, ids) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids).logits


def test_the_first_positions_stay_and_far_ones_matter() -> None:
    model, ids = tiny("gpt2"), tokens(LENGTH)
    plain = logits(model, ids[:, :TRAINED_LENGTH])
    seen = {}
    for alpha in (0.4, 0.3):
        with apply(model, parse(f"hierarchical(alpha={alpha})"), LENGTH):
            seen[alpha] = logits(model, ids)
        assert torch.equal(seen[alpha][:, :TRAINED_LENGTH], plain)
    assert (seen[0.4] - seen[0.3])[:, TRAINED_LENGTH:].abs().max() > 1e-2


def test_within_a_shorter_trained_length_the_rows_after_it_are_not_used() -> None:
    model = tiny("gpt2")
    learned = model.transformer.wpe.weight[:8].double().tolist()
    with apply(model, parse("hierarchical"), TRAINED_LENGTH, 8):
        made = model.transformer.wpe.weight.double()
    expected = torch.tensor(oracle(learned, 0.4, TRAINED_LENGTH), dtype=torch.float64)
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)


def test_what_it_cannot_lengthen_is_refused_in_one_line() -> None:
    spec = parse("hierarchical")
    for family, why in (("llama", "rotary embeddings"), ("bloom", "no table of learned positions")):
        with (
            pytest.raises(PatchError, match=f"^{family}: has {why}.*; choose"),
            apply(tiny(family), spec, LENGTH, TRAINED_LENGTH),
        ):
            pass
    with (
        pytest.raises(PatchError, match=r"1024 positions of 32, fewer than the 1025"),
        apply(tiny("gpt2"), spec, 1025),
    ):
        pass
    for alpha in ("0.5", "1", "1.5"):
        with pytest.raises(
            PatchError, match=rf"alpha={alpha}\): expected a number between 0 and 1"
        ):
            parse(f"hierarchical(alpha={alpha})")
    with pytest.raises(PatchError, match="alpha=0: expected number > 0"):
        parse("hierarchical(alpha=0)")


@pytest.mark.parametrize("other", ["ntk", "rerope", "attention-buckets"])
def test_what_rotates_is_no_companion(other: str) -> None:
    for one, two in itertools.permutations(("hierarchical", other)):
        with pytest.raises(PatchError, match=r"no model has both learned positions and RoPE"):
            parse(f"{one}+{two}")
    assert "every other seam but frequencies and bands" in describe("hierarchical")
    with pytest.raises(PatchError, match=re.escape("both lengthen the position table")):
        parse("hierarchical+hierarchical(alpha=0.3)")


def test_a_table_that_ends_is_said_before_it_is_read() -> None:
    with (
        pytest.raises(PatchError, match=r"gpt2: transformer.wpe has 32 positions, fewer than the"),
        apply(tiny("gpt2"), parse("none"), TRAINED_LENGTH + 1),
    ):
        pass
    with (
        pytest.raises(PatchError, match=r"32 positions, fewer than the trained length 40; give"),
        apply(tiny("gpt2"), parse("truncate"), 50, 40),
    ):
        pass
    with apply(tiny("gpt2"), parse("truncate"), LENGTH) as applied:
        assert applied.keep == TRAINED_LENGTH


@pytest.mark.parametrize("spec", ["logn", "window(size=8)"])
def test_scales_and_windows_go_on_models_that_do_not_rotate(spec: str) -> None:
    """logn by hand: queries scaled in the model's own projection; a window by a 4-D mask."""
    model, ids = tiny("gpt2"), tokens(TRAINED_LENGTH)
    with apply(model, parse(spec), TRAINED_LENGTH, 16):
        patched = logits(model, ids)
    if spec == "logn":
        scale = [max(1.0, math.log(i + 1) / math.log(16)) for i in range(TRAINED_LENGTH)]
        factor = torch.tensor(scale)[:, None].expand(-1, 64)
        factor = torch.cat((factor, torch.ones(TRAINED_LENGTH, 128)), dim=1)
        hooks = [
            block.attn.c_attn.register_forward_hook(lambda module, args, out: out * factor)
            for block in model.transformer.h
        ]
        wanted = logits(model, ids)
        for hook in hooks:
            hook.remove()
    else:
        distance = torch.arange(TRAINED_LENGTH)[:, None] - torch.arange(TRAINED_LENGTH)
        hidden = (distance < 0) | (distance >= 8)
        mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo().min)[None, None]
        wanted = logits(model, ids, attention_mask=mask)
    torch.testing.assert_close(patched, wanted, atol=1e-5, rtol=0)
    assert (patched - logits(model, ids)).abs().max() > 1e-2


@pytest.mark.parametrize("spec", ["logn", "window(size=8)", "hierarchical+logn"])
def test_what_maps_attention_is_refused_where_tokens_see_later_ones(spec: str) -> None:
    with (
        pytest.raises(PatchError, match="bert: its tokens see later ones too; it takes"),
        apply(masked("bert"), parse(spec), TRAINED_LENGTH),
    ):
        pass


def test_code_that_reads_no_further_is_refused() -> None:
    """T5-like limits do not show before a token stands there."""
    model = tiny("gpt2")

    def limited(module, args, kwargs):
        if args[0].shape[1] > TRAINED_LENGTH:
            raise ValueError("at most 32 tokens")

    hook = model.register_forward_pre_hook(limited, with_kwargs=True)
    try:
        with (
            pytest.raises(PatchError, match=r"reads no more than 32 tokens \(at most 32 tokens\)"),
            apply(model, parse("hierarchical"), LENGTH),
        ):
            pass
    finally:
        hook.remove()
    assert [table.positions for table in position_tables(model)] == [TRAINED_LENGTH]
