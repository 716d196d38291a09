"""Stacked bars: where the attention of each layer goes, one panel a patch. Needs matplotlib."""

import math
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.attention import LayerRow, means
from harness.lengths import render_length
from harness.reports.figure import drawing, written

__all__ = ["conclusion", "draw_bars"]

COLOURS = ("#d55e00", "#f0e442", "#bbbbbb", "#0072b2")  # first token, other first, far, window
STRONG = 0.2  # share of the first tokens from which on a model is said to need them
COLUMNS = 4
TITLE = 34  # letters a line


@drawing()
def draw_bars(tables: Sequence[Sequence[LayerRow]], path: Path) -> None:
    """Write a PNG: a panel a patch, a bar a layer, stacked to 1 by the group of keys.

    Raises:
        HarnessError: matplotlib is missing.
        ResultsError: the file cannot be written.
    """
    columns = min(COLUMNS, len(tables))
    rows = math.ceil(len(tables) / columns)
    size = (max(7.5, 3.2 * columns + 0.4), 3.1 * rows + 0.9)
    figure = import_module("matplotlib.figure").Figure(size, layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, table in zip(axes.ravel(), tables, strict=False):
        _panel(panel, table)
    for panel in axes.ravel()[len(tables) :]:
        panel.remove()
    for panel in axes[:, 0]:
        panel.set_ylabel("share of attention", fontsize=9)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(conclusion(tables[0]), fontsize=11)
    written(figure, path)


def conclusion(rows: Sequence[LayerRow]) -> str:
    """What the first tokens get under a patch, and what a window without them would cut off."""
    one, share = rows[0], means(rows)[1]
    said = f"the first {one.sinks} get {100 * share:.1f} % of the attention,\n"
    if share == 0:
        said = f"the first {one.sinks} are hidden"
    elif share < STRONG:
        said += "so a window has little to lose by hiding them"
    else:
        said += "which a window that hides them has to put elsewhere"
    return f"{one.model}, {one.patch}, {render_length(one.context_length)} tokens: {said}"


def _panel(panel: Any, rows: Sequence[LayerRow]) -> None:
    """One patch: a bar a layer, the first tokens at the bottom, the window on top."""
    one = rows[0]
    layers = [row.layer for row in rows]
    heights = {
        "first token": [row.first_share for row in rows],
        f"first {one.sinks} without it": [row.sinks_share - row.first_share for row in rows],
        "far": [row.far_share for row in rows],
        f"newest {one.window}": [row.window_share for row in rows],
    }
    base = [0.0] * len(rows)
    for (name, height), colour in zip(heights.items(), COLOURS, strict=True):
        panel.bar(layers, height, 0.85, base, color=colour, label=name)
        base = [low + more for low, more in zip(base, height, strict=True)]
    _, sinks, far, _ = means(rows)
    name = textwrap.fill(one.patch, TITLE)
    got = f"first {one.sinks}: {100 * sinks:.1f} %, far: {100 * far:.1f} %"
    panel.set_title(f"{name}\n{got}", fontsize=9)
    panel.set_ylim(0, 1)
    panel.set_xticks(layers if len(layers) <= 12 else layers[::5])
    panel.tick_params(labelsize=8)
    panel.set_xlabel("layer", fontsize=9)
