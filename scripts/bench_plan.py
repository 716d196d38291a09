"""Predicted against measured: peak memory and seconds of the stored cells of a grid.

    python -m harness --model tiny --patch none,rerope --len 8k,16k --n 1 --out DIR
    python scripts/bench_plan.py DIR --out results/bench_plan.csv

The grids are read from the journals of DIR: every finished cell is planned again as if it were not
there, so that its seconds rest on measured rates alone.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

from rows import write_rows

from harness.forecast.dryrun import LIBRARIES, survey
from harness.journal import Stored, open_stored
from harness.memory import GIB, resident
from harness.plan import Request, plan, resolve_device
from harness.results import Record

FIELDS = ("model", "task", "chunk", "length", "patch", "device", "predicted_gib", "measured_gib")
FIELDS += ("ratio_gib", "predicted_s", "measured_s", "ratio_s")


def request(record: Record) -> Request:
    """The grid of one cell."""
    row = record.rows[0]
    return Request(
        models=(row.model,),
        patches=(row.patch,),
        tasks=(row.task,),
        lengths=(row.context_length,),
        data=None,
        n=record.key["n"],
        seed=row.seed,
        dtype=row.dtype,
        device=record.key["device"],
        chunk=row.chunk,
        batch=row.batch,
    )


def compared(directory: Path) -> list[dict[str, Any]]:
    """One row a finished cell that was measured on the default corpus."""
    records = [one for one in open_stored(directory).records.values() if one.status == "ok"]
    base = resident() + LIBRARIES
    cells = []
    for record in records:
        device = resolve_device(record.key["device"])
        (cell,) = plan(request(record), device)
        if cell.key != record.key:
            print(f"left out, of other data or code: {record.key}", file=sys.stderr)
            continue
        cells.append((cell, record.rows[0]))
    lines, _ = survey([cell for cell, _ in cells], Stored(directory / "none"), (), device, base)
    rows = []
    for line, (_, row) in zip(lines, cells, strict=True):
        assert line.peak is not None and line.seconds is not None, line
        setting = (row.model, row.task, row.chunk, row.context_length, row.patch, row.device)
        peak, took = (line.peak / GIB, row.peak_memory_gib), (line.seconds, row.seconds)
        figures = (*peak, peak[0] / peak[1], *took, took[0] / took[1])
        rows.append(dict(zip(FIELDS, (*setting, *(round(one, 3) for one in figures)), strict=True)))
    return sorted(rows, key=lambda row: [str(row[name]) for name in FIELDS[:5]])


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="the --out of runs on the default corpus")
    parser.add_argument("--out", type=Path, help="CSV file")
    options = parser.parse_args()
    rows = compared(options.directory)
    for row in rows:
        print(
            "  ".join(f"{row[name]!s:>{max(6, len(name))}}" for name in FIELDS if name != "device")
        )
    for figure in ("ratio_gib", "ratio_s"):
        ratios = sorted(row[figure] for row in rows)
        print(f"{figure}: {ratios[0]} to {ratios[-1]}, median {median(ratios):.3f}, n {len(rows)}")
    if options.out:
        write_rows(options.out, rows)


if __name__ == "__main__":
    main()
