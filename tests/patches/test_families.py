"""What model families do differently, each against its arithmetic written out in float64 loops."""

import cmath
import math
from copy import deepcopy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from patches import PatchError, parse
from patches.apply import apply, check_identity, measured
from patches.attention import attend, partial_attention, rotate
from patches.base import Layout, Plan, Region, Rope
from tests.models import TRAINED_LENGTH, logits, tiny, tokens, windowed

LENGTH = 4 * TRAINED_LENGTH
RATES = [1.0, 0.3, 0.05]
CAP = 1.5


HALVES = Layout()


def rope(layout: Layout = HALVES) -> Rope:
    return Rope(torch.tensor(RATES, dtype=torch.float64), 1.25, 1e4, layout)


def pairs(layout: Layout, head_dim: int) -> list[tuple[int, int]]:
    """The two channels of each pair, as real and imaginary part."""
    start = head_dim - 2 * len(RATES) if layout.last else 0
    if layout.interleaved:
        return [(start + 2 * d, start + 2 * d + 1) for d in range(len(RATES))]
    return [(start + d, start + d + len(RATES)) for d in range(len(RATES))]


def turned(vector: list[float], position: float, layout: Layout) -> list[float]:
    """A vector whose pairs, as complex numbers, are multiplied by 1.25 e^(+- i position rate)."""
    out = list(vector)
    sign = -1 if layout.reverse else 1
    for (real, imaginary), rate in zip(pairs(layout, len(vector)), RATES, strict=True):
        turn = 1.25 * cmath.exp(sign * 1j * position * rate)
        number = complex(vector[real], vector[imaginary]) * turn
        out[real], out[imaginary] = number.real, number.imag
    return out


LAYOUTS = [
    Layout(*(bool(bits & bit) for bit in (1, 2, 4))) for bits in range(8)
]  # interleaved, last, reverse


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("head_dim", [6, 10])
def test_a_layout_turns_its_pairs_as_complex_numbers(layout: Layout, head_dim: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 5, head_dim, dtype=torch.float64, generator=generator)
    positions = torch.tensor([0.0, 1.0, 2.5, 7.0, 40.0], dtype=torch.float64)
    got = rotate(x, positions, rope(layout))
    for batch in range(2):
        for head in range(3):
            for i, position in enumerate(positions.tolist()):
                wanted = turned(x[batch, head, i].tolist(), position, layout)
                assert got[batch, head, i].tolist() == pytest.approx(wanted, abs=1e-12)


