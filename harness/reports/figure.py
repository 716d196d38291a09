"""The figure: each task's first metric against length, one line a patch. Needs matplotlib."""

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.lengths import render_length
from harness.reports.heatmap import draw_heatmaps, has_depths
from harness.reports.report import baselines
from harness.reports.series import series
from harness.results import Record, Row, write_atomically

__all__ = [
    "DODGE",
    "check_figure",
    "draw",
    "drawing",
    "require_matplotlib",
    "upper_edge",
    "written",
]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#a5aa00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = ("#000000", "#777777")
FORMATS = (".png", ".pdf", ".svg")
DODGE = 0.24  # width of the points of one length, in octaves
TITLE = 54  # letters that a panel has room for
HEADROOM = 1.2  # how far above the well-behaved lines the axis goes, as a multiple of their spread


def check_figure(path: Path) -> None:
    """Raise HarnessError unless a figure can be drawn as its file's end says; imports nothing."""
    require_matplotlib()
    if path.suffix.lower() not in FORMATS:
        raise HarnessError(
            f"--figure {path}: drawn as its name ends, which is one of {', '.join(FORMATS)}"
        )


def written(figure: Any, path: Path) -> None:
    """Write a figure in the format that its file's end names.

    Raises:
        ResultsError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower())
    write_atomically(path, buffer.getvalue())


def require_matplotlib() -> None:
    """Raise HarnessError unless matplotlib can be imported; imports nothing."""
    if find_spec("matplotlib") is None:
        raise HarnessError(
            "figures need matplotlib, which is not installed; "
            "`pip install 'length-harness[plot]'` or leave out --figure"
        )


@contextmanager
def drawing() -> Iterator[None]:
    """Draw names as they are: no formula in them, no warning of letters that the font lacks.

    Raises:
        HarnessError: matplotlib is missing.
    """
    require_matplotlib()
    plain = import_module("matplotlib").rc_context({"text.parse_math": False})
    with plain, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@drawing()
def draw(records: Sequence[Record], path: Path) -> None:
    """Write a PNG: a panel for each model and task, values with intervals over documents.

    Below them come heat maps of the tasks that have values by depth. Where lower is better, values
    far above the others are cut off at the upper edge and written there, so that they do not
    flatten the rest.

    Raises:
        HarnessError: matplotlib is missing.
        ResultsError: the file cannot be written.
    """
    groups = [
        group for group in series(records).values() if any(one.status == "ok" for one in group)
    ]
    if not groups:
        return
    figure_class = import_module("matplotlib.figure").Figure
    columns = min(3, len(groups))
    rows = math.ceil(len(groups) / columns)
    maps = [group for group in groups if has_depths(group)]
    heights = [4.2 * rows] + [2.6] * len(maps)
    width = max([5.4 * columns + 2.2, *(1.9 * len(_patches(group)) for group in maps)])
    figure = figure_class(figsize=(width, sum(heights)), layout="constrained", dpi=150)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes = parts[0].subplots(rows, columns, squeeze=False).ravel()
    styles = _styles(records)
    for panel, group in zip(axes, groups, strict=False):
        _panel(panel, group, styles)
    for panel in axes[len(groups) :]:
        panel.remove()
    handles: dict[str, Any] = {}
    for panel in axes[: len(groups)]:
        lines, names = panel.get_legend_handles_labels()
        handles |= dict(zip(names, lines, strict=True))
    parts[0].legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
    for part, group in zip(parts[1:], maps, strict=True):
        draw_heatmaps(part, group)
    written(figure, path)


def _patches(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(one.rows[0].patch for one in records))


def _styles(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Give each patch a colour and a marker; baselines are dashed and grey."""
    grey = dict(zip(baselines(records), GREY, strict=False))
    others = [patch for patch in _patches(records) if patch not in grey]
    styles: dict[str, dict[str, Any]] = {
        patch: {"color": colour, "marker": ".", "linestyle": "--"} for patch, colour in grey.items()
    }
    for index, patch in enumerate(others):
        styles[patch] = {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
            "linestyle": "-" if index < len(COLOURS) else "-.",
        }
    return styles


