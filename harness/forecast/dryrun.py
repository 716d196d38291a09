"""What a run would do: every cell with its predicted time and peak memory, and whether it fits."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import torch

from harness.errors import OF_MODELS, HarnessError
from harness.forecast.predict import Forecast, Predictor
from harness.forecast.rates import Rates, measure_rates
from harness.journal import Stored
from harness.lengths import render_length
from harness.memory import GIB, available, resident
from harness.plan import Cell, Request, cuts, plan, resolve_device
from harness.reports.as_json import print_json
from harness.results import Record, Row, utf8, write_atomically
from harness.terminal import show_text
from patches import PatchError

__all__ = ["Line", "Timing", "print_plan", "survey"]

WIDTH, LONGEST_NAME = 100, 40
LONG_ENOUGH = 1.0  # seconds of a stored cell that tell more than what each cell begins with
LIBRARIES = 44 << 20  # resident pages of torch's code in a process that measures on CPU
HEADER = (
    *("model", "task", "context_length", "patch", "state", "seconds", "peak_memory_gib"),
    *("measured_seconds", "measured_peak_memory_gib"),
    *("note", "dtype", "chunk", "batch", "device", "cell"),
)


@dataclass
class Line:
    """One cell of the plan.

    Attributes:
        row: its settings.
        state: cached, `failed before`, `will run`, `does not fit` or refused.
        peak: predicted bytes; None where it cannot be predicted.
        seconds: predicted; None likewise.
        stored: what the journals have of it.
        note: why there is no prediction.
    """

    row: Row
    state: str
    peak: int | None = None
    seconds: float | None = None
    stored: Record | None = None
    note: str = ""


@dataclass(frozen=True)
class Timing:
    """Where the seconds of a model come from: measured rates times what stored cells took."""

    rates: Rates
    factor: float = 1.0
    cells: int = 0

    def __str__(self) -> str:
        """Where from, and the rates, on two lines."""
        if not self.cells:
            source = "no stored cell of this grid to go by; rates as measured just now"
        else:
            source = (
                f"stored cells of this grid ({self.cells}) took {self.factor:.2f} times what rates "
                "say"
            )
        return f"{source}\n    rates: {self.rates}"


def print_plan(
    request: Request, out: Path, table: Path | None = None, as_json: bool = False
) -> int:
    """Print what a run of a request would do; nothing is written but `table`.

    Raises:
        HarnessError: see `plan`.
        ResultsError: the journals are corrupt, or the table cannot be written.
    """
    device = resolve_device(request.device)
    base = resident() + LIBRARIES if device.type == "cpu" else 0
    stored = Stored(out)
    stored.check()
    index, parts = request.shard
    cells = plan(request, device)[index - 1 :: parts]
    print(f"device: {device}", *cuts(cells), sep="\n", file=sys.stderr)
    lines, timings = survey(cells, stored, request.retry, device, base)
    if as_json:
        body = {"timings": timings, "available_gib": round(available(device) / GIB, 3)}
        print_json("plan", {**body, "cells": _entries(lines)})
    else:
        show_text(render(lines, timings, device, base))
    if table:
        write_atomically(table, _csv(_entries(lines)))
    return 0


def survey(
    cells: Sequence[Cell],
    stored: Stored,
    retry: Sequence[str],
    device: torch.device,
    base: int,
) -> tuple[list[Line], dict[str, str]]:
    """Predict all cells; a line a cell, and where the seconds of each model come from.

    Args:
        cells: of the grid.
        stored: what the journals hold.
        retry: statuses that are run again.
        device: where they would run.
        base: resident bytes of a process on CPU before it loads a model.
    """
    predictor, room = Predictor(), available(device)
    lines: list[Line] = []
    work: list[tuple[Line, Cell, Forecast]] = []
    for cell in cells:
        record = stored.records.get(cell.template.cell)
        line = Line(cell.template, _state(record, retry), stored=record)
        lines.append(line)
        try:
            found = predictor.forecast(cell)
        except (PatchError, HarnessError) as error:
            line.note = str(error)
            line.state = "refused" if line.state == "will run" else line.state
            continue
        except OF_MODELS as error:  # most often as the model's code asks for values
            line.note = f"not predicted: {error}"
            continue
        line.peak = base + (found.resident if device.type == "cpu" else found.tensors)
        if line.state == "will run" and line.peak > room:
            line.state = "does not fit"
        work.append((line, cell, found))
    timings: dict[str, str] = {}
    for model, group in groupby(work, lambda one: one[0].row.model):
        try:
            timings[model] = str(_time(list(group), device))
        except OF_MODELS as error:
            timings[model] = f"not known, {error}"
    return lines, timings


def _state(record: Record | None, retry: Sequence[str]) -> str:
    if record is None or record.status in retry:
        return "will run"
    return "cached" if record.status == "ok" else "failed before"


def _time(work: Sequence[tuple[Line, Cell, Forecast]], device: torch.device) -> Timing:
    """Fill in the seconds of the cells of one model."""
    cell = work[0][1]
    rates = measure_rates(cell.checkpoint.config, getattr(torch, cell.template.dtype), device)
    raw = {id(found): rates.seconds(found.work) for _, _, found in work}
    known = [
        (line.stored.rows[0].seconds, raw[id(found)])
        for line, _, found in work
        if line.stored is not None and line.stored.status == "ok"
        if line.stored.rows[0].device == line.row.device
    ]
    known = [one for one in known if one[0] >= LONG_ENOUGH]
    factor = median(took / said for took, said in known) if known else 1.0
    for line, _, found in work:
        line.seconds = factor * raw[id(found)]
    return Timing(rates, factor, len(known))


def render(lines: Sequence[Line], timings: dict[str, str], device: torch.device, base: int) -> str:
    """Hours first, then how they were found, then a line a cell."""
    states = Counter(line.state for line in lines)
    seconds = sum(line.seconds or 0.0 for line in lines if line.state == "will run")
    unknown = sum(line.state == "will run" and line.seconds is None for line in lines)
    parts = [f"{states[state]} {state.replace('does', 'do')}" for state in STATES if states[state]]
    kind = "resident" if device.type == "cpu" else "allocated"
    head = [f"{seconds / 3600:.2f} hours for {len(lines)} cells: {', '.join(parts)}"]
    head += [f"{unknown} cells that will run could not be predicted"] if unknown else []
    if states["failed before"]:
        head.append("cells that failed before are run again with --retry failed alone")
    for model, timing in timings.items():
        head.append(f"time of {_short(model)}: {timing}")
    of_process = f", {base / GIB:.2f} of them the process without a model" if base else ""
    head.append(f"peak: GiB {kind}{of_process}; {available(device) / GIB:.1f} GiB are available")
    return "\n".join([*head, *_tables(lines)])


STATES = ("will run", "cached", "does not fit", "failed before", "refused")


def _tables(lines: Sequence[Line]) -> Iterator[str]:
    def setting(line: Line) -> str:
        row = line.row
        more = [f"chunk {render_length(row.chunk)}"] if row.chunk else []
        more += [f"batch {row.batch}"] if row.batch > 1 else []
        return "  ".join([_short(row.model), row.task, row.dtype, *more])

    for title, group in groupby(lines, setting):
        yield f"\n{title}"
        yield f"{'length':>8} {'seconds':>10} {'peak GiB':>9}  {'state':13}  patch"
        for line in group:
            note = f"  {line.note}" if line.note else ""
            seconds, peak = _seconds_and_peak(line)
            shown = (
                f"{render_length(line.row.context_length):>8} {_number(seconds, 1):>10} "
                f"{_number(peak, 2):>9}  {line.state:13}  "
                f"{line.row.patch}{note}"
            )
            yield shown if len(shown) <= WIDTH else shown[: WIDTH - 3] + "..."


def _seconds_and_peak(line: Line) -> tuple[float | None, float | None]:
    """What a stored cell took, what another will take; the peak in GiB."""
    if line.state == "cached" and line.stored is not None:
        return line.stored.rows[0].seconds, line.stored.rows[0].peak_memory_gib
    return line.seconds, None if line.peak is None else line.peak / GIB


def _short(model: str) -> str:
    """A model's name, the end of its path if that is long."""
    return model if len(model) <= LONGEST_NAME else Path(model).name[-LONGEST_NAME:]


def _number(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _entries(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """What is known of each cell, by the names of HEADER; None where nothing is."""
    entries = []
    for line in lines:
        row, stored = line.row, line.stored.rows[0] if line.stored else None
        took = (stored.seconds, stored.peak_memory_gib) if stored else (None, None)
        seconds = None if line.seconds is None else round(line.seconds, 3)
        peak = None if line.peak is None else round(line.peak / GIB, 3)
        setting = (row.model, row.task, row.context_length, row.patch)
        rest = (line.note, row.dtype, row.chunk, row.batch, row.device, row.cell)
        values = (*setting, line.state, seconds, peak, *took, *rest)
        entries.append(dict(zip(HEADER, values, strict=True)))
    return entries


def _csv(entries: Iterable[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, HEADER, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return utf8(out.getvalue())