def dense(q, k, v, spec, scaling, softcap, sinks):
    """Attention under rerope(window=4) by loops: rel = min(i - j, 4), one softmax, with extras."""
    heads, groups = q.shape[1], q.shape[1] // k.shape[1]
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for head in range(heads):
        for i in range(q.shape[2]):
            weights = []
            for j in range(i + 1):
                relative = min(i - j, 4) if spec else i - j
                query = turned(q[0, head, i].tolist(), relative, Layout())
                key = turned(k[0, head // groups, j].tolist(), 0, Layout())
                score = scaling * sum(a * b for a, b in zip(query, key, strict=True))
                weights.append(math.exp(softcap * math.tanh(score / softcap) if softcap else score))
            total = sum(weights) + (math.exp(sinks[head]) if sinks is not None else 0)
            for j, weight in enumerate(weights):
                out[0, head, i] += weight / total * v[0, head // groups, j]
    return out


@pytest.mark.parametrize("softcap", [None, CAP])
@pytest.mark.parametrize("sinks", [None, [0.5, -1.0, 3.0, 0.0]])
@pytest.mark.parametrize("value_dim", [5, 8, 11])
@pytest.mark.parametrize("spec", ["", "rerope(window=4)"])
def test_caps_sink_logits_and_narrow_values(softcap, sinks, value_dim: int, spec: str) -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = (
        torch.randn(1, heads, 14, dim, dtype=torch.float64, generator=generator)
        for heads, dim in ((4, 8), (2, 8), (2, value_dim))
    )
    bands = {"bands": parse(spec).bands(None)} if spec else {}
    got = attend(
        q,
        k,
        v,
        Plan(rope(), **bands),
        scaling=0.4,
        softcap=softcap,
        sink_logits=None if sinks is None else torch.tensor(sinks, dtype=torch.float64),
    )
    wanted = dense(q, k, v, spec, 0.4, softcap, sinks)
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)


def test_capped_attention_over_blocks_of_keys_merges_and_few_queries_at_a_time_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, 2, 40, 8, dtype=torch.float64, generator=generator) for _ in "qkv")
    settings = {"scaling": 0.4, "softcap": CAP}
    whole, lse = partial_attention(q, k, v, Plan(rope()), **settings)
    monkeypatch.setattr("patches.kernels.MOST_SCORES", 7 * 2 * 40)
    again, _ = partial_attention(q, k, v, Plan(rope()), **settings)
    torch.testing.assert_close(again, whole, atol=1e-12, rtol=0)
    halves = [
        partial_attention(
            q, k[:, :, first:stop], v[:, :, first:stop], Plan(rope()), k_start=first, **settings
        )
        for first, stop in ((0, 17), (17, 40))
    ]
    total = torch.logaddexp(halves[0][1], halves[1][1])
    torch.testing.assert_close(total, lse, atol=1e-12, rtol=0)
    merged = sum(out * (part - total).exp()[..., None] for out, part in halves)
    torch.testing.assert_close(merged, whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("family", "layouts"),
    [
        ("llama", [Layout(), Layout()]),
        ("gpt_neox", [Layout(), Layout()]),
        ("cohere", [Layout(interleaved=True)] * 2),
        ("glm", [Layout(interleaved=True)] * 2),
        ("nanochat", [Layout(reverse=True)] * 2),
        ("deepseek_v3", [Layout(last=True)] * 2),
        ("smollm3", [Layout(), None]),
    ],
)
def test_what_a_layer_rotates_is_measured(family: str, layouts: list[Layout | None]) -> None:
    rotations = measured(tiny(family))
    got = [layout if rotary else None for _, (rotary, layout) in sorted(rotations.items())]
    assert got == layouts


def test_layers_of_two_kinds_have_their_own_frequencies() -> None:
    kinds = {"sliding_attention": 1e4, "full_attention": 1e6}
    model = tiny("gemma3_text")
    for layer, (rotary, _) in measured(model).items():
        assert rotary is not None
        kind = model.config.layer_types[layer]
        assert rotary.kind == kind
        series = [kinds[kind] ** (-2 * d / 16) for d in range(8)]
        assert rotary.inv_freq.tolist() == pytest.approx(series)


@pytest.mark.parametrize("family", ["gemma3_text", "cohere", "nanochat"])
def test_frequencies_rounded_to_16_bits_with_the_weights_are_measured(family: str) -> None:
    model, usual = deepcopy(tiny(family)).to(torch.bfloat16), measured(tiny(family))
    got = measured(model)
    assert {layer: (rotary.kind, layout) for layer, (rotary, layout) in got.items()} == {
        layer: (rotary.kind, layout) for layer, (rotary, layout) in usual.items()
    }
    check_identity(model)


def test_great_logits_may_differ_by_more_than_small_ones() -> None:
    model = deepcopy(tiny("deepseek_v3"))
    model.lm_head.weight.data *= 1000
    assert check_identity(model) > 1e-4  # rounding, 1e-6 of the largest


