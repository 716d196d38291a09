"""Answers of a run as a benchmark's own prediction files. Imports no torch."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import tasks
from harness.answers.recompute import sample_of
from harness.errors import HarnessError, ResultsError
from harness.journal import read_journal
from harness.results import Record, Scores, utf8, write_atomically
from tasks.layouts import Answer, Files, find_layout

__all__ = ["write_predictions"]


def write_predictions(run: Path, name: str, directory: Path) -> None:
    """Write the answers of all cells of one task, and print where they are.

    The files of one cell stand in the directory itself; those of several in a folder a cell, unless
    a file is a whole cell.

    Args:
        run: the --out of a run.
        name: the format, which is the name of its task.
        directory: a new or empty one: whoever scores it takes all of its files.

    Raises:
        TaskError: an unknown format.
        HarnessError: the run has no finished cell of the task.
        ResultsError: no journal, a corrupt one, or the directory is not empty or not writable.
    """
    layout = find_layout(name)
    records = _records(run, name)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ResultsError(
            f"{directory}: not an empty directory; give a new one, since all files in it would "
            "count as predictions"
        )
    for record in records:
        label = _label(record)
        files = layout([_answer(one) for one in record.samples], label)
        is_own = len(records) == 1 or list(files) == [f"{label}.jsonl"]
        folder = directory if is_own else directory / label
        _write(folder, files)
        row = record.rows[0]
        shown = folder / next(iter(files)) if len(files) == 1 else folder
        print(f"{shown}: {sum(map(len, files.values()))} rows of {row.task}, {row.patch}")


def _records(run: Path, name: str) -> Sequence[Record]:
    """The finished cells of a task.

    Raises:
        HarnessError: there is none, or an earlier version stored it.
    """
    records = read_journal(run)
    named = [(tasks.parse(record.rows[0].task).name, record) for record in records]
    chosen = [record for task, record in named if task == name and record.status == "ok"]
    if not chosen:
        there = ", ".join(dict.fromkeys(task for task, _ in named)) or "nothing"
        raise HarnessError(f"{run}: no finished cell of task {name}; it has {there}")
    if any("fields" not in sample for record in chosen for sample in record.samples):
        raise HarnessError(
            f"{run}: stored by an earlier version, without all that the files hold; measure again "
            "with another --out"
        )
    return chosen


def _answer(stored: Scores) -> Answer:
    return Answer(sample_of(stored), stored["text"], stored["tail"], stored["tokens"])


def _label(record: Record) -> str:
    """A file name that says which cell it is."""
    row = record.rows[0]
    text = f"{Path(row.model).name}-{row.context_length}-{row.patch}-{row.cell}"
    return re.sub(r"[^\w.+=-]+", "_", text)


def _write(folder: Path, files: Files) -> None:
    for name, rows in files.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / name, utf8("".join(lines)))
