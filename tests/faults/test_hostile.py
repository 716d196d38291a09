"""Models, data and stored runs that were made to do harm."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from harness import rendering
from harness.cli import main
from harness.journal import read_journal
from harness.results import Record, cell_id, encode
from tests.faults.rig import descendants
from tests.harness.conftest import command, make_tokenizer, table
from tests.harness.reports.test_compare import run
from tests.harness.test_results import ROW, record

NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ONE_OPERATION = "{{ 7 ** (7 ** 12) }}"  # which no signal stops


@pytest.mark.parametrize("template", [NESTED, ONE_OPERATION])
def test_a_chat_template_without_end_is_stopped(
    template: str,
    own_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = own_checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    harmless = make_tokenizer()
    harmless.chat_template = "{{ messages[0]['content'] }}"
    assert rendering.render(harmless, [{"role": "user", "content": "a"}]) == "a"  # it runs now
    monkeypatch.setattr(rendering, "SECONDS", 1.0)
    before, start = descendants(os.getpid()), time.monotonic()
    arguments = ["--model", str(own_checkpoint), "--out", str(tmp_path / "out"), "--len", "2k"]
    assert main([*arguments, "--task", "ruler(tasks=vt,chat=on)", "--in-process"]) == 2
    assert time.monotonic() - start < 60
    assert "chat template is not done after 1 s; leave chat=on out" in capsys.readouterr().err
    assert not descendants(os.getpid()) - before


DEEP, HUGE = "[" * 100_000, "1" * 5000  # more brackets, and more digits, than Python reads
BOMBS = {
    "d.jsonl": f'{{"text": {DEEP}\n',
    "d.json": f'{{"text": "a", "id": {HUGE}}}',
    "qasper.jsonl": f'{{"input": {DEEP}\n',
    "dataset2prompt.json": DEEP,
    "squad.json": DEEP,
    "hotpotqa.json": DEEP,
    "ruler/templates.json": DEEP,
}
ASKED = {
    "qasper.jsonl": "longbench(subset=qasper)",
    "dataset2prompt.json": "longbench(subset=qasper)",
    "squad.json": "ruler(tasks=qa_1)",
    "hotpotqa.json": "ruler(tasks=qa_2)",
    "ruler/templates.json": "ruler(tasks=vt)",
}
LONGBENCH = {"input": "", "context": "c", "answers": ["a"], "length": 1, "all_classes": None}
LONGBENCH |= {"dataset": "qasper", "language": "en", "_id": "0"}


@pytest.mark.parametrize("name", BOMBS)
def test_json_that_cannot_be_read_is_a_line_that_names_it(
    name: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "ruler").mkdir(parents=True)
    if name != "qasper.jsonl" and "longbench" in ASKED.get(name, ""):
        (data / "qasper.jsonl").write_text(json.dumps(LONGBENCH))
    elif name in ASKED:
        (data / "a.txt").write_text("A sentence of a text. " * 500)
    (data / name).write_text(BOMBS[name])
    arguments = ["--model", str(checkpoint), "--data", str(data), "--len", "1k", "--n", "1"]
    more = ["--task", ASKED.get(name, "ppl"), "--out", str(tmp_path / "out"), "--in-process"]
    assert main([*arguments, *more]) in (2, 4)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert Path(name).stem in error


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", [DEEP, "[]", "null", '{"model_type": []}', f'{{"a": {HUGE}}}'])
def test_a_checkpoint_of_other_json_is_one_line(
    file: str, text: str, own_checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (own_checkpoint / file).write_text(text)
    out = tmp_path / "out"
    code = main(["--model", str(own_checkpoint), "--out", str(out), "--len", "1k", "--in-process"])
    if (file, text) == ("tokenizer_config.json", '{"model_type": []}'):
        assert code == 0  # says nothing that is needed
        return
    assert code == 4
    assert capsys.readouterr().err.startswith(f"error: --model {own_checkpoint}: ")


FORGED = {
    "no object": b"[]",
    "another object": b'{"schema": 1}',
    "no JSON": b"nonsense",
    "deep": b'{"schema": 1, "run": ' + DEEP.encode(),
    "huge": b'{"schema": 1, "key": ' + HUGE.encode() + b"}",
    "no rows": b'{"schema": 1, "key": {}, "rows": [], "samples": []}',
}


def forged(directory: Path, text: bytes) -> Path:
    """A journal of one line whose checksum is right."""
    path = directory / "journal" / "forged.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    return directory


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_line_of_a_journal_is_corruption(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(forged(tmp_path, FORGED[kind]))]) == 6
    assert "forged.jsonl:1: written by another version" in capsys.readouterr().err


def test_a_cell_names_no_file_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = record(0)
    row = dataclasses.replace(one.rows[0], cell="../../outside", task="passkey")
    text = encode(dataclasses.asdict(dataclasses.replace(one, rows=(row,))))
    forged(tmp_path / "a" / "run", text[9:-1])
    assert main(["report", str(tmp_path / "a" / "run")]) == 6
    assert "another version (cell ../../outside;" in capsys.readouterr().err
    assert not [*tmp_path.rglob("outside*")]


STEERING = "\x1b]0;title\x07\x1b[2J\x9b31m\u202etxet\r\x08\u2066$\\frac$"


def test_nothing_that_is_stored_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = {"patch": STEERING, "model": STEERING, "task": "ppl", "context_length": 128}
    row = dataclasses.replace(ROW, cell=cell_id(key), patch=STEERING, model=STEERING, data=STEERING)
    bad = dataclasses.replace(row, status="error", value=None, metric="", error=STEERING)
    sample = {"id": STEERING, "document": "0", "tail": STEERING, "text": STEERING}
    sample |= {"references": [STEERING], "scores": [["nll", "", [1.0, 1.0]]]}
    ok = Record(key, (row,), (sample,))
    for name, one in (("a", ok), ("b", ok), ("c", Record(key, (bad,), ()))):
        run(tmp_path / name, one)
    where = [str(tmp_path / name) for name in "abc"]
    commands = [["report", where[0]], ["report", where[2]], ["compare", *where[:2]]]
    commands += [["show", where[0]], ["show", where[2]], ["show", f"{where[0]}/{row.cell}"]]
    for words in [*commands, ["compare", where[0], where[2], "--json"]]:
        assert main(words) == 0
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            assert "title" in text or not text.strip() or "figure" in text
            assert all(one == "\n" or one.isprintable() for one in text), words


def test_half_a_surrogate_pair_in_a_row_is_refused_before_anything_runs(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, changes in (("answer", {"answers": ["\ud800"]}), ("context", {"context": "\udfff"})):
        data = tmp_path / name
        data.mkdir()
        (data / "qasper.jsonl").write_text(json.dumps(LONGBENCH | changes))
        arguments = ["--model", str(checkpoint), "--data", str(data), "--len", "1k", "--n", "1"]
        more = ["--task", "longbench(subset=qasper)", "--out", str(tmp_path / "out")]
        assert main([*arguments, *more, "--in-process"]) == 4
        assert "qasper.jsonl:1: not read (half a surrogate pair" in capsys.readouterr().err


def test_names_that_are_no_unicode_are_stored_and_given_back(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / os.fsdecode(b"\xff data")
    data.mkdir()
    (data / os.fsdecode(b"\xfe.txt")).write_text("Some text of a document. " * 40)
    arguments = command(checkpoint, data, tmp_path / "out", "--n", "1", "--save-samples")
    assert main([*arguments, "--task", "continuation(new=8)"]) == 0
    (one, *_) = read_journal(tmp_path / "out")
    assert os.fsencode(one.samples[0]["document"]) == b"\xfe.txt"
    assert one.rows[0].data == str(data)
    sample, *_ = [path.read_text() for path in (tmp_path / "out" / "samples").iterdir()]
    assert json.loads(sample)["document"] == os.fsdecode(b"\xfe.txt")
    assert main([*arguments, "--task", "continuation(new=8)"]) == 0
    assert "4 of 4 cells are in" in capsys.readouterr().err


def test_any_locale_and_path_will_do(checkpoint: Path, tmp_path: Path) -> None:
    place = tmp_path / ("x" * 100) / "dätä 模型"
    place /= "y" * (249 - len(os.fsencode(place)))
    assert len(os.fsencode(place)) == 250
    shutil.copytree(checkpoint, place / "m")
    (place / "t.txt").write_text("Ein Text, ein Gerät, ein 模型. " * 40, encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run_it = ["run", *command(place / "m", place / "t.txt", place / "out", "--n", "1")]
    show_it = ["report", str(place / "out"), "--csv", str(place / "again.csv")]
    for words, locale in ((run_it, {"LC_ALL": "C"}), (show_it, ascii_only)):
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words],
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **locale},
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        assert b"Warning" not in done.stderr
    assert len(table(place / "out")) == 8
    assert (place / "again.csv").read_bytes() == (place / "out" / "results.csv").read_bytes()
