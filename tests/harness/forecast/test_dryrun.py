"""The command `plan`: what is stored, what would run, what does not fit; nothing is written."""

import csv
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness import measure, memory
from harness.cli import main
from harness.errors import OF_MODELS
from harness.forecast import dryrun
from harness.forecast.dryrun import survey
from harness.forecast.predict import Predictor
from harness.journal import Journal, Stored
from harness.plan import Cell, Request, plan
from harness.results import Record
from tests.harness.conftest import command, table

CPU = torch.device("cpu")


def planned(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def states(lines: list[str]) -> dict[tuple[str, str], str]:
    """State by length and patch."""
    cells = [line.split("  ") for line in lines if line[:8].strip().isdigit()]
    cells = [[part.strip() for part in line if part.strip()] for line in cells]
    return {(line[0].split()[0], line[-1]): line[-2] for line in cells}


def test_hours_come_first_and_stored_cells_are_told_from_others(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = command(checkpoint, data, out)
    lines = planned(arguments, capsys)
    assert lines[0].startswith("0.00 hours for 4 cells: 4 will run")
    assert set(states(lines).values()) == {"will run"}
    assert not out.exists()
    assert main([*arguments, "--len", "64"]) == 0
    capsys.readouterr()
    lines = planned(arguments, capsys)
    assert "2 will run, 2 cached" in lines[0]
    assert states(lines) == {
        ("64", "none"): "cached",
        ("64", "truncate"): "cached",
        ("128", "none"): "will run",
        ("128", "truncate"): "will run",
    }
    assert max(map(len, lines)) <= 100


def test_plan_is_a_run_with_dry_run(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path / "run")
    assert main([*arguments, "--dry-run"]) == 0
    assert states(capsys.readouterr().out.splitlines()) == states(planned(arguments, capsys))
    assert list(tmp_path.glob("run*")) == []


def test_a_shard_has_its_part_alone(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path / "run", "--shard", "2/2")
    assert [*states(planned(arguments, capsys))] == [("64", "truncate"), ("128", "truncate")]


def test_what_does_not_fit_is_said_by_the_memory_that_is_there(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dryrun, "available", lambda device: 1 << 20)
    lines = planned(command(checkpoint, data, tmp_path / "run"), capsys)
    assert lines[0] == "0.00 hours for 4 cells: 4 do not fit"
    assert "0.0 GiB are available" in "\n".join(lines)


@pytest.mark.parametrize(("retry", "state"), [((), "failed before"), (("failed",), "will run")])
def test_a_failed_cell_runs_again_on_request_only(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    retry: tuple[str, ...],
    state: str,
) -> None:
    arguments = command(checkpoint, data, tmp_path, *(("--retry", *retry) if retry else ()))
    (cell, *_) = plan(request_of(checkpoint, data), CPU)
    with Journal(tmp_path) as journal:
        journal.append(Record(cell.key, (replace(cell.template, status="oom"),), ()))
    assert states(planned(arguments, capsys))["64", "none"] == state


def request_of(checkpoint: Path, data: Path, **changes: object) -> Request:
    fixed = {"models": (str(checkpoint),), "patches": ("none",), "tasks": ("ppl",), "n": 3}
    more = {"lengths": (64,), "data": str(data), "seed": 0, "dtype": "auto", "device": "cpu"}
    return Request(**(fixed | more | {"chunk": None} | changes))


def test_seconds_follow_what_stored_cells_took(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    cells = plan(request_of(checkpoint, data, lengths=(64, 128)), CPU)
    free, _ = survey(cells, Stored(tmp_path), (), CPU, 0)
    with Journal(tmp_path) as journal:
        row = replace(cells[0].template, status="ok", seconds=5000.0)
        journal.append(Record(cells[0].key, (row,), ()))
    bound, timings = survey(cells, Stored(tmp_path), (), CPU, 0)
    (timing,) = timings.values()
    assert timing.startswith("stored cells of this grid (1) took ")
    assert bound[0].seconds == pytest.approx(5000.0)
    assert bound[1].seconds > 5000.0
    assert free[1].seconds < 60


def test_a_patch_that_the_model_refuses_is_said(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path, "--patch", "window(size=8,layers=0:9)")
    lines = planned(arguments, capsys)
    assert "2 refused" in lines[0]
    assert "layers=0:9" in "\n".join(lines)


@pytest.mark.parametrize("raised", OF_MODELS)
def test_what_a_model_s_code_raises_without_values_leaves_its_cell_open(
    raised: type[Exception],
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forecast(self: Predictor, cell: Cell) -> None:
        raise raised("None has no items")

    monkeypatch.setattr(Predictor, "forecast", forecast)
    lines = planned(command(checkpoint, data, tmp_path), capsys)
    assert "4 will run" in lines[0]
    assert sum("not predicted" in line for line in lines) == 4


def test_the_table_has_a_row_a_cell(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "plan.csv"
    planned(command(checkpoint, data, tmp_path / "run", "--csv", str(target)), capsys)
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["context_length"], row["patch"]) for row in rows] == [
        ("64", "none"),
        ("64", "truncate"),
        ("128", "none"),
        ("128", "truncate"),
    ]
    assert all(float(row["peak_memory_gib"]) > 0.05 for row in rows)
    assert all(row["state"] == "will run" and float(row["seconds"]) > 0 for row in rows)


def test_json_has_the_cells_of_the_table(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "plan.csv"
    arguments = command(checkpoint, data, tmp_path / "run", "--csv", str(table))
    (line,) = planned([*arguments, "--json"], capsys)
    found = json.loads(line)
    assert found["command"] == "plan" and found["available_gib"] > 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for cell, row in zip(found["cells"], rows, strict=True):
        assert {name: "" if one is None else str(one) for name, one in cell.items()} == row


def test_a_plan_draws_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "--figure", str(tmp_path / "a.png")]) == 2
    assert "--figure" in capsys.readouterr().err


def test_ten_thousand_cells_of_few_shapes_are_predicted_in_seconds(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    few = plan(request_of(checkpoint, data, lengths=(64, 128), patches=("none", "rerope")), CPU)
    many = [
        replace(cell, template=replace(cell.template, seed=seed))
        for seed in range(2500)
        for cell in few
    ]
    start = time.process_time()
    lines, _ = survey(many, Stored(tmp_path), (), CPU, 0)
    assert len(lines) == 10_000
    assert time.process_time() - start < 5


def test_the_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    before = memory.available(CPU)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    assert memory.available(CPU) == 600_000 < before
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(CPU) > 1_000_000


def test_a_cell_that_runs_out_of_memory_names_measured_and_predicted_bytes(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr(measure.Engine, "score", fail)
    assert main(command(checkpoint, data, tmp_path)) == 3
    for row in table(tmp_path):
        assert row["status"] == "oom"
        found = re.fullmatch(
            r"ran out at (\S+) GiB, weights and tensors need (\S+) GiB by prediction: .*",
            row["error"],
        )
        assert found is not None, row["error"]
        assert float(found[1]) == pytest.approx(float(row["peak_memory_gib"]), abs=0.1)
        assert 0 <= float(found[2]) < 0.01
