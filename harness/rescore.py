"""The command `rescore`: scores of prediction files as CSV. Imports no torch."""

import csv
import io
import sys
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path

from harness.errors import Unavailable, one_line
from harness.results import csv_cell
from tasks import TaskError
from tasks.formats import Result, find_format, rescore

__all__ = ["print_scores"]


def print_scores(name: str, directory: Path) -> None:
    """Print `dataset,metric,score,n` of the prediction files in a directory, notes on stderr.

    Args:
        name: format of the files.
        directory: where they are.

    Raises:
        TaskError: an unknown format.
        Unavailable: no such directory, no file of the format in it, or one that cannot be read.
    """
    one = find_format(name)
    try:
        results = rescore(one, directory, lambda text: print(one_line(text), file=sys.stderr))
    except TaskError as error:
        raise Unavailable(str(error)) from None
    print(_table(results), end="")


def _table(results: Iterable[Result]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(Result))
    writer.writerows(map(csv_cell, astuple(one)) for one in results)
    return out.getvalue().encode(errors="replace").decode()  # a file name may be no text