def test_each_set_of_frequencies_is_stretched_from_its_own_base() -> None:
    model, ids = tiny("gemma3_text"), tokens(LENGTH)
    rotary = model.model.rotary_emb
    with apply(model, parse("ntk(factor=4)"), LENGTH) as applied:
        assert applied.attention == "sdpa"
        for kind, base in (("sliding_attention", 1e4), ("full_attention", 1e6)):
            stretched = base * 4 ** (16 / 14)
            series = [stretched ** (-2 * d / 16) for d in range(8)]
            assert getattr(rotary, f"{kind}_inv_freq").tolist() == pytest.approx(series)
        native = logits(model, ids)
    with apply(model, parse("ntk(factor=4)+rerope(window=1k)"), LENGTH):
        torch.testing.assert_close(logits(model, ids), native, atol=1e-5, rtol=0)


def test_an_attention_factor_that_a_norm_undoes_goes_through_the_hook() -> None:
    for family, kernel in (("llama", "sdpa"), ("nanochat", "blockwise")):
        with apply(tiny(family), parse("yarn"), LENGTH) as applied:
            assert applied.attention == kernel
        with apply(tiny(family), parse("yarn(attention_factor=1)"), LENGTH) as applied:
            assert applied.attention == "sdpa"


@pytest.mark.parametrize("family", ["cohere", "glm", "deepseek_v3", "smollm3", "nanochat"])
def test_new_frequencies_on_the_hook_equal_the_model_s_own_rotation(family: str) -> None:
    model, ids = tiny(family), tokens(LENGTH)
    spec = "yarn(attention_factor=1)" if family == "nanochat" else "yarn"
    with apply(model, parse(spec), LENGTH) as applied:
        assert applied.attention == "sdpa"
        native = logits(model, ids)
    with apply(model, parse(f"{spec}+rerope(window=1k)"), LENGTH):
        torch.testing.assert_close(logits(model, ids), native, atol=1e-4, rtol=0)


def test_a_layer_without_rotation_sees_content_alone() -> None:
    plan = parse("yarn+rerope(window=3)").resolve(Rope(torch.zeros(0), 1.0, 1e4), None)
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(1, 2, 12, 8, dtype=torch.float64, generator=generator) for _ in "qkv")
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.4)
    torch.testing.assert_close(attend(q, k, v, plan, scaling=0.4), wanted, atol=1e-12, rtol=0)


def test_a_window_of_chunks_is_kept_as_chunks() -> None:
    region = Region(chunk_size=16, lag=(0, 1))
    model, ids = windowed("llama4_text"), tokens(LENGTH)
    assert region.interval(35) == (32, 36)
    with apply(model, parse("rerope(window=1k)"), LENGTH) as applied:
        assert "window of 16 tokens is off under" in applied.notes[0]
        assert "on 1 layers; add +native-window" in applied.notes[0]
        lifted = logits(model, ids)
    assert (lifted - logits(model, ids)).abs().max() > 1e-2


def test_layers_with_their_own_window_stay_as_they_are() -> None:
    model, ids = windowed("mistral"), tokens(LENGTH)  # all layers have one
    plain = logits(model, ids)
    for spec in ("ntk", "rerope(window=8)", "dca", "logn"):
        with apply(model, parse(f"{spec}+native-window"), LENGTH):
            torch.testing.assert_close(logits(model, ids), plain, atol=1e-5, rtol=0)


def test_a_window_acts_on_an_attention_module_that_layers_share() -> None:
    kinds = ("linear_attention", "hybrid")
    model = tiny("zamba2", layers_block_type=kinds, use_mem_rope=True, n_mamba_heads=4)
    ids = tokens(LENGTH)
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    hidden = (distance < 0) | (distance >= 16)
    mask = torch.zeros(LENGTH, LENGTH).masked_fill(hidden, torch.finfo(torch.float32).min)
    wanted = logits(model, ids, attention_mask=mask[None, None])
    with apply(model, parse("window(size=16)"), LENGTH):
        torch.testing.assert_close(logits(model, ids), wanted, atol=1e-4, rtol=0)
    refused = pytest.raises(PatchError, match="share their attention; leave layers= out")
    with refused, apply(model, parse("window(size=16,layers=1:2)"), LENGTH):
        pass


