"""States that models keep beside keys: read in pieces, shared, and gone on with together."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import patches
from harness.cli import main
from harness.continued import Faults
from harness.decoding import decode
from harness.engine import Engine
from harness.errors import HarnessError
from harness.generate import Prompt, generate
from harness.states import keeps_states
from patches.apply import apply
from tests.harness.conftest import make_tokenizer, table
from tests.harness.test_continued import CPU, PROMPTS, TOKENS, greedy, model_of
from tests.harness.test_decoding import nbce

SPECS = ["none", "ntk", "rerope(window=16)+logn", "streaming(window=24)"]


@pytest.mark.parametrize(
    ("family", "spec"),
    [
        *itertools.product(("lfm2_moe", "falcon_h1"), SPECS),
        ("mamba2", "none"),
        *itertools.product(("deepseek_v32",), SPECS[:2]),  # it chooses keys: frequencies alone
    ],
)
def test_states_go_on_in_pieces_together_and_after_a_shared_beginning(
    family: str, spec: str
) -> None:
    model = model_of(family)
    with apply(model, patches.parse(spec), 80, 32):
        at_once, engine = Engine(model, None, CPU), Engine(model, 13, CPU)
        assert engine.keeps_states and engine.faults == Faults()
        wanted, _ = at_once.score(TOKENS, 1)
        np.testing.assert_allclose(engine.score(TOKENS, 1)[0], wanted, atol=1e-4)
        answers = [greedy(model, prompt, 4) for prompt in PROMPTS]
        for reader in (at_once, engine):
            prompts = [Prompt(prompt, 4) for prompt in PROMPTS]
            assert list(generate(reader, prompts, batch=3)) == answers


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("family", ["lfm2_moe", "falcon_h1", "mamba2"])
def test_a_document_is_read_once_for_all_questions_that_keep_states(
    family: str, batch: int
) -> None:
    other = TOKENS[::-1][:40]
    ends = [[5, 6, 7], [5, 6, 8, 9], [5, 4], [7]]  # the first two share more than the document
    prompts = [[*document, *end] for document in (TOKENS, other) for end in ends]
    prompts += [TOKENS, TOKENS[:30], TOKENS[:31]]
    engine = Engine(model_of(family), None, CPU)
    made = list(generate(engine, [Prompt(prompt, 3) for prompt in prompts], batch=batch))
    assert made == [greedy(model_of(family), prompt, 3) for prompt in prompts]
    questions = 2 * sum(map(len, ends))
    last = len(TOKENS) + 1 + 2  # read again; the first 29 serve the two behind it
    read = len(TOKENS) + len(other) + questions + last
    assert engine.tokens_read == read + 2 * len(prompts)


@pytest.mark.parametrize(
    ("family", "spec"),
    [
        *itertools.product(("lfm2_moe", "falcon_h1", "qwen3_next"), SPECS[::2]),
        *itertools.product(("mamba2", "jamba", "nemotron_h"), SPECS[:1]),  # they do not rotate
    ],
)
def test_states_of_rows_of_unequal_length_go_on_together(family: str, spec: str) -> None:
    model = model_of(family)
    seen: list[tuple[int, int]] = []
    given = model.forward

    def watched(*args: Any, **inputs: Any) -> Any:
        seen.append(tuple(inputs["input_ids"].shape))
        return given(*args, **inputs)

    prompts = [TOKENS[:50], TOKENS[:9], [*TOKENS[:45], 9, 8], TOKENS[20:53]]
    engine = Engine(model, None, CPU)
    engine.measure(4)
    assert engine.keeps_states and engine.reads_together
    with apply(model, patches.parse(spec), 80, 32):
        wanted = [greedy(model, prompt, 6) for prompt in prompts]
        assert len({tuple(answer) for answer in wanted}) > 1
        model.forward = watched
        try:
            made = list(generate(engine, [Prompt(one, 6) for one in prompts], batch=4))
        finally:
            del model.forward
    assert made == wanted
    assert seen[-5:] == [(4, 1)] * 5 and (4, 1) not in seen[:-5]


@pytest.mark.parametrize("family", ["deepseek_v32", "inkling_text", "falcon_mamba"])
def test_what_has_columns_of_its_own_or_mistakes_the_mask_goes_on_singly(family: str) -> None:
    engine = Engine(model_of(family), None, CPU)
    assert engine.keeps_states and not engine.reads_together


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_states_serve_no_prompt_that_has_a_part_alone_of_what_they_are_behind(batch: int) -> None:
    prompts = [[*TOKENS, 5, 6], [*TOKENS, 9], TOKENS[::-1][:30], [*TOKENS[:60], 7, 8]]
    model = model_of("lfm2_moe")
    made = list(
        generate(Engine(model, None, CPU), [Prompt(one, 3) for one in prompts], None, batch)
    )
    assert made == [greedy(model, prompt, 3) for prompt in prompts]


def test_layers_of_keys_are_preallocated_beside_states() -> None:
    layers = Engine(model_of("lfm2_moe"), None, CPU).cache(8).layers
    assert {type(layer).__name__ for layer in layers} == {
        "LinearAttentionLayer",
        "PreallocatedLayer",
    }


def test_a_config_without_layers_to_cache_is_no_obstacle() -> None:
    config = AutoConfig.for_model("perceiver", d_model=8, num_latents=4, d_latents=8)
    assert not keeps_states(config)


@pytest.mark.parametrize("family", ["lfm2_moe", "falcon_h1", "mamba2"])
@pytest.mark.parametrize("borders", [(4, 20, 36), (40, 48, 53, 60)])
def test_states_of_contexts_read_apart_go_on_together(
    family: str, borders: tuple[int, ...]
) -> None:
    model, prompt = model_of(family), Prompt(TOKENS, 5, None, borders)
    decoding = patches.parse("nbce").decoding
    assert decoding is not None
    made = list(decode(Engine(model, None, CPU), [prompt], decoding, 100))
    assert made == [nbce(prompt, model=model)]


@pytest.mark.parametrize(
    ("family", "name"), [("lfm2_moe", "pcw"), ("falcon_mamba", "nbce"), ("deepseek_v32", "nbce")]
)
def test_states_do_not_stand_in_one_row_nor_go_on_where_it_fails(family: str, name: str) -> None:
    model, prompt = model_of(family), Prompt(TOKENS, 2, None, (4, 20, 36))
    decoding = patches.parse(name).decoding
    assert decoding is not None
    with pytest.raises(HarnessError, match=f"{family} keeps states, not keys alone"):
        list(decode(Engine(model, None, CPU), [prompt], decoding, 100))


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hybrid")
    config = AutoConfig.for_model(
        "lfm2",
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        layer_types=["conv", "full_attention"],
        bos_token_id=256,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).eval().save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def test_a_hybrid_runs_in_pieces_and_generates(
    hybrid: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--model", str(hybrid), "--data", str(data), "--patch", "none,rerope+logn"]
    grid += ["--task", "ppl,continuation", "--len", "128", "--device", "cpu", "--n", "2"]
    assert main(["plan", *grid, "--chunk", "32", "--batch", "2"]) == 0
    rows = {}
    for name, more in (("whole", []), ("chunked", ["--chunk", "32", "--batch", "2"])):
        assert main([*grid, *more, "--out", str(tmp_path / name), "--in-process"]) == 0
        rows[name] = [row for row in table(tmp_path / name) if row["value"]]
        assert rows[name] and {row["status"] for row in rows[name]} == {"ok"}
    assert "singly" not in capsys.readouterr().err
    for one, other in zip(rows["whole"], rows["chunked"], strict=True):
        assert one["metric"] == other["metric"]
        assert float(one["value"]) == pytest.approx(float(other["value"]), rel=1e-4)


def test_answers_that_cannot_go_on_together_are_said_to_be_made_singly(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    ends = {"bos_token_id": 256, "eos_token_id": None, "pad_token_id": None}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **shape, **ends))
    model.save_pretrained(tmp_path / "mamba")
    make_tokenizer().save_pretrained(tmp_path / "mamba")
    grid = ["--model", str(tmp_path / "mamba"), "--data", str(data), "--trained-length", "64"]
    grid += ["--task", "continuation", "--len", "128", "--device", "cpu", "--n", "2"]
    assert main([*grid, "--batch", "2", "--out", str(tmp_path / "run"), "--in-process"]) == 0
    assert "mamba: answers are generated singly, not 2 together" in capsys.readouterr().err
