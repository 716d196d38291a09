"""What a model answered, as a person reads it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from harness.answers.samples import _sample, render_run
from harness.answers.saved import save_samples
from harness.cli import main
from harness.errors import HarnessError
from harness.results import Record
from tests.harness.conftest import command, table
from tests.harness.test_results import ROW


@pytest.fixture
def out(checkpoint: Path, data: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    more = ["--task", "passkey(depth=0.5),ppl", "--len", "600", "--patch", "none", "--n", "2"]
    assert main([*command(checkpoint, data, directory), *more]) == 0
    return directory


def test_a_run_is_a_line_a_cell(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {row["cell"]: row for row in table(out)}
    assert {line.split()[0] for line in lines} == set(cells) and len(lines) == 2
    assert any("passkey(depth=0.5)  600  none  ok  exact_match 0.000" in line for line in lines)


def test_a_cell_is_a_part_a_sample(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = next(row["cell"] for row in table(out) if row["task"].startswith("passkey"))
    capsys.readouterr()
    assert main(["show", f"{out}/{cell}"]) == 0
    first, *parts = capsys.readouterr().out.split("\n== ")
    assert first.startswith(cell) and len(parts) == 2
    for part in parts:
        assert part.startswith("sample") and "600 tokens  answer behind" in part
        assert "What is the pass key?" in part and "The pass key is\n" in part
        assert "\nreference  " in part and "\nexact_match 0.000" in part
        assert all(one.isprintable() or one == "\n" for one in part)


def test_a_cell_that_is_not_there_is_one_line(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["show", f"{out}/0123"]) == 2
    error = capsys.readouterr().err
    assert "no cell '0123'" in error and error.count("\n") == 1
    assert main(["show", str(out.parent)]) == 6
    assert "no journal" in capsys.readouterr().err
    assert main(["show", f"{out}s/0123"]) == 2
    assert "no run there" in capsys.readouterr().err
    assert main(["show", f"{out}s/"]) == 2
    assert f"{out}s/: no run there" in capsys.readouterr().err
    assert main(["report", f"{out}s"]) == 6
    assert "outs: no such directory; expected the --out of a run" in capsys.readouterr().err


def test_the_beginning_of_a_cell_is_enough_where_it_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [
        Record({}, (dataclasses.replace(ROW, cell=cell),), ()) for cell in ("ab1c", "ab2c", "c3")
    ]
    monkeypatch.setattr("harness.answers.samples.read_journal", lambda _: there)
    for name, cell in (("c", "c3"), ("ab2", "ab2c"), ("ab1c", "ab1c")):
        assert render_run(f"{tmp_path}/{name}").startswith(f"{cell}  ")
    for name, words in (("ab", "2 cells begin with 'ab'"), ("b", "no cell 'b'")):
        with pytest.raises(HarnessError, match=words):
            render_run(f"{tmp_path}/{name}")


def test_saved_samples_are_json_lines_of_every_finished_cell(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "saved"
    tasks = "passkey(depth=0.5),ppl,continuation(new=8)"
    grid = ["--task", tasks, "--len", "600", "--patch", "none", "--n", "2"]
    arguments = [*command(checkpoint, data, out), *grid]
    assert main(arguments) == 0
    assert not (out / "samples").exists()
    assert main([*arguments, "--save-samples"]) == 0
    rows = {(row["cell"], row["metric"]): row for row in table(out) if not row["position"]}
    assert {path.stem for path in (out / "samples").iterdir()} == {cell for cell, _ in rows}
    for path in (out / "samples").iterdir():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == 2 and {line["cell"] for line in lines} == {path.stem}
        asked = lines[0]["task"] != "ppl"
        for line in lines:
            assert bool(line["prompt_tail"]) == bool(line["references"]) == asked
            assert isinstance(line["prediction"], str) and line["tokens"] == 600
            assert line["patch"] == "none" and line["context_length"] == 600
        if not asked:
            mean = sum(line["scores"]["nll"] for line in lines) / 2
            assert math.isclose(mean, float(rows[path.stem, "nll"]["value"]))


def test_an_empty_answer_is_shown_as_one() -> None:
    sample = {"id": "a", "references": ["b"], "text": "", "scores": []}
    assert _sample(sample) == "== a\nreference  b\nanswer     (nothing)"
    assert _sample({**sample, "references": []}) == "== a"


def test_a_failed_cell_has_no_file_and_a_file_is_written_once(tmp_path: Path) -> None:
    sample = {"id": "a", "document": "a", "text": "é", "scores": [["ppl", "", [1e6, 1.0]]]}
    ok = dataclasses.replace(ROW, cell="0k")
    failed = dataclasses.replace(ROW, cell="bad", status="nan", metric="", value=None)
    records = [Record({}, (ok,), (sample,)), Record({}, (failed,), ())]
    save_samples(tmp_path, records)
    (path,) = (tmp_path / "samples").iterdir()
    line = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "0k.jsonl" and line["prediction"] == "é"
    assert line["scores"] == {"ppl": None}  # beyond the floats
    path.write_text("mine")
    save_samples(tmp_path, records)
    assert path.read_text() == "mine"
