"""Set the bundled model beside Su Jianlin's GAU table: same methods, same ratio of lengths.

    python scripts/compare_su.py results/tiny.csv > results/tiny.md

Su's model is a GAU of about 100 M parameters trained at 512 tokens and read at 4096 (8x); its
figures are token accuracies in percent, from kexue.fm/archives/9675, 9706 and 9708. Ours are token
accuracies of `repeat` (later copies of a text) and of `continuation` (ordinary text).
"""

import argparse
import csv
import sys
from pathlib import Path

# (Su's label, our patch, accuracy at 512, at 4096 on repeated text, at 4096 on ordinary text).
# The windows are Su's as shares of the trained length: 128 = 1/4, 256 = 1/2, 512 = all of it.
SU = (
    ("Baseline", "none", 49.41, 24.17, 23.16),
    ("PI", "pi", 49.41, 15.04, 13.54),
    ("NTK-old", "ntk-old", 49.41, 51.28, 39.27),
    ("NTK-fixed", "ntk-fixed", 49.41, 51.86, 39.61),
    ("NTK-fixed, log n clipped", "ntk-fixed+logn", 49.41, 55.94, 41.11),
    ("NTK-mixed", "ntk-mixed", 49.41, 53.09, 40.12),
    ("NTK-mixed, log n clipped", "ntk-mixed+logn", 49.41, 59.11, 42.38),
    ("ReRoPE w = 1/4", "rerope(window={quarter})", 49.41, 76.11, 47.82),
    ("ReRoPE w = 1/4, log n clipped", "rerope(window={quarter})+logn", 49.41, 82.28, 48.78),
    ("ReRoPE w = 1/2", "rerope(window={half})", 49.41, 77.90, 48.48),
    ("ReRoPE w = 1/2, log n clipped", "rerope(window={half})+logn", 49.41, 82.40, 48.85),
    ("ReRoPE w = trained length", "rerope(window={whole})", 49.41, 7.09, 8.25),
)
HEADER = (
    "| Su's method | our patch | Su 1x | Su 8x repeated | Su 8x text | ours 1x text | "
    "ours 8x repeated | ours 8x text |\n|---|---|---|---|---|---|---|---|"
)


def percent(row: dict[str, str] | None) -> str:
    """Value and interval of a row in percent; a dash where there is no such row."""
    if row is None or not row["value"]:
        return "-"
    low, high = (f"{100 * float(row[name]):.1f}" for name in ("ci_low", "ci_high"))
    return f"{100 * float(row['value']):.1f} [{low}, {high}]"


def main() -> int:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="CSV of a run of the bundled model")
    with parser.parse_args().table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    trained = int(rows[0]["trained_length"])
    shares = {"quarter": trained // 4, "half": trained // 2, "whole": trained}
    cells = {
        (row["patch"], row["task"], int(row["context_length"])): row
        for row in rows
        if row["metric"] == "accuracy"
    }
    print(HEADER)
    for label, patch, short, repeated, text in SU:
        patch = patch.format(**shares)
        ours = (
            percent(cells.get((patch, task, length)))
            for task, length in (
                ("continuation", trained),
                ("repeat", 8 * trained),
                ("continuation", 8 * trained),
            )
        )
        print(f"| {label} | `{patch}` | {short} | {repeated} | {text} | {' | '.join(ours)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
