"""What finished cells say: tables or JSON on stdout, CSV and figure. Imports no torch."""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.answers.saved import save_samples
from harness.errors import HarnessError
from harness.journal import Journal, open_stored
from harness.reports.as_json import of_records, print_json
from harness.reports.figure import draw, require_matplotlib
from harness.reports.report import render_tables
from harness.results import Record, render_csv, rows_of, write_atomically
from harness.terminal import show_text

__all__ = ["TABLE", "report", "show", "write", "write_table"]

TABLE = "results.csv"


def report(
    directory: Path,
    metrics: Sequence[str],
    csv: Path | None,
    figure: Path | None,
    threshold: float | None = None,
    as_json: bool = False,
) -> None:
    """Derive table, CSV and figure again from the journals of a directory.

    Damaged lines are left out of them, and reported at the end.

    Args:
        directory: the --out of a run.
        metrics: metrics whose differences to the baselines are shown besides the first.
        csv: where the rows go; results.csv of the directory if None.
        figure: where the figure goes; figure.png of the directory if None and matplotlib is there.
        threshold: value of the first metric that a length must reach to count as usable.
        as_json: print JSON instead of tables.

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
    show("report", records, metrics, threshold, as_json)
    write(records, csv or directory / TABLE, figure)
    stored.check()


def show(
    command: str,
    records: Sequence[Record],
    metrics: Sequence[str] = (),
    threshold: float | None = None,
    as_json: bool = False,
) -> None:
    """Print the cells that a command has as tables or as JSON."""
    if as_json:
        print_json(command, of_records(records))
    else:
        show_text(render_tables(records, metrics, threshold))


def write(records: Sequence[Record], csv: Path | None, figure: Path | None) -> None:
    """Write cells as CSV and draw them, where asked for.

    Raises:
        ResultsError: a file cannot be written.
    """
    if csv:
        write_atomically(csv, render_csv(rows_of(records)))
    if figure:
        draw(records, figure)


def write_table(journal: Journal, with_samples: bool = False) -> None:
    """Derive results.csv of a run directory, and samples/ if asked, from all its journals hold.

    Raises:
        ResultsError: a journal cannot be read, or the file not written.
    """
    with journal.table_lock():
        records = list(journal.records.values())
        write_atomically(journal.directory / TABLE, render_csv(rows_of(records)))
        if with_samples:
            save_samples(journal.directory, records)
