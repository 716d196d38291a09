"""kill -9 at random points, of one process and of several that share a directory."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from harness.cli import main
from harness.journal import Journal, Stored, read_journal
from tests.faults.rig import exit_code, forked, stored_lines
from tests.harness.conftest import command, journals, table
from tests.harness.test_results import record

CELLS, ROUNDS = 100, 6


def share(out: Path, acknowledged: Path) -> int:
    """What `run` does, with cells that take a millisecond; a byte a finished cell."""
    journal = Journal(out)
    file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    todo = [record(number) for number in range(CELLS)]
    while todo:
        left = []
        for one in todo:
            cell = one.rows[0].cell
            if not journal.claim(cell):
                left.append(one)
                continue
            journal.refresh()
            if cell not in journal.records:
                time.sleep(0.001)
                journal.append(one)
                os.write(file, b".")
            journal.release(cell)
        todo = left
    return 0


@pytest.mark.parametrize(("writers", "sweeps"), [(1, 15), (3, 12)])
def test_kills_lose_nothing_and_measure_nothing_twice(
    writers: int, sweeps: int, tmp_path: Path
) -> None:
    draw = random.Random(writers)
    kills = 0
    for sweep in range(sweeps):
        out, acknowledged = tmp_path / f"{sweep}", tmp_path / f"{sweep}.acknowledged"
        for _ in range(ROUNDS):
            children = [forked(partial(share, out, acknowledged)) for _ in range(writers)]
            time.sleep(draw.uniform(0, 0.06))
            for child in children:
                os.kill(child, signal.SIGKILL)
                kills += exit_code(child) == -signal.SIGKILL
            done = acknowledged.read_bytes() if acknowledged.exists() else b""
            stored = Stored(out)
            assert not stored.damage
            assert len(stored.records) >= len(done)
        assert exit_code(forked(partial(share, out, acknowledged))) == 0
        assert len(read_journal(out)) == stored_lines(out) == CELLS
    assert kills >= sweeps * ROUNDS * writers / 3


def test_killed_runs_go_on_to_the_same_numbers(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    grid = ["--len", "64,80,96,112,128", "--patch", "none,truncate"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(checkpoint, data, whole, *grid)) == 0
    arguments = command(checkpoint, data, killed, *grid)
    draw = random.Random(0)
    for _ in range(4):
        children = [forked(lambda: main(arguments)) for _ in range(2)]
        time.sleep(draw.uniform(0, 0.5))
        for child in children:
            os.kill(child, signal.SIGKILL)
            exit_code(child)
    assert main(arguments) == 0
    numbers = [[(row["cell"], row["value"]) for row in table(out)] for out in (whole, killed)]
    assert numbers[0] == numbers[1]
    assert stored_lines(killed) == 10


def test_two_processes_share_the_cells_and_both_end_with_all(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    grid = ["--len", "64,68,72,76,80,84,88,92", "--patch", "none,truncate"]
    arguments = command(checkpoint, data, tmp_path, *grid)
    children = [forked(lambda: main(arguments)) for _ in range(2)]
    assert [exit_code(child) for child in children] == [0, 0]
    assert stored_lines(tmp_path) == len(read_journal(tmp_path)) == 16
    assert len(journals(tmp_path)) == 2
    assert len({row["cell"] for row in table(tmp_path)}) == 16


def test_a_cell_of_a_process_that_is_killed_is_taken_over(tmp_path: Path) -> None:
    cell = record(0).rows[0].cell

    def hold() -> None:
        Journal(tmp_path).claim(cell)
        (tmp_path / "held").touch()
        time.sleep(60)

    child = forked(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.005)
    with Journal(tmp_path) as journal:
        assert not journal.claim(cell)
        assert journal.claim(record(1).rows[0].cell)
        os.kill(child, signal.SIGKILL)
        exit_code(child)
        assert journal.claim(cell)
