import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from harness.errors import ResultsError
from harness.journal import Journal, read_journal
from harness.results import Record, Row, cell_id, encode, render_csv

ROW = Row(
    model="small",
    patch="none",
    task="ppl",
    context_length=128,
    metric="nll",
    value=0.1 + 0.2,
    ci_low=0.25,
    ci_high=None,
    n=3,
    status="ok",
    seed=0,
    dtype="float32",
    attention="sdpa",
    seconds=1.5,
    peak_memory_gib=0.4,
    position="",
    better="lower",
    weights="0" * 12,
    tokenizer="1" * 12,
    data="pydoc",
    data_digest="2" * 12,
    trained_length=64,
    chunk=None,
    n_scored_tokens=96,
    metric_detail="",
    error="",
    device="cpu",
    versions="",
    code="",
    cell="",
)
REQUIRED = (
    "model,patch,task,context_length,metric,value,ci_low,ci_high,n,status,seed,dtype,attention,"
    "seconds,peak_memory_gib"
)
WRITER = """
import sys
import zlib
from pathlib import Path
from harness.journal import Journal
from tests.harness.test_results import record
with Journal(Path(sys.argv[1])) as journal:
    for number in range(len(journal.records), 10**6):
        journal.append(record(number))
        print(number, flush=True)
"""


def record(number: int) -> Record:
    key = {"patch": f"p{number}", "context_length": number}
    row = dataclasses.replace(ROW, context_length=number, cell=cell_id(key))
    sample = {"id": "a", "document": "a", "text": "é\n", "scores": [["nll", "", [1.5, 3.0]]]}
    return Record(key, (row,), (sample,))


def written(directory: Path, count: int) -> Path:
    with Journal(directory) as journal:
        for number in range(count):
            journal.append(record(number))
    (path,) = (directory / "journal").glob("*.jsonl")
    return path


def test_header_begins_with_the_promised_columns() -> None:
    assert render_csv([]).decode().startswith(REQUIRED + ",position,")


def test_csv_bytes_depend_on_the_rows_alone() -> None:
    rows = [record(number).rows[0] for number in range(20)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert render_csv(rows) == render_csv(shuffled)
    assert b"0.30000000000000004" in render_csv(rows)
    assert b"\r" not in render_csv(rows)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx"])
def test_text_that_looks_like_a_formula_is_quoted(text: str) -> None:
    row = dataclasses.replace(ROW, model=text, value=-1.5)
    content = render_csv([row]).decode()
    assert f"'{text}" in content
    assert ",-1.5," in content


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    written(tmp_path, 3)
    assert read_journal(tmp_path) == [record(number) for number in range(3)]


def test_a_later_record_of_the_same_cell_wins(tmp_path: Path) -> None:
    failed = record(0)
    failed = Record(failed.key, (dataclasses.replace(failed.rows[0], status="oom"),), ())
    with Journal(tmp_path) as journal:
        journal.append(failed)
        journal.append(record(0))
    assert [one.status for one in read_journal(tmp_path)] == ["ok"]


def test_a_failed_record_never_hides_one_that_is_ok(tmp_path: Path) -> None:
    failed = Record(record(0).key, (dataclasses.replace(record(0).rows[0], status="oom"),), ())
    for one in (record(0), failed):  # two journals
        with Journal(tmp_path) as journal:
            journal.append(one)
    assert [one.status for one in read_journal(tmp_path)] == ["ok"]


def test_the_first_line_says_what_was_asked_for_and_an_empty_journal_is_taken_away(
    tmp_path: Path,
) -> None:
    with Journal(tmp_path, {"patches": ["none"]}) as journal:
        assert b'"run":{' in journal.path.read_bytes()
        assert b'"patches":["none"]' in journal.path.read_bytes()
    assert not journal.path.exists()


def test_the_journal_of_a_single_process_stays_readable(tmp_path: Path) -> None:
    lines = [encode(dataclasses.asdict(record(number))) for number in range(2)]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    written(tmp_path, 3)
    assert read_journal(tmp_path) == [record(number) for number in range(3)]


def test_a_line_of_another_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    body = dataclasses.asdict(record(1))
    for wrong in ({**body, "schema": 2}, {**body, "rows": [{**body["rows"][0], "new": 1}]}):
        text = json.dumps({"schema": 1, **wrong}).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + line)
        with pytest.raises(ResultsError, match=r"jsonl:2: written by another version") as caught:
            read_journal(tmp_path)
        assert caught.value.exit_code == 6


def test_a_short_write_is_an_error_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with Journal(tmp_path) as journal:
        journal.append(record(0))
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda file, line: write(file, line[:50]))
            with pytest.raises(ResultsError, match="50 of"):
                journal.append(record(1))
            patched.setattr(os, "write", _no_space)
            with pytest.raises(ResultsError, match="No space"):
                journal.append(record(1))
        journal.append(record(2))
    assert [one.rows[0].context_length for one in read_journal(tmp_path)] == [0, 2]


def _no_space(file: int, line: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_kill_9_loses_no_acknowledged_record(tmp_path: Path) -> None:
    draw = random.Random(0)
    acknowledged = -1
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(draw.randrange(1, 12)):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split("\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        stored = [one.rows[0].context_length for one in read_journal(tmp_path)]
        assert stored == list(range(len(stored)))
        assert len(stored) > acknowledged


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot be written") as caught:
        Journal(tmp_path / place)
    assert caught.value.exit_code == 6
