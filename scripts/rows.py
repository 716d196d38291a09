"""Tables of benchmarks as CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["write_rows"]


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows that all have the columns of the first."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
