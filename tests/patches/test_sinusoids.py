"""Models that keep sines and cosines in a table (GPT-J, CodeGen, RoFormer): frequencies alone."""

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from patches import parse
from patches.apply import apply
from patches.base import PatchError
from patches.sets import rotary_sets, sinusoids
from tests.models import TRAINED_LENGTH, VOCABULARY, logits, state, tiny, tokens
from tests.patches.test_contract import chunked

LENGTH = 3 * TRAINED_LENGTH
GPT = {"rotary_dim": 8, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 96}
FAMILIES = {
    "gptj": GPT,
    "codegen": GPT,
    "roformer": {"embedding_size": 64, "is_decoder": True},
}
FACTOR = {"gptj": 1.0, "codegen": 1.0, "roformer": 4.0}  # `tiny` multiplies all that is stored
WIDTH = {"gptj": 8, "codegen": 8, "roformer": 16}


def model_of(family: str, positions: int = TRAINED_LENGTH):
    return tiny(family, **FAMILIES[family], max_position_embeddings=positions)


def table(width: int, base: float, slower: float, length: int) -> torch.Tensor:
    """Sines, then cosines, by loops."""
    rows = []
    for position in range(length):
        angles = [position * base ** (-2 * d / width) / slower for d in range(width // 2)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows)


def wanted(family: str, base: float, slower: float) -> torch.Tensor:
    """Logits of a model that was built with a long table, after other sines stand in it."""
    model = model_of(family, LENGTH)
    model.load_state_dict(
        {k: v for k, v in model_of(family).state_dict().items() if "embed_positions" not in k},
        strict=False,
    )
    new = table(WIDTH[family], base, slower, LENGTH) * FACTOR[family]
    with torch.no_grad():
        if family == "roformer":
            tables = [model.roformer.encoder.embed_positions.weight]
        else:
            tables = [block.attn.embed_positions for block in model.transformer.h]
        saved = [one.clone() for one in tables]
        for one in tables:
            one.copy_(new)
        out = logits(model, tokens(LENGTH))
        for one, before in zip(tables, saved, strict=True):
            one.copy_(before)  # `tiny` is shared
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_frequencies_reach_the_logits_beyond_the_table(family: str) -> None:
    width = WIDTH[family]
    grown = 10000 * 3 ** (width / (width - 2))
    for spec, base, slower in (("pi", 10000, 3), ("ntk", grown, 1)):
        with apply(model_of(family), parse(spec), LENGTH, TRAINED_LENGTH) as applied:
            got = logits(model_of(family), tokens(LENGTH))
            pieces = chunked(model_of(family), tokens(LENGTH), [0, 40, LENGTH - 1, LENGTH])
        torch.testing.assert_close(got, wanted(family, base, slower), atol=1e-4, rtol=0)
        torch.testing.assert_close(pieces, got, atol=1e-4, rtol=0)
        assert applied.attention == "eager"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attention_factor_multiplies_sines_and_cosines(family: str) -> None:
    model = model_of(family)
    with apply(model, parse("yarn"), LENGTH, TRAINED_LENGTH):
        (one, *_) = rotary_sets(model)
        assert one.table.shape == (LENGTH, WIDTH[family])
        squares = one.table.square().reshape(LENGTH, 2, -1).sum(1)
    factor = (0.1 * math.log(3) + 1) * FACTOR[family]
    torch.testing.assert_close(squares, torch.full_like(squares, factor**2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_is_read_and_restored(family: str) -> None:
    model, ids = model_of(family), tokens(TRAINED_LENGTH)
    before, plain = state(model), logits(model, ids)
    sets = rotary_sets(model)
    assert len(sets) == (1 if family == "roformer" else 2)
    rates = [10000 ** (-2 * d / WIDTH[family]) for d in range(WIDTH[family] // 2)]
    for one in sets:
        torch.testing.assert_close(one.inv_freq, torch.tensor(rates), rtol=1e-5, atol=0)
        assert one.theta == pytest.approx(10000, rel=1e-4)
        assert (one.attention_factor, one.longest) == (FACTOR[family], TRAINED_LENGTH)
    with apply(model, parse("ntk"), LENGTH, TRAINED_LENGTH):
        with (
            pytest.raises(PatchError, match="already has a patch on"),
            apply(model, parse("pi"), LENGTH, TRAINED_LENGTH),
        ):
            pass
        logits(model, ids)
    assert state(model) == before
    assert torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_possible_is_refused_in_one_line(family: str) -> None:
    model = model_of(family)
    for spec, why in [
        ("none", "its sines and cosines end at 32 positions, fewer than the 96 tokens"),
        ("logn", "its sines and cosines end at 32 positions, fewer than the 96 tokens"),
        ("pi+yarn-scale", "2 of its layers do not call the attention interface"),
        ("rerope", "2 of its layers do not call the attention interface"),
        ("window(size=8)", "2 of its layers do not call the attention interface"),
        ("hierarchical", "has rotary embeddings, so that 'hierarchical' has nothing"),
    ]:
        with (
            pytest.raises(PatchError, match=f"^{family}: {why}") as error,
            apply(model, parse(spec), LENGTH, TRAINED_LENGTH),
        ):
            pass
        assert "\n" not in str(error.value)


def test_sines_that_are_added_to_the_input_are_no_rotation() -> None:
    for family, more in (("ctrl", {"dff": 96}), ("marian", {}), ("xglm", {})):
        assert rotary_sets(tiny(family, **more)) == []


@pytest.mark.parametrize("spec", ["none", "logn", "window(size=9)"])
def test_sines_that_are_added_to_the_input_end_in_one_line(spec: str) -> None:
    model = tiny("ctrl", dff=96, n_positions=TRAINED_LENGTH)
    refused = pytest.raises(
        PatchError,
        match=rf"^ctrl: transformer.pos_encoding has {TRAINED_LENGTH} positions, fewer than the "
        rf"{TRAINED_LENGTH + 1} tokens of the context; give truncate, or lower --len$",
    )
    with refused, apply(model, parse(spec), TRAINED_LENGTH + 1):
        pass
    for fitting, length in (("none", TRAINED_LENGTH), ("truncate", LENGTH)):
        with apply(model, parse(fitting), length):
            assert logits(model, tokens(TRAINED_LENGTH)).isfinite().all()


def test_sines_that_a_model_makes_more_of_have_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("xglm")
    grows = model.model.embed_positions
    rates = 1e4 ** -(torch.arange(grows.embedding_dim // 2) / (grows.embedding_dim // 2 - 1))
    before = sinusoids(rates, len(grows.weights))  # no row of zeros for padding, as some have none
    monkeypatch.setattr(grows, "weights", before)
    with apply(model, parse("none"), LENGTH):
        assert logits(model, tokens(LENGTH)).isfinite().all()


def test_a_masked_model_takes_frequencies() -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = AutoConfig.for_model(
        "roformer",
        vocab_size=VOCABULARY,
        embedding_size=64,
        num_attention_heads=4,
        max_position_embeddings=TRAINED_LENGTH,
        **shape,
    )
    model = AutoModelForMaskedLM.from_config(config).eval()
    with apply(model, parse("ntk"), LENGTH), torch.inference_mode():
        assert model(tokens(LENGTH)).logits.isfinite().all()
    with (
        pytest.raises(PatchError, match="roformer: its tokens see later ones"),
        apply(model, parse("ntk+logn"), LENGTH),
    ):
        pass
