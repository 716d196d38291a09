"""Models that do not read on as they should, found and refused, and those that do."""

from __future__ import annotations

import copy
import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import patches
from harness.cli import main
from harness.continued import Faults, faults_of, reads_together
from harness.decoding import decode
from harness.engine import LOGIT_ROWS, Engine
from harness.errors import HarnessError
from harness.generate import Prompt, generate
from patches.apply import apply
from tests.harness.conftest import make_model, make_tokenizer, table

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
try:
    from small_models import build
finally:
    sys.path.pop(0)

CPU = torch.device("cpu")
TOKENS = [3 + (7 * index * index + 3 * index) % 120 for index in range(72)]
PROMPTS = [TOKENS[:50], TOKENS, [*TOKENS[:60], 9, 8]]
model_of = functools.cache(build)


def greedy(model: Any, tokens: list[int], count: int) -> list[int]:
    """By forwards of the whole, without a cache."""
    longer = list(tokens)
    for _ in range(count):
        with torch.inference_mode():
            logits = model(torch.tensor([longer]), use_cache=False).logits
        longer.append(int(logits[0, -1].argmax()))
    return longer[len(tokens) :]


def test_other_models_keep_keys_alone() -> None:
    engine = Engine(make_model(), None, CPU)
    assert not engine.keeps_states and engine.faults == Faults()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_no_fault(dtype: torch.dtype) -> None:
    assert faults_of(make_model().to(dtype)) == Faults()


def test_a_recurrence_that_reads_token_by_token_scores_at_once_and_generates() -> None:
    model = model_of("mamba")
    engine = Engine(model, None, CPU)
    assert len(engine.score(TOKENS, 1)[0]) == len(TOKENS) - 1
    assert list(generate(engine, [Prompt(TOKENS, 4)])) == [greedy(model, TOKENS, 4)]
    with pytest.raises(HarnessError, match="mamba does not read several tokens behind a cache"):
        Engine(model, 16, CPU).score(TOKENS, 1)


def test_a_model_without_such_a_cache_scores_at_once_alone() -> None:
    model = model_of("rwkv")
    assert len(Engine(model, None, CPU).score(TOKENS, 1)[0]) == len(TOKENS) - 1
    with pytest.raises(HarnessError, match=r"rwkv does not read on behind a cache .*--chunk out"):
        Engine(model, 16, CPU).score(TOKENS, 1)
    with pytest.raises(HarnessError, match="rwkv does not read on behind a cache"):
        list(generate(Engine(model, None, CPU), [Prompt(TOKENS, 2)]))


