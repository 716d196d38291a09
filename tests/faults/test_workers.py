"""Cells that go wrong in the process that measures them."""

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import worker
from harness.cli import main
from harness.journal import Journal, read_journal
from tests.faults import rig
from tests.harness.conftest import command, journals, table
from tests.harness.test_results import record

MORTAL, KILLS = 200, 120  # cells, and workers that are killed at one at least
FAULTS = {
    rig.SEGFAULT: ("killed", "its process was ended by SIGSEGV"),
    rig.HANG: ("timeout", "not done after --cell-timeout 2"),
    rig.KILL: ("killed", "its process was ended by SIGKILL, as when memory runs out"),
    rig.NAN: ("nan", "nll is nan at position 3"),
    rig.RAISE: ("error", "RuntimeError: shapes differ"),
    rig.OOM: ("oom", "can't allocate memory"),
}


def grid(checkpoint: Path, data: Path, out: Path, lengths: list[int], *more: str) -> list[str]:
    arguments = command(checkpoint, data, out, "--len", ",".join(map(str, lengths)), *more)
    arguments.remove("--in-process")
    return [*arguments, "--patch", "none"]


def test_each_fault_is_a_row_and_the_sweep_goes_on(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [64, *FAULTS, 96]
    arguments = grid(checkpoint, data, tmp_path, lengths)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "serve", rig.serve)
        start = time.monotonic()
        assert main([*arguments, "--cell-timeout", "2"]) == 3
        assert time.monotonic() - start < 60
    rows = {int(row["context_length"]): row for row in table(tmp_path) if row["metric"] != "ppl"}
    assert [rows[length]["status"] for length in (64, 96)] == ["ok", "ok"]
    for length, (status, reason) in FAULTS.items():
        assert rows[length]["status"] == status
        assert reason in rows[length]["error"]
        assert rows[length]["value"] == ""
    assert 1.5 < float(rows[rig.HANG]["seconds"]) < 7
    assert main([*arguments, "--retry", "timeout,killed"]) == 3
    statuses = {one.rows[0].context_length: one.status for one in read_journal(tmp_path)}
    assert [length for length, status in statuses.items() if status != "ok"] == [
        rig.NAN,
        rig.RAISE,
        rig.OOM,
    ]


def test_killed_workers_leave_each_cell_once(tmp_path: Path) -> None:
    todo = [record(number) for number in range(MORTAL)]
    killed = 0
    with worker.Worker(target=rig.serve_mortally) as mortal, Journal(tmp_path) as journal:
        while todo:
            one = todo.pop(0)
            cell = SimpleNamespace(checkpoint=None, patch="none", task=None, samples=())
            cell.template, cell.key = one.rows[0], one.key
            found = mortal.measure(cell, torch.device("cpu"), None)  # type: ignore[arg-type]
            assert found.status in ("ok", "killed")
            journal.append(found)
            if found.status == "killed":  # as --retry killed
                killed += 1
                todo.append(one)
    assert killed >= KILLS
    stored = read_journal(tmp_path)
    assert sorted(one.rows[0].context_length for one in stored) == [*range(MORTAL)]
    assert {one.status for one in stored} == {"ok"}
    assert rig.stored_lines(tmp_path) == MORTAL + killed


def test_weights_that_never_arrive_are_a_row(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "serve", rig.serve_slowly)
    monkeypatch.setattr(worker, "LOADING", 1.0)
    assert main([*grid(checkpoint, data, tmp_path, [64, 96]), "--cell-timeout", "600"]) == 3
    rows = table(tmp_path)
    assert [(row["status"], row["error"]) for row in rows] == [
        ("timeout", "its model was not loaded after 1 s")
    ] * 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_killed_cell_says_what_memory_it_had(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "serve", rig.serve)
    assert main(grid(checkpoint, data, tmp_path, [64, rig.GROW])) == 3
    peaks = {row["status"]: float(row["peak_memory_gib"]) for row in table(tmp_path)}
    assert peaks["killed"] == pytest.approx(peaks["ok"] + rig.GROWTH / 2**30, abs=0.1)


