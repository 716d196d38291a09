"""The command `rescore`: metrics again, of stored answers or of prediction files, as CSV.

Imports no torch.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, Unavailable, one_line
from harness.journal import Stored
from harness.options import Parser
from harness.results import csv_cell
from tasks import TaskError
from tasks.formats import FORMATS, Result, find_format, rescore

__all__ = ["main"]

DIFFERS = 1


def main(argv: Sequence[str]) -> int:
    """Print the scores; returns 1 if one differs from what is stored.

    Raises:
        HarnessError: a mistake in the arguments, or nothing to score.
        TaskError: an unknown format.
        Unavailable: no such directory, no file of the format in it, or one that cannot be read.
        ResultsError: a journal that cannot be read.
    """
    parser = Parser(
        prog="python -m harness rescore",
        description="Compute metrics again from the answers of a run, or score prediction files as "
        "their benchmark does. Needs no model. Prints CSV.",
        epilog="formats:\n"
        + "\n".join(f"  {name:12}  {one.summary}" for name, one in FORMATS.items())
        + "\n\nexit codes: 0; 1 a value of the run is not what its journal holds; 2 usage; 4 no "
        "such files; 6 a\njournal that cannot be read or is corrupt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = "the --out of a run; with --format, prediction files"
    parser.add_argument("directory", type=Path, metavar="DIR", help=what)
    parser.add_argument("--format", help=f"{', '.join(FORMATS)}: score files, one a data set")
    options = parser.parse_args(argv)
    if options.format is None:
        return _rescore_run(options.directory)
    _rescore_files(options.format, options.directory)
    return 0


def _rescore_files(name: str, directory: Path) -> None:
    """Print `dataset,metric,score,n` of prediction files, notes on stderr."""
    one = find_format(name)
    try:
        results = rescore(one, directory, _say)
    except TaskError as error:
        raise Unavailable(str(error)) from None
    print(_table(Result, results), end="")


def _rescore_run(directory: Path) -> int:
    """Print a line a metric of each cell that has answers; 1 if one differs."""
    from harness.answers.recompute import Line, is_of_answer, lines_of

    stored = Stored(directory)
    if not stored.paths():
        raise HarnessError(
            f"{directory}: no journal in it; give the --out of a run, or say with --format whose "
            f"prediction files they are: {', '.join(FORMATS)}"
        )
    stored.check()
    asked = [record for record in stored.records.values() if any(map(is_of_answer, record.rows))]
    if not asked:
        raise HarnessError(
            f"{directory}: none of its {len(stored.records)} cells has answers; metrics of given "
            "tokens need the model, run the same command with another --out"
        )
    known = [one for one in asked if all("position" in sample for sample in one.samples)]
    lines = [line for record in known for line in lines_of(record)]
    print(_table(Line, lines), end="")
    other = [line for line in lines if line.differs]
    _say(f"{len(known)} cells: {len(lines)} values, {len(other)} differ from the journal")
    if len(known) < len(asked):
        _say(
            f"{len(asked) - len(known)} cells left out: stored by an earlier version, without all "
            "that is scored; measure them again with another --out"
        )
    return DIFFERS if other or not known else 0


def _say(text: str) -> None:
    print(one_line(text), file=sys.stderr)


def _table(kind: type[Any], lines: Iterable[Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    writer.writerows(map(csv_cell, astuple(one)) for one in lines)
    return out.getvalue().encode(errors="replace").decode()  # a file name may be no text