def _panel(panel: Any, group: Sequence[Record], styles: dict[str, dict[str, Any]]) -> None:
    rows = [record.rows[0] for record in group if record.status == "ok"]
    first = rows[0]
    top = upper_edge(rows)
    drawn = list(dict.fromkeys(row.patch for row in rows))
    for index, patch in enumerate(drawn):
        line = sorted(
            (row for row in rows if row.patch == patch), key=lambda row: row.context_length
        )
        side = DODGE * ((index + 0.5) / len(drawn) - 0.5)
        _line(panel, line, styles[patch], side)
    lengths = sorted({row.context_length for row in rows})
    panel.set_xscale("log", base=2)
    panel.set_xticks(lengths, labels=list(map(render_length, lengths)))
    panel.minorticks_off()
    panel.axvline(first.trained_length, color="#bbbbbb", linewidth=1, zorder=0)
    panel.annotate(
        "trained length",
        (first.trained_length * 2**0.14, 0.02),
        xycoords=("data", "axes fraction"),
        rotation=90,
        fontsize=8,
        color="#777777",
        ha="left",
    )
    if has_depths(group):
        panel.set_ylim(-0.03, 1.03)
    if top is not None:
        panel.set_ylim(top=top)
        _cut_off(panel, rows, styles, top)
    panel.set_xlabel("context length (tokens)")
    panel.set_ylabel(f"{first.metric} ({first.better} is better)")
    panel.set_title(textwrap.fill(f"{first.model}: {first.task}", TITLE), fontsize=11)
    panel.grid(alpha=0.25)


def _line(panel: Any, line: Sequence[Row], style: dict[str, Any], side: float) -> None:
    """Draw one patch, its points moved sideways so that intervals do not hide each other."""
    lengths = [row.context_length * 2**side for row in line]
    values = [_number(row.value) for row in line]
    below = [max(0.0, _number(row.value) - _number(row.ci_low, row.value)) for row in line]
    above = [max(0.0, _number(row.ci_high, row.value) - _number(row.value)) for row in line]
    panel.plot(lengths, values, label=line[0].patch, linewidth=1.5, markersize=5, **style)
    panel.errorbar(
        lengths,
        values,
        yerr=(below, above),
        fmt="none",
        ecolor=style["color"],
        elinewidth=0.8,
        alpha=0.35,
    )


def _cut_off(
    panel: Any, rows: Sequence[Row], styles: dict[str, dict[str, Any]], top: float
) -> None:
    """Write the largest value of each patch that leaves the axis, one under the other."""
    above = [row for row in rows if _number(row.value) > top]
    largest = {row.patch: row for row in sorted(above, key=lambda row: _number(row.value))}
    for place, (patch, row) in enumerate(reversed(largest.items())):
        panel.annotate(
            f"↑ {patch} {_number(row.value):.1f} at {render_length(row.context_length)}",
            (0.99, 0.97 - 0.06 * place),
            xycoords="axes fraction",
            fontsize=8,
            color=styles[patch]["color"],
            ha="right",
            va="top",
        )


def _number(value: float | None, otherwise: float | None = None) -> float:
    """The value, else the other one, else nan."""
    chosen = otherwise if value is None else value
    return math.nan if chosen is None else chosen


def upper_edge(rows: Sequence[Row]) -> float | None:
    """Where the axis ends: above the lines that stay near the values up to the trained length."""
    if rows[0].better != "lower":
        return None
    values = sorted(row.value for row in rows if row.value is not None and math.isfinite(row.value))
    within = [row.value for row in rows if row.context_length <= row.trained_length and row.value]
    if not values:
        return None
    reference = min(within or values)
    middle = values[len(values) // 2]
    edge = max(reference, middle) + HEADROOM * max(abs(middle - values[0]), 0.15 * abs(reference))
    return None if values[-1] <= edge else edge
