"""Runs of tasks that read a benchmark's rows."""

import json
from pathlib import Path

import pytest

from harness.cli import main
from tests.harness.conftest import command, table
from tests.tasks.benchmarks import longbench


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, count in (("trec", 3), ("lcc", 2)):
        lines = [json.dumps(longbench(name, index)) + "\n" for index in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
        (folder / f"{name}_e.jsonl").write_text("".join(lines[::-1]))
    return folder


def test_rows_say_their_n_their_data_set_and_their_prompts(
    checkpoint: Path, rows: Path, tmp_path: Path
) -> None:
    (rows / "dataset2prompt.json").write_text(json.dumps({"trec": "{context}", "lcc": "{context}"}))
    tasks = "longbench(subset=trec+lcc),longbench-e(subset=lcc)"
    arguments = command(checkpoint, rows, tmp_path / "out", "--task", tasks, "--n", "7")
    assert main([*arguments, "--len", "128", "--patch", "none"]) == 0
    found = [row for row in table(tmp_path / "out") if row["patch"] == "none"]
    first = [row for row in found if row["task"].startswith("longbench(")]
    scores = [row for row in first if row["metric"] == "longbench"]
    assert {row["position"]: row["n"] for row in scores} == {
        "": "5",
        "en": "5",
        "en flat": "5",
        "en few-shot": "3",
        "trec": "3",
        "zh": "2",
        "zh flat": "2",
        "en code": "2",
        "zh code": "2",
        "lcc": "2",
    }
    other = {row["position"]: row["n"] for row in first if row not in scores}
    assert other == {"": "2", "lcc": "2"}
    assert {row["metric"] for row in first} == {"longbench", "code_sim-levenshtein"}
    for row in found:
        assert "; prompts dataset2prompt.json@" in row["data"] and row["data"].endswith(
            "limits own"
        )
    assert len({row["data_digest"] for row in found}) == 2
    extended = [row for row in found if row["task"].startswith("longbench-e")]
    assert {row["position"] for row in extended} == {
        *("", "0-4k", "4-8k", "flat", "0-4k flat", "4-8k flat"),
        *("lcc", "lcc 0-4k", "lcc 4-8k"),
    }


def test_a_missing_data_set_is_an_error_before_anything_runs(
    checkpoint: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, rows, tmp_path / "out", "--task", "longbench(subset=few-shot)")
    assert main(arguments) == 4
    assert "no triviaqa.jsonl, samsum.jsonl, lsht.jsonl in it" in capsys.readouterr().err


def test_a_row_without_a_reference_fails_the_cells_of_its_task_and_no_others(
    checkpoint: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = json.dumps(longbench("lcc", 1) | {"answers": []}) + "\n"
    with (rows / "lcc.jsonl").open("a") as file:
        file.write(bad)
    tasks = "longbench(subset=lcc),longbench(subset=trec)"
    arguments = command(checkpoint, rows, tmp_path / "out", "--task", tasks, "--n", "3")
    assert main([*arguments, "--len", "128", "--patch", "none,ntk"]) == 3
    assert "sample 'lcc:3'" in capsys.readouterr().err
    found = table(tmp_path / "out")
    failed = [row for row in found if row["status"] == "error"]
    assert [(row["task"], row["patch"]) for row in failed] == [
        ("longbench(subset=lcc)", "none"),
        ("longbench(subset=lcc)", "ntk"),
    ]
    for row in failed:
        where = f"sample 'lcc:3': {rows / 'lcc.jsonl'}:3: field 'answers' is an empty list"
        assert row["error"].startswith(where) and row["value"] == "" and row["n"] == "3"
    assert {row["status"] for row in found if "trec" in row["task"]} == {"ok"}
    fresh = command(checkpoint, rows, tmp_path / "fresh", "--task", tasks, "--n", "3")
    assert main(["plan", *fresh, "--len", "128", "--patch", "none,ntk"]) == 0
    assert "2 refused" in capsys.readouterr().out
    (rows / "lcc.jsonl").write_text(json.dumps(longbench("lcc", 0)) + "\n")  # mended
    assert main([*arguments, "--len", "128", "--patch", "none,ntk"]) == 0