@pytest.mark.parametrize(
    ("family", "name"), [("gpt2", "transformer.wpe"), ("opt", "model.decoder.embed_positions")]
)
@pytest.mark.parametrize("spec", ["ntk", "rerope", "attention-buckets"])
def test_what_rotates_is_refused_where_positions_are_learned(
    family: str, name: str, spec: str
) -> None:
    message = rf"^{family}: has 0 rotary embeddings .* positions \({name}\); choose hierarchical"
    refused = pytest.raises(PatchError, match=message)
    with refused, apply(tiny(family), parse(spec), LENGTH, TRAINED_LENGTH):
        pass


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("bloom", "ALiBi biases"),
        ("mpt", "ALiBi biases"),
        ("mamba", "a recurrence, no attention"),
    ],
)
@pytest.mark.parametrize("spec", ["ntk", "rerope", "window", "logn"])
def test_models_without_rotary_embeddings_are_refused_with_why(
    family: str, why: str, spec: str
) -> None:
    message = f"^{family}: has 0 rotary embeddings .* but {why}; model not supported, run it with"
    refused = pytest.raises(PatchError, match=message)
    with refused as error, apply(tiny(family), parse(spec), LENGTH, TRAINED_LENGTH):
        pass
    assert "\n" not in str(error.value)
    with apply(tiny(family), parse("none"), LENGTH, TRAINED_LENGTH) as applied:
        assert applied.notes == ()


def test_a_recurrence_needs_no_number_of_heads() -> None:
    config = AutoConfig.for_model("mamba", vocab_size=128, hidden_size=32, num_hidden_layers=2)
    model = AutoModelForCausalLM.from_config(config)
    assert not hasattr(config, "num_attention_heads")
    with apply(model, parse("none"), LENGTH, TRAINED_LENGTH) as applied:
        assert applied.keep is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_weights_of_a_norm_after_the_rotation_are_kept_after_it(layout: Layout) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 2, 5, 10, dtype=torch.float64, generator=generator)
    weight = 0.2 + torch.rand(10, dtype=torch.float64, generator=generator)
    at = torch.arange(5)
    skew = torch.stack([weight[real] / weight[other] for real, other in pairs(layout, 10)])
    wanted = weight * rotate(x, at, rope(layout))
    got = rotate(weight * x, at, rope(layout), skew)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


def hunyuan() -> torch.nn.Module:
    """A model with norms after the rotation, their weights far from equal."""
    tiny.cache_clear()
    model = tiny("hunyuan_v1_dense", head_dim=16)
    for layer in model.model.layers:
        with torch.no_grad():
            layer.self_attn.query_layernorm.weight.copy_(torch.linspace(0.2, 3.0, 16))
            layer.self_attn.key_layernorm.weight.copy_(torch.linspace(2.0, 0.1, 16) ** 2)
    return model


def test_a_model_with_norms_after_the_rotation_equals_the_untouched_one() -> None:
    model, ids = hunyuan(), tokens(LENGTH)
    for layer, (_, layout) in measured(model).items():
        for side, name in enumerate(("query_layernorm", "key_layernorm")):
            weight = getattr(model.model.layers[layer].self_attn, name).weight.detach()
            torch.testing.assert_close(
                layout.skews[side], weight[:8] / weight[8:], rtol=1e-4, atol=0
            )
    plain = logits(model, ids)
    with apply(model, parse("rerope(window=1k)"), LENGTH):
        torch.testing.assert_close(logits(model, ids), plain, atol=1e-4, rtol=0)


def test_whatever_else_follows_the_rotation_fails_the_identity_check() -> None:
    model = hunyuan()
    norm = model.model.layers[0].self_attn.query_layernorm
    norm.register_forward_hook(lambda module, inputs, out: out + 0.5 * out.abs())
    with pytest.raises(PatchError, match=r"hunyuan_v1_dense: .* differs from the original by"):
        check_identity(model)
    tiny.cache_clear()
