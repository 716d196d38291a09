"""What a model answered, as a person reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from tests.harness.conftest import command, table


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
        assert "\nreference  " in part and "\nexact_match 0, 1" in part
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
