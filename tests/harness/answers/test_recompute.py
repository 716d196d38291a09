"""Metrics again from the answers that a journal holds."""

from __future__ import annotations

import csv
import dataclasses
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.answers.recompute import recompute, same
from harness.cli import main
from harness.journal import Journal, read_journal
from harness.results import Record
from tests.harness.conftest import command, table

TASKS = "passkey(depth={0,1}),continuation(new=8),ppl"


@pytest.fixture
def out(checkpoint: Path, data: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    grid = ["--task", TASKS, "--len", "600", "--patch", "none,ntk(factor=4)", "--n", "3"]
    assert main([*command(checkpoint, data, directory), *grid]) == 0
    return directory


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def altered(out: Path, other: Path, change: Any) -> Path:
    """The journal of another directory, with records changed."""
    with Journal(other) as journal:
        for record in read_journal(out):
            journal.append(change(record))
    return other


def with_samples(record: Record, **fields: Any) -> Record:
    samples = tuple({**one, **fields} for one in record.samples)
    return dataclasses.replace(record, samples=samples)


def test_the_same_code_finds_what_it_stored(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["rescore", str(out)]) == 0
    captured = capsys.readouterr()
    found = {(row["cell"], row["metric"], row["position"]): row for row in lines_of(captured.out)}
    rows = {
        (row["cell"], row["metric"], row["position"]): row
        for row in table(out)
        if row["metric"] not in ("nll", "ppl", "accuracy")
    }
    assert found.keys() == rows.keys() and len(rows) == 2 * 2 * 2 + 2 * 4
    for place, line in found.items():
        assert line["changed"] == "0"
        assert line["value"] == line["stored"] == rows[place]["value"]
        assert [line[one] for one in ("ci_low", "ci_high", "n", "patch")] == [
            rows[place][one] for one in ("ci_low", "ci_high", "n", "patch")
        ]
    assert captured.err == f"6 cells: {len(rows)} values, 0 differ from the journal\n"


def test_another_answer_scores_otherwise_and_exits_1(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered(record: Record) -> Record:
        samples = [dict(one) for one in record.samples]
        if record.rows[0].task.startswith("passkey"):
            samples[1]["text"] = samples[1]["references"][0]
        return dataclasses.replace(record, samples=tuple(samples))

    other = altered(out, tmp_path / "other", answered)
    capsys.readouterr()
    assert main(["rescore", str(other)]) == 1
    captured = capsys.readouterr()
    for line in lines_of(captured.out):
        hit = line["metric"] == "exact_match"
        assert line["changed"] == ("1" if hit else "0")
        assert float(line["stored"]) == (0 if hit else float(line["value"]))
        assert not hit or float(line["value"]) == pytest.approx(1 / 3)
    assert "8 differ from the journal" in captured.err


def test_a_metric_that_is_gone_is_said(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.passkey.Passkey.score", lambda *given: [])
    capsys.readouterr()
    assert main(["rescore", str(out)]) == 1
    gone = [one for one in lines_of(capsys.readouterr().out) if one["metric"] == "exact_match"]
    assert len(gone) == 8
    assert {(one["value"], one["stored"], one["changed"]) for one in gone} == {("", "0.0", "3")}


def test_cells_of_an_earlier_form_are_left_out_aloud(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def earlier(record: Record) -> Record:
        samples = [
            {name: one[name] for name in one if name != "position"} for one in record.samples
        ]
        is_old = not record.rows[0].task.startswith("continuation")
        return dataclasses.replace(record, samples=tuple(samples)) if is_old else record

    other = altered(out, tmp_path / "other", earlier)
    capsys.readouterr()
    assert main(["rescore", str(other)]) == 0
    captured = capsys.readouterr()
    assert {line["task"] for line in lines_of(captured.out)} == {"continuation(new=8)"}
    assert "4 cells left out: stored by an earlier version" in captured.err


def test_a_run_without_answers_is_one_line(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    with Journal(other) as journal:
        for record in read_journal(out):
            if record.rows[0].task == "ppl":
                journal.append(record)
    capsys.readouterr()
    assert main(["rescore", str(other)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "none of its 2 cells has answers" in captured.err


def test_failed_cells_have_nothing_to_score(out: Path) -> None:
    record = read_journal(out)[0]
    row = dataclasses.replace(record.rows[0], status="nan", metric="", value=None)
    assert recompute(Record(record.key, (row,), ())) == []


def test_values_are_the_same_up_to_the_order_of_sums() -> None:
    assert same(0.1 + 0.2, 0.3) and same(None, None) and same(float("nan"), float("nan"))
    assert same(float("inf"), float("inf"))
    assert not same(0.3, 0.30001) and not same(None, 0.0) and not same(float("nan"), 0.0)


def test_rescoring_a_run_imports_no_torch(out: Path) -> None:
    code = (
        "import sys\nfrom harness.cli import main\ncode = main(['rescore', sys.argv[1]])\n"
        "sys.exit(code or [name for name in ('torch', 'transformers') if name in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
