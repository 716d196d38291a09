"""Heat maps: value by depth and context length, one panel a patch."""

from collections.abc import Sequence
from typing import Any

from harness.lengths import render_length
from harness.results import Record, Row

__all__ = ["DEPTH", "draw_heatmaps", "has_depths"]

DEPTH = "depth "  # how the position of a value by depth begins
COLOURS = "RdYlGn"
DARK = (0.25, 0.75)  # values outside are written in white


def has_depths(group: Sequence[Record]) -> bool:
    """Whether the records of a series have values by depth."""
    return any(row.position.startswith(DEPTH) for record in group for row in record.rows)


def draw_heatmaps(figure: Any, group: Sequence[Record]) -> None:
    """Draw one series on a figure or part of one: lengths to the right, depths downwards.

    Cells without a value stay white; every cell has its value written in it, and the title the mean
    over all of a patch's cells.
    """
    rows = [row for record in group for row in record.rows if row.position.startswith(DEPTH)]
    lengths = sorted({row.context_length for row in rows})
    depths = sorted({_depth(row) for row in rows})
    patches = list(dict.fromkeys(row.patch for row in rows))
    first = rows[0]
    axes = figure.subplots(1, len(patches), sharey=True, squeeze=False)[0]
    for panel, patch in zip(axes, patches, strict=True):
        values = {
            (row.context_length, _depth(row)): row.value
            for row in rows
            if row.patch == patch and row.value is not None
        }
        grid = [
            [values.get((length, depth), float("nan")) for length in lengths] for depth in depths
        ]
        panel.imshow(grid, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
        for (length, depth), value in values.items():
            colour = "black" if DARK[0] < value < DARK[1] else "white"
            place = (lengths.index(length), depths.index(depth))
            panel.annotate(
                f"{value:.2g}", place, fontsize=7, color=colour, ha="center", va="center"
            )
        panel.set_xticks(range(len(lengths)), labels=list(map(render_length, lengths)), fontsize=8)
        panel.set_yticks(range(len(depths)), labels=[f"{depth:g}" for depth in depths], fontsize=8)
        within = sum(length <= first.trained_length for length in lengths)
        if 0 < within < len(lengths):
            panel.axvline(within - 0.5, color="black", linewidth=1.2)
        mean = sum(values.values()) / len(values) if values else float("nan")
        panel.set_title(f"{patch}\nmean {mean:.2f}", fontsize=9)
        panel.set_xlabel("context length", fontsize=8)
    axes[0].set_ylabel("depth (0 first)")
    figure.suptitle(
        f"{first.model}: {first.task}, {first.metric} (line: trained length)", fontsize=11
    )


def _depth(row: Row) -> float:
    return float(row.position.removeprefix(DEPTH))