def test_a_process_of_its_own_gives_the_same_numbers(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    tasks = ["--task", "ppl,continuation(new=8)", "--patch", "none,rerope(window=16)+logn"]
    for name, more in (("here", ["--in-process"]), ("there", [])):
        arguments = grid(checkpoint, data, tmp_path / name, [64, 128], *more)
        assert main([*arguments, *tasks]) == 0
    here, there = (
        [(row["cell"], row["value"], row["ci_low"]) for row in table(tmp_path / name)]
        for name in ("here", "there")
    )
    assert here == there and len(here) > 8


@pytest.mark.parametrize(
    ("length", "stored"),
    [
        (rig.CTRL_C, 2),
        (rig.CTRL_C_TWICE, 1),
        (rig.TERM, 2),
        (rig.TERM_TWICE, 1),
        (rig.TERM_ALL, 2),  # as job schedulers send it: to every process
    ],
)
def test_a_signal_finishes_the_cell_under_way_and_a_second_stops_at_once(
    length: int,
    stored: int,
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(worker, "serve", rig.serve)
    assert main(grid(checkpoint, data, tmp_path, [64, length, 96], "--n", "1")) == 130
    assert [one.status for one in read_journal(tmp_path)] == ["ok"] * stored
    assert "finishing the cell under way" in capfd.readouterr().err


def test_a_damaged_checkpoint_ends_the_run_as_it_does_without_a_process(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in checkpoint.iterdir():
        content = file.read_bytes()
        (damaged / file.name).write_bytes(content[:-9] if "safetensors" in file.name else content)
    assert main(grid(damaged, data, tmp_path / "out", [64])) == 4
    assert "cannot be loaded" in capsys.readouterr().err


CODE = """
import sys
from harness import cli, worker
from tests.faults import rig
worker.serve = rig.serve
sys.exit(cli.main(sys.argv[1:]))
"""


def is_alive(process: int) -> bool:
    """Whether a process is there and no zombie, which waits for whoever adopted it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def left_alive(processes: set[int]) -> set[int]:
    """Those of some processes that do not end within a minute."""
    until = time.monotonic() + 60
    while any(map(is_alive, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    return set(filter(is_alive, processes))


def wait_for_a_cell(out: Path, process: int) -> set[int]:
    """Wait until the first of several cells is stored; the processes below that measure."""
    while not any(b',"rows":[' in path.read_bytes() for path in journals(out)):
        assert is_alive(process)
        time.sleep(0.01)
    time.sleep(0.5)  # the second cell is under way
    below = rig.descendants(process)
    assert len(below) >= 2  # the server and its process
    return below


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("keys", "code", "stored"),
    [(b"\x03", 130, 2), (b"\x03\x03", 130, 1), (b"", -signal.SIGHUP, 1)],
    ids=["Ctrl-C", "Ctrl-C twice", "terminal closed"],
)
def test_a_terminal_stops_a_run_that_goes_on_later(
    keys: bytes, code: int, stored: int, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = grid(checkpoint, data, out, [64, rig.SLOW, 96])
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, "-c", CODE, *arguments])
    below = wait_for_a_cell(out, process)
    for key in keys:
        os.write(terminal, bytes([key]))
        time.sleep(0.3)
    seen = b""
    if keys:
        with suppress(OSError):  # the other end is closed
            while part := os.read(terminal, 65536):
                seen += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code
    assert (b"the same command goes on where it stopped" in seen) == bool(keys)
    assert b"Traceback" not in seen
    assert not left_alive(below)
    assert len(read_journal(out)) == stored
    assert main([*arguments, "--in-process"]) == 0
    assert rig.stored_lines(out) == 3


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_command_leaves_no_process_behind(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *grid(checkpoint, data, tmp_path, [64, rig.HANG])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    below = wait_for_a_cell(tmp_path, process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not left_alive(below)
    assert read_journal(tmp_path)
