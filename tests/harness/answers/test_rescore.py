import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main


def write(folder: Path, name: str, *rows: dict[str, object]) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_scores_are_csv_on_stdout_and_the_rest_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path, "qa_1.jsonl", {"pred": "Yes.", "outputs": ["no", "yes"]})
    write(tmp_path, "niah_single_1.jsonl", {"pred": "Yes.", "outputs": ["no", "yes"]})
    write(tmp_path, "result.json", {"qa_1": 1})
    assert main(["rescore", "--format", "ruler", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "dataset,metric,score,n\n"
        "niah_single_1,string_match_all,50.0,1\n"
        "qa_1,string_match_part,100.0,1\n"
    )
    assert captured.err == f"{tmp_path}: left out, no *.jsonl: result.json\n"


def test_a_name_of_a_file_is_no_formula(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    row = {"judge": True, "difficulty": "easy", "length": "short"}
    write(tmp_path, "=1+1.jsonl", row)
    write(tmp_path, os.fsdecode(b"b\xff.jsonl"), row)
    assert main(["rescore", "--format", "longbench-v2", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "'=1+1 overall,accuracy,100.0,1"
    assert lines[3] == "'=1+1 hard,accuracy,nan,0"
    assert lines[7] == "b? overall,accuracy,100.0,1"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--format", "longbnch", "."], 2, "did you mean 'longbench'?"),
        (["."], 2, ".: no journal in it; give the --out of a run, or say with --format"),
        (["--format", "ruler"], 2, "DIR"),
        (["--format", "ruler", "nowhere"], 4, "nowhere: No such file or directory; expected"),
        (["--format", "ruler", "empty"], 4, "empty: no *.jsonl file in it; found: nothing"),
        (["--format", "ruler", "file.jsonl"], 4, "file.jsonl: Not a directory"),
        (["--format", "ruler", "."], 4, "file.jsonl:1: not JSON"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.jsonl").write_text("{")
    assert main(["rescore", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last


def test_rescoring_imports_no_torch(tmp_path: Path) -> None:
    write(tmp_path, "hotpotqa.jsonl", {"pred": "a b", "answers": ["b"], "length": 9})
    code = (
        "import sys\nfrom harness.cli import main\n"
        "code = main(['rescore', '--format', 'longbench', sys.argv[1]])\n"
        "sys.exit(code or [name for name in ('torch', 'numpy') if name in sys.modules] or 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1] == "hotpotqa,qa_f1,100.0,1"
