"""Render a CSV of results as Markdown tables: a line a patch, a column a length.

python scripts/tables.py results/smollm2.csv --metric nll
"""

import argparse
import csv
import sys
from pathlib import Path

from harness.lengths import render_length
from patches.spec import split_specs


def text(row: dict[str, str]) -> str:
    """Value with its interval, or the status of a cell that failed."""
    if not row["value"]:
        return row["status"]
    value, low, high = (row[name] and f"{float(row[name]):.3f}" for name in COLUMNS)
    return f"{value} [{low}, {high}]" if low else value


COLUMNS = ("value", "ci_low", "ci_high")


def table(rows: list[dict[str, str]], patches: list[str]) -> str:
    """One task's Markdown table, patches in the given order, then the others as they come."""
    cells = {(row["patch"], int(row["context_length"])): text(row) for row in rows}
    lengths = sorted({length for _, length in cells})
    names = list(dict.fromkeys([*patches, *(patch for patch, _ in cells)]))
    lines = [["patch", *map(render_length, lengths)], ["---"] * (len(lengths) + 1)]
    lines += [
        [f"`{name}`", *(cells.get((name, length), "-") for length in lengths)]
        for name in names
        if any(patch == name for patch, _ in cells)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Print one table a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path, help="CSV written by the harness")
    parser.add_argument("--metric", default="nll", help="metric to show (default: nll)")
    parser.add_argument("--patch", default="", help="patches that come first, by comma")
    args = parser.parse_args()
    with args.csv.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == args.metric]
    for task in dict.fromkeys(row["task"] for row in rows):
        print(f"{task}, {args.metric}\n")
        print(
            table(
                [row for row in rows if row["task"] == task],
                split_specs(args.patch) if args.patch else [],
            )
        )
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
