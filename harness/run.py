"""The loop: claimed cells -> a process that measures -> records in the journal."""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any, Protocol

import torch
from tqdm import tqdm

from harness.errors import one_line
from harness.journal import Journal
from harness.lengths import render_length
from harness.measure import Progress
from harness.plan import Cell
from harness.results import Record
from tasks.base import Sample

__all__ = ["Measurer", "run"]

STOPPING = (signal.SIGINT, signal.SIGTERM)
POLL = 0.3  # seconds between looks at cells that other processes hold


class Measurer(Protocol):
    """What measures a cell: a process of its own, or this one."""

    def measure(self, cell: Cell, device: torch.device, progress: Progress) -> Record:
        """Run a cell; what can go wrong with it becomes the status of its row."""


def run(
    cells: Sequence[Cell],
    journal: Journal,
    device: torch.device,
    measurer: Measurer,
    retry: Collection[str] = (),
    stored: Callable[[], None] = lambda: None,
    wanted: Callable[[Cell], bool] = lambda cell: True,
) -> list[Record]:
    """Measure the cells that no journal of the directory has; return the records of all there are.

    Cells that another process is measuring are left to it and waited for; if it ends before them,
    they are measured here.

    Args:
        cells: what to measure, in order; cells of one model stand together.
        journal: where each record goes as soon as its cell ends.
        device: where the models run.
        measurer: what runs a cell.
        retry: statuses of stored cells that are measured again.
        stored: called after each append.
        wanted: asked before each cell; those that are not are left out.

    Raises:
        Unavailable: a checkpoint is damaged.
        DoesNotFit: the weights need more memory than the device has.
        ResultsError: a record cannot be stored.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the cell under way; at once when sent again.
    """
    missing = [cell for cell in cells if not _done(journal, cell, retry)]
    _remark(cells, missing, journal)
    work = sum(_steps(sample) for cell in missing for sample in cell.samples)
    with tqdm(total=work, unit="pass", file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
        for done, cell in enumerate(_claimed(missing, journal, bar), 1):
            if not wanted(cell):
                bar.total -= sum(map(_steps, cell.samples))
                continue
            bar.set_description(f"[{done}/{len(missing)}] {_label(cell)}")
            with _Patience():
                record = _failed(cell) or measurer.measure(cell, device, _Shown(bar))
                journal.append(record)
                stored()
            _progress(bar, f"[{done}/{len(missing)}]", cell, record)
    names = [cell.template.cell for cell in cells]
    return [journal.records[name] for name in names if name in journal.records]


def _failed(cell: Cell) -> Record | None:
    """What is stored of a cell whose samples cannot be made; None for others."""
    if not cell.fault:
        return None
    row = replace(cell.template, status="error", error=one_line(cell.fault)[:300])
    return Record(cell.key, (row,), ())


def _claimed(cells: Sequence[Cell], journal: Journal, bar: Any) -> Iterator[Cell]:
    """Yield each cell that no other process measures, locked for as long as it is out."""
    before = {cell.template.cell: journal.records.get(cell.template.cell) for cell in cells}
    said = False
    while cells:
        busy = []
        for cell in cells:
            name = cell.template.cell
            if not journal.claim(name):
                busy.append(cell)
                continue
            try:
                journal.refresh()
                if journal.records.get(name) is before[name]:
                    yield cell
                else:
                    bar.update(sum(map(_steps, cell.samples)))
            finally:
                journal.release(name)
        if len(busy) == len(cells):
            if not said:
                _say(bar, f"waiting for {len(busy)} cells that another process measures")
            said = True
            time.sleep(POLL)
        cells = busy


class _Patience:
    """Lets what is under way finish after Ctrl-C or SIGTERM; a second one stops it at once.

    What the process was told to ignore, as behind `nohup`, it ignores.
    """

    def __enter__(self) -> None:
        self._asked = False
        heard = [one for one in STOPPING if signal.getsignal(one) != signal.SIG_IGN]
        self._before = {one: signal.signal(one, self._ask) for one in heard}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)
        if self._asked and error is None:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        note = b"\nfinishing the cell under way; Ctrl-C or SIGTERM again stops at once\n"
        os.write(2, note)  # print may be at work just now


class _Shown:
    """The progress of a cell, on the bar."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def step(self) -> None:
        self._bar.update()

    def say(self, text: str) -> None:
        _say(self._bar, text)


def _done(journal: Journal, cell: Cell, retry: Collection[str] = ()) -> bool:
    record = journal.records.get(cell.template.cell)
    return record is not None and record.status not in retry


def _remark(cells: Sequence[Cell], missing: Sequence[Cell], journal: Journal) -> None:
    """Say how much is taken from the journal, and whether other code measured it."""
    absent = {cell.template.cell for cell in missing}
    names = [cell.template.cell for cell in cells if cell.template.cell not in absent]
    reused = [journal.records[name] for name in names]
    if not reused:
        return
    row = cells[0].template
    others = sum(
        (one.rows[0].code, one.rows[0].versions) != (row.code, row.versions) for one in reused
    )
    note = f", {others} of them measured by other versions of code or libraries" if others else ""
    print(
        f"{len(reused)} of {len(cells)} cells are in {journal.directory}{note}; "
        f"{len(missing)} to run",
        file=sys.stderr,
    )


def _label(cell: Cell) -> str:
    row = cell.template
    return f"{row.model} {row.task} {render_length(row.context_length)} {row.patch}"


def _progress(bar: Any, count: str, cell: Cell, record: Record) -> None:
    """Show what a cell gave: behind the bar, or as a line where there is none."""
    row = record.rows[0]
    if row.status != "ok":
        _say(bar, f"{_label(cell)}: {row.status}: {row.error}")
    whole = next((one for one in record.rows if not one.position), row)
    value = "" if whole.value is None else f"{whole.metric} {whole.value:.4g}"
    bar.set_postfix_str(f"last: {value or row.status}")
    if bar.disable:
        shown = f"{row.status} {value}".rstrip()
        print(f"{count} {_label(cell)} {shown} {row.seconds:.1f} s", file=sys.stderr, flush=True)


def _say(bar: Any, text: str) -> None:
    bar.write(text, file=sys.stderr)


def _steps(sample: Sample) -> int:
    return len(sample.passes) + (sample.max_new_tokens > 0)
