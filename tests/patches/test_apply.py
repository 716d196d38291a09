"""The hook: what it refuses, what it switches off, and the model families around it."""

import pytest
import torch
from transformers import DynamicCache

from patches import PatchError, parse
from patches.apply import apply, check_identity, trained_length
from tests.models import TRAINED_LENGTH, logits, tiny, tokens

LENGTH = 4 * TRAINED_LENGTH
WINDOWED = {
    "mistral": {"sliding_window": 16},
    "phi3": {"sliding_window": 16},
    "starcoder2": {"sliding_window": 16},
    "qwen2": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1},
}


def test_frequencies_alone_keep_the_native_attention() -> None:
    with apply(tiny("llama"), parse("ntk"), LENGTH) as applied:
        assert applied.attention == "sdpa"
        assert tiny("llama").config._attn_implementation == "sdpa"


def test_a_query_scale_keeps_the_native_attention() -> None:
    with apply(tiny("llama"), parse("logn"), LENGTH) as applied:
        assert applied.attention == "sdpa+scale"


def test_frequencies_on_the_hook_equal_the_native_path() -> None:
    model, ids = tiny("qwen3"), tokens(LENGTH)
    with apply(model, parse("yarn+logn"), LENGTH):
        native = logits(model, ids)
    with apply(model, parse("yarn+logn+rerope(window=1k)"), LENGTH):
        torch.testing.assert_close(logits(model, ids), native, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("spec", ["pi(factor=1)", "rerope(window=1k)"])
def test_the_native_window_is_off_under_a_patch(family: str, spec: str) -> None:
    windowed = tiny(family, **WINDOWED[family])
    full = tiny(family)
    full.load_state_dict(windowed.state_dict())
    ids = tokens(LENGTH)
    plain, wanted = logits(windowed, ids), logits(full, ids)
    assert (plain - wanted).abs().max() > 0.1
    with apply(windowed, parse(spec), LENGTH) as applied:
        torch.testing.assert_close(logits(windowed, ids), wanted, atol=1e-5, rtol=0)
    assert "window of 16 tokens is off" in " ".join(applied.notes)
    assert torch.equal(logits(windowed, ids), plain)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("gpt2", "has 0 rotary embeddings"),
    ],
)
def test_a_model_that_fails_the_identity_check_is_refused(family: str, message: str) -> None:
    with pytest.raises(PatchError, match=f"{family}: .*{message}.*; choose hierarchical"):
        check_identity(tiny(family))
    with (
        pytest.raises(PatchError, match=message),
        apply(tiny(family), parse("dca"), 64),
    ):
        pass


def test_frequencies_that_do_not_reach_the_logits_are_refused() -> None:
    model = tiny("stablelm", num_hidden_layers=3)
    rotary = model.model.rotary_emb
    own = rotary.forward
    rotary.forward = lambda x, position_ids: tuple(
        f(position_ids[..., None].float() * torch.ones(4)).repeat(1, 1, 1)
        for f in (torch.cos, torch.sin)
    )
    try:
        refused = pytest.raises(PatchError, match="frequencies do not reach the logits")
        with refused, apply(model, parse("ntk"), LENGTH):
            pass
    finally:
        rotary.forward = own


@pytest.mark.parametrize(
    ("parameters", "length"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, LENGTH),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, LENGTH),
        ({"rope_type": "linear", "factor": 4.0}, LENGTH),
    ],
)
def test_shipped_scaling_is_the_starting_point(parameters: dict[str, object], length: int) -> None:
    settings = {"rope_theta": 10000.0, **parameters}
    model = tiny(
        "llama",
        max_position_embeddings=LENGTH if "yarn" in settings.values() else 32,
        rope_parameters=frozen(settings),
    )
    ids = tokens(length)
    plain = logits(model, ids)
    with apply(model, parse("rerope(window=1k)"), length):
        torch.testing.assert_close(logits(model, ids), plain, atol=1e-4, rtol=0)
    assert torch.equal(logits(model, ids), plain)


