"""Whole models against their own rotation at other positions, with no frequency or layout of ours.

The scores of a band are those of a layer's own projections, norms and rotary embedding, run once at
the band's query positions and once at its key positions; one softmax takes them where the band is.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from patches import parse
from patches.apply import apply
from tests.models import MLA, TRAINED_LENGTH, WINDOWED, tiny, tokens, windowed

LENGTH, PADS = 76, (7, 0)
BOUNDS = [0, 41, 66, 67, 70, *range(72, LENGTH + 1)]  # a prefill, chunks, steps
Rule = Callable[[Tensor, Tensor], list[tuple[Tensor, Tensor, Tensor]]]  # pairs, Pq, Pk of bands
Scale = Callable[[Tensor, int], Tensor]  # of query positions and the size of a head


def near(size: int, query: Any = lambda i: i, key: Any = lambda j: j, sinks: int = LENGTH) -> Rule:
    """True positions at distance < size; beyond, others, and the first keys alone if told so."""
    return lambda i, j: [(i - j < size, i, j), ((i - j >= size) & (j < sinks), query(i), key(j))]


def chunks(i: Tensor, j: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Dual chunk attention: chunks of 20, a local window of 7."""
    lag, inside = i // 20 - j // 20, i % 20
    queries = (inside, (inside + 20).clamp(max=26), 0 * i + 26)
    return [
        (mask, q, j % 20) for mask, q in zip((lag == 0, lag == 1, lag > 1), queries, strict=True)
    ]


def one(i: Tensor, dim: int) -> Tensor:
    return torch.ones_like(i)


def logn(i: Tensor, dim: int) -> Tensor:
    return ((i + 1).log() / math.log(TRAINED_LENGTH)).clamp(min=1)


def infoscale(i: Tensor, dim: int) -> Tensor:
    ratio = (1 - (i + 1) ** (-2 / dim)) / (1 - TRAINED_LENGTH ** (-2 / dim))
    return ratio.sqrt().clamp(min=1)


