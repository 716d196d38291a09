import json
import math
import shlex
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

import patches
from harness.checkpoint import open_checkpoint
from harness.cli import main
from harness.deploy import express
from patches import PATCHES
from patches.apply import apply
from patches.base import Extent, Rope
from tests import models

FREQUENCIES = [name for name, entry in PATCHES.items() if entry.seam == "frequencies"]
LENGTH, TRAINED = 4096, 512


def exported(capsys: pytest.CaptureFixture[str], patch: str, engine: str, *more: str) -> str:
    capsys.readouterr()
    assert main(["export", "--patch", patch, "--len", str(LENGTH), "--engine", engine, *more]) == 0
    return capsys.readouterr().out.strip()


@pytest.fixture(scope="module")
def tiny() -> Any:
    return open_checkpoint("tiny")


@pytest.mark.parametrize(
    ("patch", "kind"),
    [
        ("pi", "linear"),
        ("ntk", "default"),
        ("ntk-old", "default"),
        ("ntk-dynamic", "default"),
        ("rope-base", "default"),
        ("yarn(ramp=code)", "yarn"),
        ("yarn(ramp=code,truncate=no,beta=16)", "yarn"),
        ("ntk-by-parts", "llama3"),
        ("llama3", "llama3"),
        ("yarn", "longrope"),
        ("ntk-mixed", "longrope"),
    ],
)
def test_a_patch_is_expressed_by_its_own_rope_type_where_there_is_one(
    patch: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(exported(capsys, patch, "hf"))["rope_parameters"]["rope_type"] == kind


def logits(model: Any, length: int = 700) -> torch.Tensor:
    ids = torch.arange(1, length + 1)[None] * 7919 % 500
    with torch.inference_mode():
        found: torch.Tensor = model(ids, use_cache=False).logits
    return found


@pytest.mark.parametrize("patch", [*FREQUENCIES, "yarn(ramp=code)", "ntk+yarn-scale"])
def test_the_config_gives_the_patched_logits_on_the_real_weights(
    patch: str, tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = json.loads(exported(capsys, patch, "hf"))
    assert overrides["max_position_embeddings"] == LENGTH
    config = AutoConfig.from_pretrained(tiny.directory)
    config.update(overrides)
    model = AutoModelForCausalLM.from_pretrained(tiny.directory, config=config).eval()
    plain = AutoModelForCausalLM.from_pretrained(tiny.directory).eval()
    untouched = logits(plain)
    with apply(plain, patches.parse(patch), LENGTH):
        expected = logits(plain)
    assert (expected - untouched).abs().max() > 0.5
    assert (logits(model) - expected).abs().max() < 5e-3


def rope_of(patch: str) -> Rope:
    theta, dim = 10000.0, 32
    inv_freq = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    parsed = patches.parse(patch)
    return parsed.resolve(Rope(inv_freq, 1.0, theta), Extent(LENGTH, TRAINED, dim)).rope


def ggml(flags: dict[str, str], dim: int = 32) -> tuple[list[float], float]:
    """Angles of position 1 and the factor of cos and sin, as ggml's rope_yarn has them."""
    base, scale = float(flags["--rope-freq-base"]), float(flags.get("--rope-freq-scale", 1))
    is_yarn = flags["--rope-scaling"] == "yarn"
    angles = []
    for i0 in range(0, dim, 2):
        extrapolated = base ** (-i0 / dim)
        angle = scale * extrapolated
        if is_yarn:
            original = int(flags["--yarn-orig-ctx"])
            start, end = (
                dim * math.log(original / (float(flags[name]) * 2 * math.pi)) / (2 * math.log(base))
                for name in ("--yarn-beta-fast", "--yarn-beta-slow")
            )
            low, high = max(0, math.floor(start)), min(dim - 1, math.ceil(end))
            mix = 1 - min(1, max(0, (i0 // 2 - low) / max(0.001, high - low)))
            angle = angle * (1 - mix) + extrapolated * mix
        angles.append(angle)
    return angles, 1 + 0.1 * math.log(1 / scale) if is_yarn else 1.0


@pytest.mark.parametrize("patch", ["pi", "ntk", "ntk-dynamic", "rope-base", "yarn(ramp=code)"])
def test_flags_of_llama_cpp_give_the_frequencies_by_its_own_formula(
    patch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(exported(capsys, patch, "llama.cpp"))
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    assert flags["--ctx-size"] == str(LENGTH)
    angles, factor = ggml(flags)
    wanted = rope_of(patch)
    assert angles == pytest.approx(wanted.inv_freq.tolist(), rel=1e-6)
    assert factor == pytest.approx(wanted.attention_factor)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("patch", ["yarn", "ntk-mixed", "yarn(ramp=code,attention_factor=1)"])
def test_factors_pair_by_pair_give_the_frequencies_by_the_formula_of_the_servers(
    patch: str, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(exported(capsys, patch, engine))
    option = "--hf-overrides" if engine == "vllm" else "--json-model-override-args"
    given = json.loads(words[words.index(option) + 1])["rope_parameters"]
    wanted = rope_of(patch)
    for kind in ("short", "long"):
        angles = [
            1 / (factor * given["rope_theta"] ** (2 * pair / 32))
            for pair, factor in enumerate(given[f"{kind}_factor"])
        ]
        assert angles == pytest.approx(wanted.inv_freq.tolist(), rel=1e-6)
        assert given[f"{kind}_mscale"] == pytest.approx(wanted.attention_factor)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gpt_neox", "phi", "phi3", "cohere", "olmo2"])
def test_other_families_are_exported_too(
    family: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = models.tiny(family).config
    found = SimpleNamespace(config=config, directory="here")
    monkeypatch.setattr(express, "open_causal", lambda name: found)
    capsys.readouterr()
    for patch in ("ntk", "yarn"):
        assert main(["export", "--patch", patch, "--len", "256"]) == 0
        assert "logits within" in capsys.readouterr().err


def test_a_model_that_ships_scaled_frequencies_keeps_them_under_the_patch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, rope_parameters=shipped
    )
    found = SimpleNamespace(config=config, directory="here")
    monkeypatch.setattr(express, "open_causal", lambda name: found)
    assert main(["export", "--patch", "ntk", "--len", "512"]) == 0
    given = json.loads(capsys.readouterr().out)["rope_parameters"]
    assert given["rope_type"] == "longrope"  # a new base alone would drop the shipped scaling
    assert main(["export", "--patch", "ntk", "--len", "512", "--engine", "llama.cpp"]) == 2
    assert "rope_type llama3 is written into" in capsys.readouterr().err


def test_an_expression_that_does_not_equal_the_patch_is_not_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.deploy.express import Expression

    wrong = {"rope_type": "linear", "factor": 7.9}
    monkeypatch.setattr(Expression, "_candidates", lambda *_: [wrong])
    assert main(["export", "--patch", "pi", "--len", "4k"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "gives other logits" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--patch", "rerope"], "changes attention"),
        (["--patch", "window"], "changes attention"),
        (["--patch", "ntk+logn"], "scales queries by their position"),
        (["--patch", "truncate"], "cuts the input"),
        (["--patch", "none"], "changes nothing"),
        (["--patch", "ntk,pi"], "give one"),
        (["--patch", "ntk", "--len", "512"], "give a length beyond the trained 512"),
        (["--patch", "yarn", "--engine", "llama.cpp"], "'yarn' has no setting of llama.cpp"),
        (["--patch", "ntk", "--engine", "vlm"], "did you mean 'vllm'?"),
        (["--patch", "ntk", "--len", "4x"], "--len 4x"),
        (["--patch", "ntkk"], "did you mean 'ntk'?"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    length = [] if "--len" in arguments else ["--len", str(LENGTH)]
    assert main(["export", *arguments, *length]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_own_windows_are_no_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.for_model("mistral", hidden_size=64, num_attention_heads=4)
    config.sliding_window = 100
    found = SimpleNamespace(config=config, directory="here")
    monkeypatch.setattr(express, "open_causal", lambda name: found)
    assert main(["export", "--patch", "ntk", "--len", "1m"]) == 2
    assert "own windows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words"),
    [("llava", "part of its config"), ("gpt2", "gpt2"), ("gemma3_text", ""), ("mamba", "mamba")],
)
def test_models_that_no_setting_fits_are_refused_in_one_line(
    kind: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(config=AutoConfig.for_model(kind), directory="here")
    monkeypatch.setattr(express, "open_causal", lambda name: found)
    assert main(["export", "--patch", "ntk", "--len", "1m"]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