@pytest.mark.parametrize("family", ["marian", "bart"])
def test_a_model_that_takes_its_column_for_its_position_answers_singly(family: str) -> None:
    model = model_of(family)
    engine, prompts = Engine(model, None, CPU), [TOKENS[:9], TOKENS[:24], TOKENS[30:45]]
    assert not engine.keeps_states and not engine.reads_together and engine.faults == Faults()
    made = list(generate(engine, [Prompt(prompt, 5) for prompt in prompts], batch=3))
    assert made == [greedy(model, prompt, 5) for prompt in prompts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_a_llama_go_on_together(dtype: torch.dtype) -> None:
    assert Engine(make_model().to(dtype), None, CPU).reads_together


def forgetting(model: Any, most: int) -> Any:
    """The model, but it lets go of what it has read when it is given more than `most` tokens."""
    given = model.forward

    @functools.wraps(given)
    def forward(*args: Any, input_ids: torch.Tensor | None = None, **inputs: Any) -> Any:
        ids = args[0] if args else input_ids
        cache = inputs.get("past_key_values")
        if cache is not None and cache.get_seq_length() and ids.shape[1] > most:
            inputs |= {"past_key_values": None, "use_cache": False}
        return given(ids, **inputs)

    model.forward = forward
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_lets_go_is_refused_what_it_gets_wrong(dtype: torch.dtype) -> None:
    model = forgetting(make_model().to(dtype), 0)
    assert "100% as far off" in faults_of(model).steps
    with pytest.raises(HarnessError, match="llama does not read on behind a cache"):
        list(generate(Engine(model, None, CPU), [Prompt(TOKENS, 2)]))
    model = forgetting(make_model().to(dtype), 1)
    faults = faults_of(model)
    assert faults.pieces and not faults.steps
    whole, chunked = Engine(model, None, CPU), Engine(model, 16, CPU)
    with pytest.raises(HarnessError, match="does not read several tokens behind a cache"):
        chunked.score(TOKENS, 1)
    with pytest.raises(HarnessError, match="more than 1024 scored tokens"):
        whole.score(TOKENS * (1 + LOGIT_ROWS // len(TOKENS)), 1)
    with pytest.raises(HarnessError, match="does not read several tokens"):
        list(generate(chunked, [Prompt(TOKENS, 2)]))
    own = make_model().to(dtype)
    answers = list(generate(whole, [Prompt(prompt, 5) for prompt in PROMPTS]))
    assert answers == [greedy(own, prompt, 5) for prompt in PROMPTS]  # no beginning is shared


def test_logits_that_are_no_numbers_behind_a_cache_are_said_to_be_none() -> None:
    model = make_model()
    given = model.forward

    @functools.wraps(given)
    def forward(*args: Any, **inputs: Any) -> Any:
        cache = inputs.get("past_key_values")
        behind = cache is not None and cache.get_seq_length() > 0
        out = given(*args, **inputs)
        out.logits = out.logits * float("nan") if behind else out.logits
        return out

    model.forward = forward
    assert faults_of(model).steps == "its logits are not finite then"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_tokens_that_see_later_ones_have_no_loss(family: str, dtype: torch.dtype) -> None:
    shape = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    shape |= {"num_attention_heads": 2, "initializer_range": 0.3}
    shape |= {"d_head": 16} if family == "xlnet" else {}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **shape)
    model = AutoModelForCausalLM.from_config(config).eval().to(dtype)
    with pytest.raises(HarnessError, match=f"{family}: its tokens see later ones too"):
        Engine(model, None, CPU).score(TOKENS, 1)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_nor_a_next_token_though_a_step_behind_them_is_nearly_right(family: str) -> None:
    engine = Engine(model_of(family), None, CPU)
    assert not engine.faults.steps
    with pytest.raises(HarnessError, match=f"{family}: its tokens see later ones too"):
        list(generate(engine, [Prompt(TOKENS, 2)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["bert", "roberta", "rembert"])
def test_a_little_of_later_tokens_is_seen_in_every_dtype(family: str, dtype: torch.dtype) -> None:
    model = copy.deepcopy(model_of(family)).to(dtype)
    assert faults_of(model).leaks
    with (
        pytest.raises(patches.PatchError, match=f"{family}: its tokens see later ones too"),
        apply(model, patches.parse("logn"), 24, 12),
    ):
        pass


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["mixtral", "gemma2", "gpt_oss", "qwen3_next"])
def test_rounding_of_experts_and_windows_is_no_fault(family: str, dtype: torch.dtype) -> None:
    model = copy.deepcopy(model_of(family)).to(dtype)
    engine = Engine(model, None, CPU)
    assert engine.faults == Faults()
    assert engine.reads_together


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["git", "plbart"])
def test_places_taken_for_positions_are_found_in_16_bits(family: str, dtype: torch.dtype) -> None:
    assert not reads_together(copy.deepcopy(model_of(family)).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_the_size_of_logits_hides_no_fault(size: float, dtype: torch.dtype) -> None:
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.mul_(size)
    model.to(dtype)
    assert faults_of(model) == Faults() and reads_together(model)
    assert "100% as far off" in faults_of(forgetting(model, 0)).steps


def test_a_decoder_of_that_kind_has() -> None:
    shape = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    config = AutoConfig.for_model("bert", num_attention_heads=2, is_decoder=True, **shape)
    engine = Engine(AutoModelForCausalLM.from_config(config).eval(), None, CPU)
    assert len(engine.score(TOKENS, 1)[0]) == len(TOKENS) - 1


@pytest.mark.parametrize("family", ["marian", "bart", "git"])
def test_nor_those_of_a_model_that_takes_columns_for_positions(family: str) -> None:
    model, prompt = model_of(family), Prompt(TOKENS[:26], 4, None, (4, 9, 20))
    for name in ("nbce", "pcw"):
        patch = patches.parse(name)
        assert patch.decoding is not None
        with pytest.raises(HarnessError, match=f"{family} takes a token's column for its position"):
            list(decode(Engine(model, None, CPU), [prompt], patch.decoding, 32))


def test_what_can_be_read_is_measured_before_a_patch_is_on(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def spy(model: Any) -> bool:
        seen.append(model.config._attn_implementation)
        return reads_together(model)

    monkeypatch.setattr("harness.engine.reads_together", spy)
    grid = ["--model", str(checkpoint), "--data", str(data), "--patch", "rerope,none"]
    grid += ["--task", "continuation", "--len", "128", "--device", "cpu", "--n", "2"]
    assert main([*grid, "--batch", "2", "--out", str(tmp_path / "run"), "--in-process"]) == 0
    assert seen == ["sdpa"]


def test_what_to_do_is_read_behind_a_long_error() -> None:
    model = make_model()
    given = model.forward

    @functools.wraps(given)
    def forward(*args: Any, **inputs: Any) -> Any:
        if inputs.get("past_key_values") is not None:
            raise ValueError("no\ncache of this kind " * 40)
        return given(*args, **inputs)

    model.forward = forward
    with pytest.raises(HarnessError, match=r"choose tasks that score given tokens$") as caught:
        Engine(model, None, CPU).cache(8)
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def test_memory_that_runs_out_is_no_fault() -> None:
    model = make_model()

    def forward(*args: Any, **inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.forward = forward
    for measure in (faults_of, reads_together):
        with pytest.raises(torch.OutOfMemoryError):
            measure(model)


def test_a_recurrence_is_planned_and_generates(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "mamba"
    shape = {"vocab_size": 257, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
    config = AutoConfig.for_model("mamba", **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    make_tokenizer().save_pretrained(model)
    grid = ["--model", str(model), "--data", str(data), "--patch", "none", "--len", "128"]
    grid += ["--task", "ppl,continuation", "--trained-length", "64", "--device", "cpu", "--n", "1"]
    assert main(["plan", *grid]) == 0
    assert main([*grid, "--out", str(tmp_path / "run"), "--in-process"]) == 0
    status = {row["task"]: (row["status"], row["error"]) for row in table(tmp_path / "run")}
    assert status["ppl"] == ("ok", "")
    assert status["continuation"] == ("ok", "")
