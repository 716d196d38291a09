"""What the commands do once their arguments are read; imports torch."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from harness.attention import Reading, read_shares, render_shares, render_shares_csv
from harness.decoding import unbatched
from harness.environment import environment
from harness.journal import Journal
from harness.measure import InProcess
from harness.outputs import TABLE, show, write, write_table
from harness.plan import Request, cuts, plan, resolve_device
from harness.reports.bars import draw_bars
from harness.results import Record, write_atomically
from harness.run import Measurer, run

__all__ = ["Targets", "measure", "show_attention"]

FAILED_CELLS = 3


@dataclass(frozen=True)
class Targets:
    """What a command writes besides journals and results.csv.

    Attributes:
        csv: file of its rows.
        figure: PNG of its cells.
        samples: whether the samples of all cells of the directory go to samples/CELL.jsonl there.
        as_json: whether stdout has JSON instead of tables.
    """

    csv: Path | None = None
    figure: Path | None = None
    samples: bool = False
    as_json: bool = False


def measure(request: Request, out: Path, targets: Targets, measurer: Measurer | None = None) -> int:
    """Run what a request lacks, then print its tables; returns the exit code.

    Args:
        request: what the command line asks for.
        out: directory of the journals and of results.csv.
        targets: what else is written.
        measurer: what runs the cells; this process if None.

    Raises:
        HarnessError: see `plan` and `run`.
    """
    device = resolve_device(request.device)
    with Journal(out, asdict(request) | environment(device)) as journal:
        for path in journal.stored.torn:
            print(f"{path}: an unfinished last line is left out", file=sys.stderr)
        index, parts = request.shard
        cells = plan(request, device)[index - 1 :: parts]
        notes = [*cuts(cells), *unbatched([cell.patch for cell in cells], request.batch)]
        print(f"device: {device}", *notes, sep="\n", file=sys.stderr)
        derive = partial(write_table, journal, targets.samples)
        records = run(cells, journal, device, measurer or InProcess(), request.retry, derive)
        derive()
    if parts > 1:
        print(f"shard {index}/{parts}: {len(records)} cells; report {out} has all", file=sys.stderr)
    show("run", records, as_json=targets.as_json)
    write(records, targets.csv, targets.figure)
    return _count_failed(records, out)


def _count_failed(records: Sequence[Record], out: Path) -> int:
    """Say how many cells failed; the exit code."""
    failed = [record for record in records if record.status != "ok"]
    if failed:
        print(
            f"{len(failed)} of {len(records)} cells failed; see {out / TABLE}; --retry failed "
            "measures them again",
            file=sys.stderr,
        )
    return FAILED_CELLS if failed else 0


def show_attention(reading: Reading, csv: Path | None, figure: Path | None) -> None:
    """Print where the attention goes under each patch, and write it as asked.

    Args:
        reading: what the command line asks for.
        csv: where the rows go, one a patch and layer.
        figure: where the bars go.

    Raises:
        HarnessError: see `read_shares`.
        ResultsError: a file cannot be written.
    """
    tables = read_shares(reading)
    print("\n\n".join(map(render_shares, tables)))
    if csv:
        write_atomically(csv, render_shares_csv(row for rows in tables for row in rows))
    if figure:
        draw_bars(tables, figure)
