"""What the commands do once their arguments are read; imports torch."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.attention import Reading, read_shares, render_shares, render_shares_csv
from harness.bars import draw_bars
from harness.decoding import unbatched
from harness.errors import HarnessError
from harness.figure import draw, require_matplotlib
from harness.journal import Journal, open_stored
from harness.measure import InProcess
from harness.plan import Request, cuts, environment, plan, resolve_device
from harness.report import render_tables
from harness.results import Record, render_csv, rows_of, write_atomically
from harness.run import Measurer, run
from harness.saved import save_samples

__all__ = ["Targets", "measure", "report", "show_attention"]

FAILED_CELLS = 3
TABLE = "results.csv"


@dataclass(frozen=True)
class Targets:
    """What a command writes besides journals and results.csv.

    Attributes:
        csv: file of its rows.
        figure: PNG of its cells.
        samples: whether the samples of all cells of the directory go to samples/CELL.jsonl there.
    """

    csv: Path | None = None
    figure: Path | None = None
    samples: bool = False


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

        def write_table() -> None:
            with journal.table_lock():
                stored = list(journal.records.values())
                write_atomically(out / TABLE, render_csv(rows_of(stored)))
                if targets.samples:
                    save_samples(out, stored)

        records = run(cells, journal, device, measurer or InProcess(), request.retry, write_table)
        write_table()
    if parts > 1:
        print(f"shard {index}/{parts}: {len(records)} cells; report {out} has all", file=sys.stderr)
    _outputs(records, (), targets.csv, targets.figure)
    failed = [record for record in records if record.status != "ok"]
    if failed:
        print(
            f"{len(failed)} of {len(records)} cells failed; see {out / TABLE}; --retry failed "
            "measures them again",
            file=sys.stderr,
        )
    return FAILED_CELLS if failed else 0


def report(
    directory: Path,
    metrics: Sequence[str],
    csv: Path | None,
    figure: Path | None,
    threshold: float | None = None,
) -> None:
    """Derive table, CSV and figure again from the journals of a directory.

    Damaged lines are left out of them, and reported at the end.

    Args:
        directory: the --out of a run.
        metrics: metrics whose differences to the baselines are shown besides the first.
        csv: where the rows go; results.csv of the directory if None.
        figure: where the PNG goes; figure.png of the directory if None and matplotlib is there.
        threshold: value of the first metric that a length must reach to count as usable.

    Raises:
        ResultsError: no journal there, a damaged one, or a file cannot be written.
        HarnessError: a figure was asked for and matplotlib is missing.
    """
    stored = open_stored(directory)
    if figure is None:
        try:
            require_matplotlib()
            figure = directory / "figure.png"
        except HarnessError as error:
            print(f"no figure: {error}", file=sys.stderr)
    records = list(stored.records.values())
    _outputs(records, metrics, csv or directory / TABLE, figure, threshold)
    stored.check()


def show_attention(reading: Reading, csv: Path | None, figure: Path | None) -> None:
    """Print where the attention goes under each patch, and write it as asked.

    Args:
        reading: what the command line asks for.
        csv: where the rows go, one a patch and layer.
        figure: where the bars go as PNG.

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


def _outputs(
    records: Sequence[Record],
    metrics: Sequence[str],
    csv: Path | None,
    figure: Path | None,
    threshold: float | None = None,
) -> None:
    print(render_tables(records, metrics, threshold))
    if csv:
        write_atomically(csv, render_csv(rows_of(records)))
    if figure:
        draw(records, figure)
