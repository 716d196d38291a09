"""Runs of tasks that hide an answer, and of a trained length that is given."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import measure
from harness.cli import main
from harness.generate import Prompt
from harness.measure import before_first
from tests.harness.conftest import command, make_tokenizer, table


def test_hidden_answers_are_scored_by_depth_and_drawn(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = make_tokenizer()

    def answers(engine: object, prompts: list[Prompt], *_: object) -> Iterator[list[int]]:
        for prompt in prompts:
            new = prompt.max_new_tokens
            text = tokenizer.decode([one for one in prompt.tokens if one < 256])
            found = re.search(r"pass key is (\d+)", text)
            known = found is not None and found.start() > 0.45 * len(text)
            yield tokenizer.encode(found[1])[:new] if found and known else [0] * new

    monkeypatch.setattr(measure, "generate", answers)
    out, png = tmp_path / "out", tmp_path / "f.png"
    one = data / "0.txt"
    more = ["--task", "passkey,needle", "--n", "7", "--len", "600,700", "--figure", str(png)]
    arguments = command(checkpoint, one, out, *more)
    assert main(arguments) == 0
    rows = [row for row in table(out) if row["task"] == "passkey" and row["patch"] == "none"]
    for length in ("600", "700"):
        values = {
            row["position"]: (float(row["value"]), row["n"])
            for row in rows
            if row["context_length"] == length
        }
        assert values == {
            "": (pytest.approx(4 / 7), "7"),
            "depth 0": (0.0, "2"),
            "depth 1": (1.0, "2"),
            "depth 0.5": (1.0, "1"),
            "depth 0.25": (0.0, "1"),
            "depth 0.75": (1.0, "1"),
        }
    assert {row["data"] for row in rows} == {""}
    needles = [row for row in table(out) if row["task"] == "needle"]
    assert {row["data"] for row in needles} == {str(one)} and needles[0]["n"] == "7"
    assert png.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "exact_match, higher is better" in printed and "depth 0" not in printed


def test_a_given_trained_length_replaces_the_one_of_the_config(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    more = ["--task", "ppl(last=16)"]
    assert main(command(checkpoint, data, tmp_path, *more)) == 0
    assert main(command(checkpoint, data, tmp_path, *more, "--trained-length", "128")) == 0
    values = {
        (row["trained_length"], row["context_length"], row["patch"]): row["value"]
        for row in table(tmp_path)
        if row["metric"] == "nll"
    }
    assert len(values) == 8
    assert values["64", "128", "truncate"] != values["64", "128", "none"]
    assert values["128", "128", "truncate"] == values["128", "128", "none"]


def test_data_that_no_task_reads_is_refused(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(checkpoint, data, tmp_path, "--task", "passkey,kv")) == 2
    assert "passkey, kv makes its own text; leave it out" in capsys.readouterr().err


def test_answers_generated_together_are_the_same_and_a_cell_of_their_own(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    task = ["--task", "continuation(new=8)", "--len", "64", "--patch", "none"]
    for batch in ("1", "2"):
        assert main(command(checkpoint, data, out, *task, "--batch", batch)) == 0
    rows = table(out)
    alone, together = ([row for row in rows if row["batch"] == batch] for batch in ("1", "2"))
    assert [row["value"] for row in alone] == [row["value"] for row in together]
    assert len(alone) > 3 and not {row["cell"] for row in alone} & {row["cell"] for row in together}


@pytest.mark.parametrize("batch", ["0", "-2"])
def test_a_batch_of_nothing_is_refused(
    batch: str, checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(checkpoint, data, tmp_path, "--batch", batch)) == 2
    assert f"--batch {batch}: expected an integer of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "ends", "kept"),
    [
        ("one\ntwo\n", ("\n",), "one"),
        ("one", ("\n",), "one"),
        ("a. b! c", ("!", "."), "a"),
        ("a\nb", (), "a\nb"),
        ("\n", ("\n",), ""),
    ],
)
def test_an_answer_is_the_text_before_the_first_of_its_ends(
    text: str, ends: tuple[str, ...], kept: str
) -> None:
    assert before_first(text, ends) == kept


def test_prompts_that_lose_a_part_are_counted_in_the_row_and_said(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"input": "Who?", "context": "word " * count, "answers": ["Ann"], "all_classes": None}
        for count in (10, 200, 200)
    ]
    given = tmp_path / "rows"
    given.mkdir()
    (given / "qasper.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["--task", "longbench(subset=qasper)", "--len", "500,4k", "--patch", "none"]
    assert main(command(checkpoint, given, tmp_path / "out", *more)) == 0
    said = capsys.readouterr().err
    assert "at 500: 2 of 3 prompts are too long and cut\n" in said
    assert "at 4k" not in said
    counts = {(row["context_length"], row["n_cut"]) for row in table(tmp_path / "out")}
    assert counts == {("500", "2"), ("4096", "0")}
