"""`report --html`: one self-contained page of finished cells, all text escaped; no torch."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from harness.errors import HarnessError
from harness.journal import read_journal
from harness.lengths import render_length
from harness.options import check_target
from harness.reports.figure import DODGE, upper_edge
from harness.reports.findings import (
    about_cost,
    about_depths,
    about_length,
    about_retrieval,
    first_row,
    front,
)
from harness.reports.heatmap import has_depths
from harness.reports.report import baselines, with_interval
from harness.reports.rerun import command_of, signature_of
from harness.reports.series import series
from harness.reports.svg import STYLES, Axis, Line, Point, captioned, chart
from harness.results import Record, Row, cell_id, write_atomically
from tasks.haystack import DEPTH

__all__ = ["render_page", "write_page"]

TEMPLATE = Path(__file__).parents[1] / "assets" / "report.html"
COSTS = {"seconds": ("time", "seconds a cell"), "peak_memory_gib": ("memory", "peak GiB a cell")}
COLUMNS = (
    *("model", "task", "patch", "length", "metric", "value", "95 % interval", "n", "seconds"),
    *("GiB", "status", "run again"),
)
WORDS = ("model", "task", "patch", "metric", "status", "run again")
CUT = "Values above the upper edge are drawn on it."
ANSWERS, ANSWER = 3, 200  # predictions shown of a cell, and characters of each
Styles = Mapping[str, int]


def write_page(directories: Sequence[Path], path: Path) -> None:
    """Write the page of the journals of some runs; the newest of equal cells counts.

    Raises:
        HarnessError: no cell in them.
        ResultsError: no journal there, a corrupt one, or the file cannot be written.
    """
    check_target(path)
    cells = {cell_id(one.key): one for place in directories for one in read_journal(place)}
    if not cells:
        names = ", ".join(map(str, directories))
        raise HarnessError(f"{names}: no finished cell; run something first")
    write_atomically(path, render_page(list(cells.values())).encode(errors="replace"))


def render_page(records: Sequence[Record]) -> str:
    """The page as HTML."""
    groups = list(series(records).values())
    styles = _styles(records)
    models = ", ".join(dict.fromkeys(one.rows[0].model for one in records))
    title = f"Long context: {models}"
    failed = sum(one.status != "ok" for one in records)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{len(records)} cells, {failed} failed. Intervals are 95 %, by bootstrap '
        "over documents; differences are paired by document. A patch that is best of many here "
        "leads by less on new documents.</p>",
        *(_section(group, styles) for group in groups),
        _retrieval(groups, styles),
        _table(records),
    ]
    colours = "\n".join(
        f".c{one} {{ stroke: var(--c{one}); }} .c{one} .dot {{ fill: var(--c{one}); }}"
        for one in range(STYLES)
    )
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), colours=colours, body="\n".join(parts))


def _name(text: str) -> str:
    """A name that a line may break behind its joints, as it has no spaces."""
    return re.sub(r"([+,/])", r"\1<wbr>", escape(text))


def _styles(records: Sequence[Record]) -> Styles:
    marked = baselines(records)
    patches = dict.fromkeys(one.rows[0].patch for one in records)
    others = [patch for patch in patches if patch not in marked]
    styles = {patch: -1 - index for index, patch in enumerate(marked)}
    return styles | {patch: index for index, patch in enumerate(others)}


def _keys(patches: Iterable[str], styles: Styles) -> str:
    return f'<ul class="keys">{"".join(Line(one, styles[one]).key for one in patches)}</ul>'


def _section(group: Sequence[Record], styles: Styles) -> str:
    """Figures of one model and task."""
    row = group[0].rows[0]
    setting = (
        f"n {row.n}, data {row.data or 'built in'}, {row.dtype}, seed {row.seed}, trained at "
        f"{render_length(row.trained_length)}"
    )
    figures = [_length_figure(group, styles), *(_cost_figure(group, one, styles) for one in COSTS)]
    maps = [_heat(group, patch) for patch in _patches(group)] if has_depths(group) else []
    parts = [f'<h2>{_name(f"{row.model}: {row.task}")}</h2><p class="dim">{escape(setting)}</p>']
    parts.append(_keys(_patches(group), styles))
    parts.append(f'<div class="grid">{"".join(figures)}</div>')
    if maps:
        parts.append(f'<div class="grid">{"".join(maps)}</div>')
    return "\n".join(parts)


def _patches(group: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(one.rows[0].patch for one in group))


def _told(row: Row) -> str:
    value = with_interval(row.value or 0.0, row.ci_low, row.ci_high)
    return f"{row.patch} at {render_length(row.context_length)}: {row.metric} {value}"


def _length_figure(group: Sequence[Record], styles: Styles) -> str:
    rows = [row for record in group if (row := first_row(record))]
    if not rows:
        return ""
    rows.sort(key=lambda row: row.context_length)
    drawn_patches = [patch for patch in _patches(group) if patch in {row.patch for row in rows}]
    lines = []
    for index, patch in enumerate(drawn_patches):
        side = 2 ** (DODGE * ((index + 0.5) / len(drawn_patches) - 0.5))
        points = (
            Point(row.context_length * side, row.value or 0.0, row.ci_low, row.ci_high, _told(row))
            for row in rows
            if row.patch == patch
        )
        lines.append(Line(patch, styles[patch], tuple(points)))
    lengths = sorted({row.context_length for row in rows})
    ticks = tuple((float(one), render_length(one)) for one in lengths)
    first, top = rows[0], upper_edge(rows)
    caption = about_length(group)
    drawn = chart(
        lines,
        Axis("context length (tokens)", is_log=True, ticks=ticks),
        Axis(f"{first.metric} ({first.better} is better)", end=top),
        caption,
        mark=(first.trained_length, "trained length"),
    )
    return captioned(caption, drawn, CUT if top is not None else "")


def _cost_figure(group: Sequence[Record], cost: str, styles: Styles) -> str:
    """Value against what it cost, at the longest context that several patches reach."""
    rows = [row for record in group if (row := first_row(record)) and getattr(row, cost) > 0]
    lengths = [row.context_length for row in rows]
    longest = max((one for one in lengths if lengths.count(one) > 1), default=0)
    rows = [row for row in rows if row.context_length == longest]
    if not rows:
        return ""
    name, label = COSTS[cost]
    lines = [
        Line(
            row.patch,
            styles[row.patch],
            (Point(getattr(row, cost), row.value or 0.0, row.ci_low, row.ci_high, _told(row)),),
            is_named=row in front(rows, cost),
        )
        for row in rows
    ]
    caption = f"{about_cost(rows, cost, name)} (at {render_length(longest)})"
    top = upper_edge(rows)
    y = Axis(f"{rows[0].metric} ({rows[0].better} is better)", end=top)
    drawn = chart(lines, Axis(label, is_log=True), y, caption, is_joined=False)
    return captioned(caption, drawn, CUT if top is not None else "")


def _heat(group: Sequence[Record], patch: str) -> str:
    """Value by depth and length of one patch."""
    own = [record for record in group if record.rows[0].patch == patch]
    values = {
        (row.position.removeprefix(DEPTH), row.context_length): row.value
        for record in own
        for row in record.rows
        if row.position.startswith(DEPTH) and row.value is not None
    }
    lengths = sorted({record.rows[0].context_length for record in own})
    depths = sorted({depth for depth, _ in values}, key=float)
    status = {record.rows[0].context_length: record.status for record in own}
    lines = []
    for depth in depths:
        cells = []
        for length in lengths:
            value = values.get((depth, length))
            if value is None:
                cells.append(f'<td class="none">{escape(status[length])}</td>')
            else:
                hue = round(120 * min(1.0, max(0.0, value)))
                cells.append(f'<td style="background:hsl({hue} 65% 68%)">{value:.2g}</td>')
        lines.append(f"<tr><th>{escape(depth)}</th>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{render_length(one)}</th>" for one in lengths)
    table = f'<table class="heat"><tr><th>depth</th>{heads}</tr>{"".join(lines)}</table>'
    return captioned(about_depths(patch, values, lengths), table)


def _retrieval(groups: Sequence[Sequence[Record]], styles: Styles) -> str:
    """Loss of each patch and length against what it retrieves there, for each model."""
    figures, seen = [], set()
    firsts = [[row for record in group if (row := first_row(record))] for group in groups]
    for losses in firsts:
        for found in firsts:
            if not losses or not found or losses[0].model != found[0].model:
                continue
            kind = (found[0].model, found[0].task)
            if (losses[0].better, found[0].better) != ("lower", "higher") or kind in seen:
                continue
            seen.add(kind)
            figures += _retrieval_figures(losses, found, styles)
    drawn = "".join(figures)
    keys = _keys(dict.fromkeys(row.patch for rows in firsts for row in rows), styles)
    head = f"<h2>Loss against retrieval</h2>{keys}"
    return f'{head}<div class="grid">{drawn}</div>' if drawn else ""


def _retrieval_figures(losses: Sequence[Row], found: Sequence[Row], styles: Styles) -> list[str]:
    """One figure for each length at which patches make three different points."""
    by_place = {(row.patch, row.context_length): row for row in losses}
    figures = []
    for length in sorted({row.context_length for row in found}):
        pairs = [
            (by_place[place], row)
            for row in found
            if row.context_length == length and (place := (row.patch, length)) in by_place
        ]
        if len({(loss.value, row.value) for loss, row in pairs}) < 3:
            continue
        best = max(row.value or 0.0 for _, row in pairs)
        lines = []
        for loss, row in pairs:
            text = f"{_told(loss)}; {_told(row)}"
            point = Point(loss.value or 0.0, row.value or 0.0, row.ci_low, row.ci_high, text)
            lines.append(Line(row.patch, styles[row.patch], (point,), is_named=row.value == best))
        (loss, row), caption = pairs[0], about_retrieval(pairs)
        x = Axis(f"{loss.metric} of {loss.task} (lower is better)")
        y = Axis(f"{row.metric} of {row.task} (higher is better)")
        figures.append(captioned(caption, chart(lines, x, y, caption, is_joined=False)))
    return figures


def _table(records: Sequence[Record]) -> str:
    heads = "".join(
        f'<th{" class=left" if one in WORDS else ""}><button type="button">{one}</button></th>'
        for one in COLUMNS
    )
    rows = "\n".join(
        _line(record, row)
        for record in records
        for row in ([one for one in record.rows if not one.position] or record.rows[:1])
    )
    return (
        '<h2>Every cell</h2><p class="dim">A click on a head sorts.</p><div class="wide">'
        f'<table class="cells"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _line(record: Record, row: Row) -> str:
    ok = row.status == "ok"
    value = "" if row.value is None else f"{row.value:.4g}"
    both = "" if row.ci_low is None else f"{row.ci_low:.4g} to {row.ci_high or 0.0:.4g}"
    number = "" if row.value is None else row.value
    length = f'<td data-v="{row.context_length}">{render_length(row.context_length)}</td>'
    words = [f'<td class="left">{_name(one)}</td>' for one in (row.model, row.task, row.patch)]
    status = "ok" if ok else f'<span class="bad">{escape(f"{row.status}: {row.error}")}</span>'
    answers = "".join(
        f"<br><small>{escape(str(one['id']))}:</small> <code>"
        f"{escape(json.dumps(one['text'][:ANSWER], ensure_ascii=False))}</code>"
        for one in [one for one in record.samples if one.get("text")][:ANSWERS]
    )
    again = (
        f"<details><summary>command</summary><code>{escape(command_of(record))}</code><br>"
        f"<small>{escape(signature_of(row))}</small>{answers}</details>"
    )
    cells = [
        *words,
        length,
        f'<td class="left">{escape(row.metric)}</td>',
        f'<td data-v="{number}">{value}</td>',
        f"<td>{both}</td><td>{row.n}</td><td>{row.seconds:.1f}</td>",
        f'<td>{row.peak_memory_gib:.2f}</td><td class="left">{status}</td>',
        f'<td class="left">{again}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"