REROPE = near(8, lambda i: 0 * i + 8, lambda j: 0 * j)
SPECS: dict[str, tuple[Rule, Scale]] = {
    "rerope(window=8)+logn": (REROPE, logn),
    "leaky-rerope(window=9,k=5)": (near(9, lambda i: 9 + (i - 9) / 5, lambda j: j / 5), one),
    "self-extend(neighbor_window=8,group_size=4)+infoscale": (
        near(8, lambda i: i // 4 + 6, lambda j: j // 4),
        infoscale,
    ),
    "dca(chunk_size=20,local_window=7)": (chunks, one),
    "string(shift=14,window=5)": (near(14, lambda i: i - 9), one),
    "streaming(window=13,sinks=3)": (near(13, lambda i: i.clamp(max=15), sinks=3), one),
    "lm-infinite(window=17,sinks=3)": (near(17, lambda i: 0 * i + 17, lambda j: 0 * j, 3), one),
    "window(size=19)+sinks(size=3)": (near(19, sinks=3), one),
    "logn+infoscale": (near(LENGTH), lambda i, dim: logn(i, dim) * infoscale(i, dim)),
}
OTHERS: dict[str, dict[str, Any]] = {  # what tests.models does not build, or not so
    "llama": {"head_dim": 24},  # no part of the width
    "deepseek_v2": MLA,
    "minicpm3": MLA,
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "granite": {"attention_multiplier": 0.3, "logits_scaling": 2.0},
    "jetmoe": {"kv_channels": 32, "num_local_experts": 4},
    "hunyuan_v1_dense": {"head_dim": 16},  # norms after the rotation
}
TYPES = "gemma2 gemma3_text phi phi3 gpt_neox cohere glm nanochat olmo2 smollm3 deepseek_v3 gpt_oss"
IDS = tokens(LENGTH, batch=2)


@contextmanager
def own_rotation(model: Any, at: Tensor, rule: Rule, scale: Scale, own: Any) -> Iterator[None]:
    """Give attention the rule, or the masks in `own` for layers that are to stay as shipped.

    Columns stand at positions `at`, those of padding below 0 [batch, length].
    """
    made: list[tuple[Any, Any]] = []  # what rotary embeddings gave, and how
    seen: dict[str, Any] = {}

    def rotary(forward: Any, x: Tensor, position_ids: Tensor, *args: Any) -> Any:
        made.append((forward(x, position_ids, *args), lambda at: forward(x, at, *args)))
        return made[-1][0]

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Any:
        if "bands" not in seen:
            seen["q"], seen["k"] = q, k
            return q.new_zeros(*q.transpose(1, 2).shape[:3], v.shape[-1]), None
        groups, factor = q.shape[1] // k.shape[1], kwargs.get("scaling") or q.shape[-1] ** -0.5
        scores = q.new_full((*q.shape[:3], q.shape[2]), -math.inf).double()
        for mask, query, key in seen["bands"]:
            score = query.double() @ key.double().repeat_interleave(groups, 1).mT * factor
            score = score * seen["scale"](at, q.shape[-1])[:, None, :, None]
            if cap := kwargs.get("softcap"):
                score = cap * (score / cap).tanh()
            scores = scores.where(~mask[:, None], score)
        if (sink := kwargs.get("s_aux")) is not None:
            sink = sink.double()[None, :, None, None].expand(*q.shape[:3], 1)
            scores = torch.cat((scores, sink), -1)
        shares = scores.softmax(-1)[..., : q.shape[2]].nan_to_num()
        out = shares @ v.double().repeat_interleave(groups, 1)
        return out.to(v.dtype).transpose(1, 2).contiguous(), None

    def layer(module: Any, forward: Any, *args: Any, **kwargs: Any) -> Any:
        given = kwargs["position_embeddings"]
        turn = next((turn for result, turn in made if result is given), lambda at: None)
        i, j, causal = at[:, :, None], at[:, None], at[:, None] <= at[:, :, None]
        kept = module.layer_idx in own
        bands = []
        for mask, *positions in [(own[module.layer_idx](i, j), i, j)] if kept else rule(i, j):
            for name, wanted in zip("qk", positions, strict=True):
                turned = turn(wanted.flatten(1).clamp(min=0))
                forward(*args, **kwargs | {"position_embeddings": turned})
                seen["at " + name] = seen[name]
            bands.append((mask & causal & (j >= 0), seen["at q"], seen["at k"]))
        seen["bands"], seen["scale"] = bands, one if kept else scale
        result = forward(*args, **kwargs)
        del seen["bands"]
        return result

    before = model.config._attn_implementation
    AttentionInterface.register("own_rotation", attention)
    AttentionMaskInterface.register("own_rotation", lambda *args, **kwargs: None)
    changed = [m for m in model.modules() if hasattr(m, "rope_type") or hasattr(m, "is_causal")]
    for module in changed:
        wrap = rotary if hasattr(module, "rope_type") else partial(layer, module)
        module.forward = partial(wrap, module.forward)
    model.set_attn_implementation("own_rotation")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        for module in changed:
            del module.forward


def expected(model: Any, rule: Rule, scale: Scale = one, own: Any = None) -> Tensor:
    """Logits by the model's own rotation [2, LENGTH, vocabulary]."""
    at = torch.arange(LENGTH)[None] - torch.tensor(PADS)[:, None].double()
    with torch.inference_mode(), own_rotation(model, at, rule, scale, own or {}):
        logits: Tensor = model(IDS, position_ids=at.clamp(min=0).long(), use_cache=False).logits
    return logits


def check(model: Any, spec: str, wanted: Tensor, trained: int | None = TRAINED_LENGTH) -> None:
    """Compare a patch, read in pieces through a cache behind left padding."""
    mask = (torch.arange(LENGTH)[None] >= torch.tensor(PADS)[:, None]).long()
    at, pieces = (mask.cumsum(1) - 1).clamp(min=0), []
    with apply(model, parse(spec), 4 * TRAINED_LENGTH, trained), torch.inference_mode():
        cache = DynamicCache(config=model.config)
        for a, b in itertools.pairwise(BOUNDS):
            inputs = {"attention_mask": mask[:, :b], "position_ids": at[:, a:b]}
            pieces.append(model(IDS[:, a:b], past_key_values=cache, **inputs).logits)
    limit = 2e-5 * float(wanted.abs().max())
    for row, pad in enumerate(PADS):
        got = torch.cat(pieces, 1)[row, pad:]
        torch.testing.assert_close(got, wanted[row, pad:], atol=limit, rtol=0)


@cache
def uneven(family: str) -> Any:
    """A random model whose norms and biases are no ones and zeros."""
    model, generator = deepcopy(tiny(family, **OTHERS.get(family, {}))), torch.Generator()
    for weight in (weight.data for weight in model.parameters() if weight.ndim == 1):
        weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("family", [*OTHERS, *TYPES.split()])
def test_a_patch_is_the_model_s_own_rotation_at_other_positions(family: str, spec: str) -> None:
    model = uneven(family)
    check(model, spec, expected(model, *SPECS[spec]))


WINDOWS = {
    "sliding_attention": lambda i, j: i - j < 16,
    "chunked_attention": lambda i, j: i // 16 == j // 16,
}


@pytest.mark.parametrize("family", WINDOWED)
def test_layers_lose_their_windows_or_stay_as_they_are(family: str) -> None:
    model, spec = windowed(family), "rerope(window=8)+logn"
    kinds = getattr(model.config, "layer_types", None) or ["sliding_attention"] * 2
    own = {layer: WINDOWS[kind] for layer, kind in enumerate(kinds) if kind in WINDOWS}
    check(model, spec, expected(model, REROPE, logn))
    check(model, spec + "+native-window", expected(model, REROPE, logn, own))


def with_rope(family: str, **rope: Any) -> Any:
    """The model of the same weights whose config ships these frequencies for all layers."""
    old = tiny(family).config.rope_parameters
    rope["original_max_position_embeddings"] = TRAINED_LENGTH
    kinds = {kind: entry | rope for kind, entry in old.items() if isinstance(entry, dict)}
    longest, new = 4 * TRAINED_LENGTH, kinds or old | rope
    return tiny.__wrapped__(family, max_position_embeddings=longest, rope_parameters=new)


YARN = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 3.0, "beta_slow": 0.3}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED: dict[str, tuple[dict[str, Any], Rule, Scale]] = {
    "pi": ({"rope_type": "linear", "factor": 4.0}, near(LENGTH), one),
    "yarn(ramp=code,alpha=0.3,beta=3)+rerope(window=8)+logn": (YARN, REROPE, logn),
    "llama3+window(size=19)+sinks(size=3)": (LLAMA3, near(19, sinks=3), one),
}


@pytest.mark.parametrize("spec", SCALED)
@pytest.mark.parametrize("family", ["gemma3_text", "glm", "gpt_neox", "deepseek_v3"])
def test_new_frequencies_are_those_of_a_config_that_ships_them(family: str, spec: str) -> None:
    rope, rule, scale = SCALED[spec]
    check(tiny(family), spec, expected(with_rope(family, **rope), rule, scale))


@pytest.mark.parametrize("family", ["qwen3", "glm", "deepseek_v3"])
def test_shipped_scaling_stays_under_a_patch(family: str) -> None:
    model = with_rope(family, **YARN, mscale=1.3, mscale_all_dim=0.7)
    check(model, "rerope(window=8)+logn", expected(model, REROPE, logn), trained=None)