class frozen(dict):
    """A dictionary that can key a cache."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))


def test_the_trained_length_is_the_original_one() -> None:
    assert trained_length(tiny("llama").config) == TRAINED_LENGTH
    settings = frozen(
        rope_type="yarn", factor=4.0, rope_theta=1e4, original_max_position_embeddings=32
    )
    model = tiny("llama", max_position_embeddings=128, rope_parameters=settings)
    assert trained_length(model.config) == 32


def test_layers_of_a_window_must_exist() -> None:
    refused = pytest.raises(PatchError, match=r"layers=0:9 but the model has 2 layers")
    with refused, apply(tiny("llama"), parse("window(layers=0:9)"), LENGTH):
        pass


def test_a_window_acts_on_its_layers_alone() -> None:
    model, ids = tiny("llama"), tokens(LENGTH)
    outs = []
    for spec in (
        "none",
        "window(size=8,layers=0:1)",
        "window(size=8,layers=1:2)",
        "window(size=8)",
    ):
        with apply(model, parse(spec), LENGTH):
            outs.append(logits(model, ids)[0, -1])
    for index, one in enumerate(outs):
        assert all((one - other).abs().max() > 1e-3 for other in outs[:index])


def test_padding_on_the_right_is_refused() -> None:
    mask = torch.ones(1, LENGTH, dtype=torch.long)
    mask[0, -5:] = 0
    refused = pytest.raises(PatchError, match="padding_side='left'")
    with apply(tiny("llama"), parse("dca"), LENGTH), refused:
        logits(tiny("llama"), tokens(LENGTH), attention_mask=mask)


def test_shifted_positions_are_refused() -> None:
    positions = torch.arange(5, 5 + LENGTH)[None]
    refused = pytest.raises(PatchError, match="not its place")
    with apply(tiny("llama"), parse("dca"), LENGTH), refused:
        logits(tiny("llama"), tokens(LENGTH), position_ids=positions)


def test_generate_with_a_cache_equals_forwards_without() -> None:
    model, ids = tiny("llama"), tokens(60, batch=2)
    mask = torch.ones_like(ids)
    mask[0, :11] = 0
    with apply(model, parse("rerope(window=8)+logn"), 64):
        made = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=4,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
        for row, first in ((0, 11), (1, 0)):
            sequence = ids[row, first:]
            for token in made[row, 60:]:
                assert logits(model, sequence[None])[0, -1].argmax() == token
                sequence = torch.cat([sequence, token[None]])


def test_two_models_carry_two_patches_at_once() -> None:
    one, other, ids = tiny("llama"), tiny("qwen2"), tokens(LENGTH)
    with apply(one, parse("dca"), LENGTH):
        alone = logits(one, ids)
        with apply(other, parse("rerope(window=8)"), LENGTH):
            assert torch.equal(logits(one, ids), alone)


def test_the_cache_holds_unrotated_keys() -> None:
    model, ids = tiny("llama"), tokens(LENGTH)
    ids[0, 50] = ids[0, 3]
    with torch.inference_mode(), apply(model, parse("rerope"), LENGTH):
        cache = DynamicCache()
        model(ids, past_key_values=cache, use_cache=True)
    keys = cache.layers[0].keys[0]
    assert torch.equal(keys[:, 50], keys[:, 3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", ["rerope(window=8)+logn", "dca", "streaming(window=20)"])
def test_cuda_equals_cpu(dtype: torch.dtype, spec: str) -> None:
    model, ids = tiny("llama"), tokens(LENGTH)
    with apply(model, parse(spec), LENGTH):
        wanted = logits(model, ids)
    try:
        model.to("cuda", dtype)
        with apply(model, parse(spec), LENGTH):
            got = logits(model, ids.cuda()).float().cpu()
    finally:
        model.to("cpu", torch.float32)
        tiny.cache_clear()
    tolerance = 1e-3 if dtype == torch.float32 else 0.15
    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=0.05)


@pytest.mark.parametrize("spec", ["logn", "infoscale", "logn+ntk", "logn+rerope(window=8)"])
def test_left_padding_without_positions_changes_no_scale(spec: str) -> None:
    model, ids = tiny("gpt_neox"), tokens(LENGTH)
    pad = 37
    padded = torch.cat([torch.full((1, pad), 5), ids], dim=1)
    mask = (torch.arange(pad + LENGTH) >= pad).long()[None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with apply(model, parse(spec), LENGTH):
        alone = logits(model, ids)
        given = logits(model, padded, attention_mask=mask, position_ids=positions)
        torch.testing.assert_close(given[:, pad:], alone, atol=1e-4, rtol=0)
    if "ntk" not in spec:  # RoPE itself is blind to a shift of all positions
        with apply(model, parse(spec), LENGTH):
            columns = logits(model, padded, attention_mask=mask)
        torch.testing.assert_close(columns[:, pad:], alone, atol=1e-4, rtol=0)


def test_layers_that_never_call_the_hook_are_refused() -> None:
    model = tiny("llama", num_hidden_layers=3)
    attention = model.model.layers[1].self_attn
    attention.forward = lambda hidden_states, **kwargs: (torch.zeros_like(hidden_states), None)
    try:
        with pytest.raises(PatchError, match=r"1 of its layers do not call .* layer 1"):
            check_identity(model)
    finally:
        del attention.forward


def test_a_patched_model_takes_no_second_patch() -> None:
    model = tiny("llama")
    for outer in ("ntk", "dca", "logn"):
        second = pytest.raises(PatchError, match="already has a patch on")
        with apply(model, parse(outer), LENGTH), second, apply(model, parse("pi"), LENGTH):
            pass


def test_a_scale_on_an_eager_model_runs_blockwise_and_equals_sdpa() -> None:
    model, ids = tiny("qwen3"), tokens(LENGTH)
    with apply(model, parse("logn+ntk"), LENGTH):
        wanted = logits(model, ids)
    model.set_attn_implementation("eager")
    try:
        with apply(model, parse("logn+ntk"), LENGTH) as applied:
            assert applied.attention == "blockwise"
            torch.testing.assert_close(logits(model, ids), wanted, atol=1e-4, rtol=0)
    finally:
        model.set_attn_implementation("sdpa")


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        ("yarn+logn", "scales the logits 2 times"),
        ("dca(variant=code)+logn", "scales the logits 2 times"),
        ("sinks", "add a window"),
    ],
)
def test_what_is_rarely_meant_is_remarked(spec: str, note: str) -> None:
    with apply(tiny("llama"), parse(spec), LENGTH) as applied:
        assert any(note in text for text in applied.notes)
    with apply(tiny("llama"), parse("yarn(attention_factor=1)+logn"), LENGTH) as applied:
        assert applied.notes == ()
