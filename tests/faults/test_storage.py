"""Journals that are torn, altered, on a full disk, or in a place that cannot be written."""

import errno
import json
import os
import random
import resource
import zlib
from pathlib import Path

import pytest

from harness import measure, worker
from harness.cli import main
from harness.errors import NonFinite, ResultsError
from harness.journal import Journal, Stored, read_journal
from harness.results import FAILED, encode
from tests.faults.rig import exit_code, forked, stored_lines
from tests.harness.conftest import command, journals, table
from tests.harness.test_results import written

FLIPS = 500


def test_a_journal_torn_at_every_byte_of_its_last_lines_keeps_the_others(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(ends[-4] + 1, len(content)):  # the last three
        path.write_bytes(content[:cut])
        stored = Stored(tmp_path)
        whole = sum(end <= cut for end in ends)
        assert len(stored.records) == whole - 1  # the first line describes the run
        assert bool(stored.torn) == (cut not in ends) and not stored.damage


def test_every_flipped_bit_is_seen_and_none_gives_another_number(tmp_path: Path) -> None:
    path = written(tmp_path, 4)
    content = path.read_bytes()
    whole = Stored(tmp_path).records
    draw = random.Random(0)
    places = [draw.randrange(len(content)) for _ in range(FLIPS)] + [len(content) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        stored = Stored(tmp_path)
        assert stored.damage, place
        assert all(whole[cell] == one for cell, one in stored.records.items())
        assert len(stored.records) >= len(whole) - 2  # a lost line end joins two lines
        with pytest.raises(ResultsError) as caught:
            read_journal(tmp_path)
        assert caught.value.exit_code == 6


def test_a_report_shows_what_is_intact_and_a_run_is_refused_before_weights_load(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(checkpoint, data, tmp_path)
    assert main(arguments) == 0
    complete = {(row["cell"], row["metric"]): row["value"] for row in table(tmp_path)}
    (path,) = journals(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[2])
    damaged[lines[2].index(b'"value":') + 9] ^= 1
    path.write_bytes(b"".join([*lines[:2], bytes(damaged), *lines[3:]]))
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 6
    captured = capsys.readouterr()
    assert f"{path}:3: the line does not match its checksum" in captured.err
    assert "nll, lower is better" in captured.out
    left = {(row["cell"], row["metric"]): row["value"] for row in table(tmp_path)}
    assert len(left) == len(complete) - 2 and left.items() <= complete.items()
    assert main([*arguments, "--model", "./nowhere"]) == 6
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))  # as the message says
    assert main(arguments) == 0
    assert {(row["cell"], row["metric"]): row["value"] for row in table(tmp_path)} == complete


def test_a_full_disk_ends_in_6_without_half_a_line_and_goes_on_with_room(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    arguments = command(checkpoint, data, tmp_path)
    assert main(arguments) == 0
    (path,) = journals(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for stored in range(4):
        path.unlink(missing_ok=True)
        room = len(b"".join(lines[: stored + 1])) + 300  # of the next line

        def limited(room: int = room) -> int:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            return main(arguments)

        assert exit_code(forked(limited)) == 6
        assert len(Stored(tmp_path).records) == stored_lines(tmp_path) == stored
        assert not Stored(tmp_path).torn
        for one in journals(tmp_path):
            one.unlink()
    assert main(arguments) == 0
    assert len(read_journal(tmp_path)) == 4


def test_a_full_disk_at_the_table_keeps_the_cells(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = command(checkpoint, data, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert main(arguments) == 6
    assert len(read_journal(tmp_path)) == 1
    assert not list(tmp_path.glob(".results*"))
    assert main(arguments) == 0


@pytest.mark.parametrize("problem", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_directory_that_cannot_be_written_is_refused_before_anything_else(
    problem: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened = os.open

    def refuse(path: str, flags: int, *more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(problem, os.strerror(problem))
        return opened(path, flags, *more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        patched.setattr(worker, "Worker", lambda *_: pytest.fail("not needed"))
        assert main(["--in-process", "--model", "./nowhere", "--out", str(tmp_path / "out")]) == 6
    assert "cannot be written" in capsys.readouterr().err


def test_a_disk_without_room_for_the_first_line_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(os.listdir("/dev/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, line: 0)
        with pytest.raises(ResultsError, match="0 of"):
            Journal(tmp_path)
    assert set(os.listdir("/dev/fd")) == before
    assert not journals(tmp_path)


def test_a_clock_that_jumps_back_hides_no_result(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = command(checkpoint, data, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(measure.Engine, "read", lambda *_: (_ for _ in ()).throw(NonFinite("nll")))
        assert main(arguments) == 3
    (path,) = journals(tmp_path)
    path.rename(path.with_name(f"2099{path.name[4:]}"))  # of a clock that ran ahead
    assert main([*arguments, "--retry", "nan"]) == 0
    assert {row["status"] for row in table(tmp_path)} == {"ok"}
    assert main(arguments) == 0
    assert stored_lines(tmp_path) == 8


def test_rows_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    first, line = path.read_bytes().splitlines()
    body = json.loads(line[9:])
    for row in body["rows"]:  # as they were before these columns
        for name in ("batch", "n_cut", "tokens_per_second", "seconds_per_sample"):
            row.pop(name)
    path.write_bytes(first + b"\n" + encode(body))
    (one,) = read_journal(tmp_path)
    assert one.rows[0].value == 0.1 + 0.2
    assert one.rows[0].batch == 1 and one.rows[0].tokens_per_second is None


@pytest.mark.parametrize("change", [{"schema": 2}, {"rows": [{"unheard": 1}]}])
def test_rows_of_later_versions_are_refused_by_version(
    change: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    text = json.dumps(json.loads(lines[1][9:]) | change).encode()
    path.write_bytes(lines[0] + b"%08x %s\n" % (zlib.crc32(text), text) + lines[2])
    assert main(["report", str(tmp_path)]) == 6
    captured = capsys.readouterr()
    assert (
        f"{path}:2: written by another version ({'schema 2' if 'schema' in change else 'Row'}"
        in (captured.err)
    )
    assert "nll, lower is better" in captured.out  # of the other line


def test_every_status_of_a_failure_can_be_retried() -> None:
    assert set(FAILED) == {"oom", "killed", "timeout", "nan", "error"}
