"""Models that fill in masks: which tasks they take, and what the engine computes with them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from harness.checkpoint import open_checkpoint
from harness.cli import main
from harness.engine import Engine
from harness.errors import HarnessError, NonFinite
from tasks.base import Pass
from tests.harness.conftest import TRAINED_LENGTH, journals, make_tokenizer, table

CPU = torch.device("cpu")
MASK = 258
TOKENS = [256, *((7 * index * index + 3 * index) % 256 for index in range(90)), 257]
HIDDEN = (60, 61, 70, 88)


def make_masked(kind: str = "bert", positions: int = TRAINED_LENGTH):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
    }
    if kind == "bert":
        shape |= {"max_position_embeddings": positions, "type_vocab_size": 1}
        return BertForMaskedLM(BertConfig(**shape)).eval()
    shape |= {"max_position_embeddings": TRAINED_LENGTH + 260, "pad_token_id": 259}
    return RobertaForMaskedLM(RobertaConfig(**shape)).eval()


def save(directory: Path, kind: str = "bert") -> Path:
    make_masked(kind).save_pretrained(directory)
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens(
        {"cls_token": "<c>", "sep_token": "<e>", "mask_token": "<m>", "pad_token": "<p>"}
    )
    assert tokenizer.convert_tokens_to_ids(["<c>", "<e>", "<m>", "<p>"]) == [256, 257, 258, 259]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<c> $A <e>", special_tokens=[("<c>", 256), ("<e>", 257)]
    )
    tokenizer.model_max_length = TRAINED_LENGTH
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "bert")


def run(model: Path, data: Path, out: Path, *more: str) -> int:
    fixed = ["--model", str(model), "--data", str(data), "--out", str(out), "--device", "cpu"]
    return main([*fixed, "--in-process", *more])


def expected(model, tokens: list[int], hidden) -> tuple[np.ndarray, np.ndarray]:
    """nll and hits of hidden tokens from one plain forward."""
    ids = torch.tensor([tokens])
    ids[0, list(hidden)] = MASK
    with torch.no_grad():
        logits = model(ids).logits[0, list(hidden)].double()
    wanted = torch.tensor([tokens[place] for place in hidden])
    nll = -torch.log_softmax(logits, -1).gather(1, wanted[:, None])[:, 0]
    return nll.numpy(), (logits.argmax(-1) == wanted).numpy()


@pytest.mark.parametrize("keep", [None, 92, 40, 34])
def test_hidden_tokens_are_read_from_all_that_is_seen(keep: int | None) -> None:
    model = make_masked(positions=len(TOKENS))
    cut = TOKENS if keep is None else [256, *TOKENS[len(TOKENS) - keep + 1 :]]
    shift = len(TOKENS) - len(cut)
    nll, hits = Engine(model, None, CPU, 256, MASK).read(Pass(tuple(TOKENS), 60, HIDDEN), keep)
    wanted, right = expected(model, cut, [place - shift for place in HIDDEN])
    np.testing.assert_allclose(nll, wanted, atol=2e-5)
    np.testing.assert_array_equal(hits, right)
    assert nll.dtype == np.float64


def test_a_hidden_token_that_is_cut_away_is_refused() -> None:
    engine = Engine(make_masked(positions=len(TOKENS)), None, CPU, 256, MASK)
    for keep in (32, 20):
        with pytest.raises(HarnessError, match=f"hidden token 60 is not among the newest {keep}"):
            engine.fill_in(TOKENS, HIDDEN, keep)


def test_the_first_bad_number_is_placed() -> None:
    model = make_masked(positions=len(TOKENS))
    with torch.no_grad():
        model.cls.predictions.bias[TOKENS[70]] = float("nan")
    with pytest.raises(NonFinite, match="position 60, the first of 4"):
        Engine(model, None, CPU, 256, MASK).fill_in(TOKENS, HIDDEN)


def test_a_masked_model_runs_up_to_three_times_its_table(
    bert: Path, data: Path, tmp_path: Path
) -> None:
    grid = ["--patch", "none,truncate,hierarchical,hierarchical(alpha=0.3)", "--task", "masked"]
    code = run(bert, data, tmp_path, *grid, "--len", "64,128,192", "--n", "2")
    rows = {(row["patch"], row["context_length"], row["metric"]): row for row in table(tmp_path)}
    assert code == 3  # none reads no further than its table
    for length in ("128", "192"):
        bad = rows["none", length, ""]
        assert bad["status"] == "error"
        assert bad["error"].startswith("bert: bert.embeddings.position_embeddings has 64 positions")
    values = {key: float(row["value"]) for key, row in rows.items() if row["status"] == "ok"}
    for metric in ("accuracy", "nll"):
        at_one = {values[patch, "64", metric] for patch in ("none", "truncate", "hierarchical")}
        assert len(at_one) == 1
        assert values["truncate", "192", metric] == values["none", "64", metric]
    far = [values[f"hierarchical{more}", "192", "nll"] for more in ("", "(alpha=0.3)")]
    assert abs(far[0] - far[1]) > 1e-3
    assert rows["none", "64", "nll"]["n_scored_tokens"] == "10"  # 15 % of 32, twice
    assert journals(tmp_path)


def test_kinds_of_models_and_tasks_are_told_apart_before_weights_load(
    bert: Path, checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, task, message in [
        (
            bert,
            "ppl",
            "--task ppl: the model fills in masked tokens and the task asks for the other",
        ),
        (checkpoint, "masked", "--task masked: the model continues a text and the task asks for"),
    ]:
        weights = Path(model, "model.safetensors").read_bytes()
        Path(model, "model.safetensors").write_bytes(b"broken")
        assert run(model, data, tmp_path, "--task", task) == 2
        Path(model, "model.safetensors").write_bytes(weights)
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert "give masked or another model" in error or "give continuation, " in error


def test_what_only_causal_models_do_is_refused_for_others(
    bert: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bert, data, tmp_path, "--task", "masked", "--chunk", "16") == 2
    assert "--chunk 16: --model" in capsys.readouterr().err
    common = ["--model", str(bert), "--data", str(data), "--len", "64"]
    assert main(["show", "attention", *common, "--patch", "none"]) == 2
    assert "BertForMaskedLM fills in masked tokens and continues" in capsys.readouterr().err
    assert main(["keys", *common, "--out", str(tmp_path / "keys.jsonl")]) == 2
    assert "the model fills in masked tokens" in capsys.readouterr().err
    export = ["export", "--model", str(bert), "--patch", "ntk", "--len", "128", "--engine", "hf"]
    assert main(export) == 2
    assert "fills in masked tokens and continues no text" in capsys.readouterr().err


def test_a_tokenizer_without_a_mask_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = save(tmp_path / "bert")
    make_tokenizer().save_pretrained(directory)
    assert run(directory, data, tmp_path / "out", "--task", "masked") == 2
    assert "its tokenizer has no mask token" in capsys.readouterr().err


def test_the_tokenizer_tells_of_special_tokens_and_length(bert: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(bert))
    tokenizer = checkpoint.tokenizer
    assert checkpoint.is_masked
    assert (tokenizer.bos_id, tokenizer.end_id, tokenizer.mask_id) == (256, 257, 258)
    roberta = open_checkpoint(str(save(tmp_path / "roberta", "roberta")))
    assert roberta.config.max_position_embeddings == TRAINED_LENGTH + 260  # rows without positions
    assert roberta.original_max_position_embeddings == TRAINED_LENGTH


@pytest.mark.parametrize(
    ("architecture", "is_masked"),
    [("BertForMaskedLM", True), ("BertForPreTraining", True), ("BertLMHeadModel", False)],
)
def test_what_a_bert_is_for_stands_in_its_config(
    architecture: str, is_masked: bool, bert: Path, tmp_path: Path
) -> None:
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(str(tmp_path)).is_masked == is_masked
