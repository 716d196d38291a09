import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ResultsError
from harness.results import Journal, Record, Row, cell_id, read_journal, render_csv

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
from pathlib import Path
from harness.results import Journal
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
    return directory / "journal.jsonl"


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


def test_a_line_torn_at_any_byte_is_dropped_and_the_next_append_is_valid(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    content = path.read_bytes()
    start = content.rfind(b"\n", 0, -1) + 1
    for cut in range(start + 1, len(content), 7):
        path.write_bytes(content[:cut])
        assert len(read_journal(tmp_path)) == 2
        with Journal(tmp_path) as journal:
            assert (len(journal.records), journal.torn) == (2, cut - start)
            journal.append(record(9))
        assert [one.rows[0].context_length for one in read_journal(tmp_path)] == [0, 1, 9]


def test_a_flipped_bit_never_gives_a_wrong_number(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    content = path.read_bytes()
    whole = read_journal(tmp_path)
    draw = random.Random(0)
    for _ in range(300):
        place = draw.randrange(len(content) - 1)
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ResultsError, match="checksum") as caught:
            read_journal(tmp_path)
        assert caught.value.exit_code == 6
    path.write_bytes(content[:-1] + b"\x0b")  # the last line end: that line counts as torn
    assert read_journal(tmp_path) == whole[:2]


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
