"""Heat maps: value by depth and context length, one panel a patch."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from harness.lengths import render_length
from harness.results import Record, Row
from tasks.haystack import DEPTH

__all__ = ["draw_heatmaps", "has_depths"]

COLOURS = "RdYlGn"
TITLE, NAME = 76, 26  # letters that the maps of a series and one of them have room for
DARK = (0.25, 0.75)  # values outside are written in white


def has_depths(group: Sequence[Record]) -> bool:
    """Whether the records of a series have values by depth."""
    return any(row.position.startswith(DEPTH) for record in group for row in record.rows)


def draw_heatmaps(figure: Any, group: Sequence[Record]) -> None:
    """Draw one series on a figure or part of one: lengths to the right, depths downwards.

    Every cell has its value written in it; failed ones stay white and have their status. The title
    has the mean over lengths of the values of all samples.
    """
    rows = [row for record in group for row in record.rows if row.position.startswith(DEPTH)]
    whole = [record.rows[0] for record in group]
    lengths = sorted({row.context_length for row in whole})
    depths = sorted({_depth(row) for row in rows})
    patches = list(dict.fromkeys(row.patch for row in whole))
    first = rows[0]
    axes = figure.subplots(1, len(patches), sharey=True, squeeze=False)[0]
    for panel, patch in zip(axes, patches, strict=True):
        own = [row for row in whole if row.patch == patch]
        values = {
            (row.context_length, _depth(row)): row.value
            for row in rows
            if row.patch == patch and row.value is not None
        }
        _panel(panel, own, values, lengths, depths)
    axes[0].set_ylabel("depth (0 first)")
    title = f"{first.model}: {first.task}, {first.metric} (line: trained length)"
    figure.suptitle(textwrap.fill(title, TITLE), fontsize=11)


def _panel(
    panel: Any,
    own: Sequence[Row],
    values: Mapping[tuple[int, float], float],
    lengths: Sequence[int],
    depths: Sequence[float],
) -> None:
    """One patch: its rows of all depths, and its values by length and depth."""
    grid = [[values.get((length, depth), math.nan) for length in lengths] for depth in depths]
    panel.imshow(grid, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    for (length, depth), value in values.items():
        colour = "black" if DARK[0] < value < DARK[1] else "white"
        place = (lengths.index(length), depths.index(depth))
        panel.annotate(f"{value:.2g}", place, fontsize=7, color=colour, ha="center", va="center")
    for row in own:
        if row.status != "ok":
            middle = (lengths.index(row.context_length), (len(depths) - 1) / 2)
            panel.annotate(row.status, middle, fontsize=8, ha="center", va="center")
    panel.set_xticks(range(len(lengths)), labels=list(map(render_length, lengths)), fontsize=8)
    panel.set_yticks(range(len(depths)), labels=[f"{depth:g}" for depth in depths], fontsize=8)
    within = sum(length <= own[0].trained_length for length in lengths)
    if 0 < within < len(lengths):
        panel.axvline(within - 0.5, color="black", linewidth=1.2)
    means = [row.value for row in own if row.value is not None]
    mean = f"mean {sum(means) / len(means):.2f}" if means else ""
    panel.set_title(f"{textwrap.fill(own[0].patch, NAME)}\n{mean}", fontsize=9)
    panel.set_xlabel("context length", fontsize=8)


def _depth(row: Row) -> float:
    return float(row.position.removeprefix(DEPTH))
