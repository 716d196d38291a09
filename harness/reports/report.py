"""Tables from finished cells: value with interval, and paired differences to the baselines."""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence

from harness.lengths import render_length
from harness.reports.pairs import difference, scores
from harness.reports.rerun import WIDTH, signature_of_table
from harness.reports.series import series
from harness.results import Record, Row
from patches import PATCHES
from tasks.haystack import DEPTH
from tasks.metrics import METRICS

__all__ = ["aligned", "baselines", "render_tables", "with_interval"]

RANGE = re.compile(r"\d+:\d+")  # positions of a bucket of tokens
Table = dict[tuple[str, int], str]  # (patch, context_length) -> text


def baselines(records: Iterable[Record]) -> list[str]:
    """The patches among the records that the table of patches marks as baselines."""
    used = dict.fromkeys(record.rows[0].patch for record in records)
    return [patch for patch in used if patch in PATCHES and PATCHES[patch].baseline]


def render_tables(
    records: Sequence[Record], metrics: Sequence[str] = (), threshold: float | None = None
) -> str:
    """Lay out all cells: one line a patch, one column a length.

    Values by depth are left to CSV and figure. The first metric of a task, and each of `metrics`,
    comes with the paired differences to the baselines at the same length, and to the same patch at
    the trained length. A `*` marks a difference that is not 0 as printed and whose interval is
    without zero, from 6 documents on: with fewer, all of them agreeing is no rare event
    (p = 2 / 2^n). Time and memory come last, then the signature to quote the numbers with. No line
    is longer than WIDTH, unless a name is.

    Where a metric says what a usable length must reach, or `threshold` does for the first metric of
    each task, the longest length that reaches it stands at the end of the line.
    """
    parts = []
    for group in series(records).values():
        shown = _shown(group)
        first = next(iter(shown), ("", ""))
        parts.append(_heading(group[0].rows[0]))
        for metric, position in shown or [("", "")]:
            is_first = (metric, position) == first
            parts.append(
                _block(
                    _title(group, metric, position),
                    group,
                    _values(group, metric, position),
                    _effective(group, metric, position, threshold if is_first else None),
                )
            )
            if is_first or metric in metrics:
                for baseline in baselines(group):
                    table = _differences(group, metric, position, baseline)
                    if table:
                        parts.append(_block(f"{metric}: difference to {baseline}", group, table))
                table, verdicts = _growth(group, metric, position)
                if table:
                    trained = render_length(group[0].rows[0].trained_length)
                    title = f"{metric}: difference to the same patch at {trained}"
                    parts.append(_block(title, group, table, verdicts))
                parts += [] if position else _by_part(group, metric)
        parts.append(_block("seconds / peak GiB", group, _costs(group)))
        parts.append(signature_of_table(record.rows[0] for record in group))
    return "\n".join(parts)


def _shown(group: Sequence[Record]) -> list[tuple[str, str]]:
    """Metric and position of each table; positions only where there is no value of all."""
    rows = [row for record in group for row in record.rows if row.metric]
    whole = {row.metric for row in rows if not row.position}
    places = (
        (row.metric, row.position) for row in rows if not row.position or row.metric not in whole
    )
    return list(dict.fromkeys(places))


def _heading(row: Row) -> str:
    text = (
        f"{row.model}  {row.task}  trained at {render_length(row.trained_length)}  n {row.n}  "
        f"data {row.data or 'built in'}  {row.dtype}  seed {row.seed}  "
        "[95 % bootstrap over documents]"
    )
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _title(group: Sequence[Record], metric: str, position: str) -> str:
    rows = (row for record in group for row in record.rows if row.metric == metric)
    better = next((row.better for row in rows), "")
    return f"{metric}{f' at {position}' if position else ''}, {better} is better" if metric else ""


def _values(group: Sequence[Record], metric: str, position: str) -> Table:
    table: Table = {}
    for record in group:
        first = record.rows[0]
        place = (first.patch, first.context_length)
        if record.status != "ok":
            table[place] = record.status
        for row in record.rows:
            if (row.metric, row.position) == (metric, position) and row.value is not None:
                table[place] = with_interval(row.value, row.ci_low, row.ci_high)
    return table


def _by_part(group: Sequence[Record], metric: str) -> list[str]:
    """One table a patch of the values of a task's named parts; depths and ranges have figures."""
    tables: dict[str, Table] = {}
    for record in group:
        for row in record.rows:
            if row.metric == metric and _is_part(row.position) and row.value is not None:
                text = with_interval(row.value, row.ci_low, row.ci_high)
                tables.setdefault(row.patch, {})[row.position, row.context_length] = text
    return [
        _align(f"{metric} of {patch}, by task", dict.fromkeys(name for name, _ in table), table)
        for patch, table in tables.items()
    ]


def _is_part(position: str) -> bool:
    return position != "" and not position.startswith(DEPTH) and RANGE.fullmatch(position) is None


def _effective(
    group: Sequence[Record], metric: str, position: str, threshold: float | None
) -> dict[str, str]:
    """The longest length of each patch whose value is good enough to count."""
    if threshold is None:
        threshold = METRICS[metric].effective if metric in METRICS else None
    if threshold is None:
        return {}
    more = METRICS[metric].better == "higher"
    found: dict[str, int] = {}
    for record in group:
        for row in record.rows:
            found.setdefault(row.patch, 0)
            if (row.metric, row.position) == (metric, position) and row.value is not None:
                enough = row.value >= threshold if more else row.value <= threshold
                found[row.patch] = max(found[row.patch], row.context_length if enough else 0)
    sign = ">=" if more else "<="
    return {
        patch: f"effective length {render_length(length)} ({sign} {threshold:g})"
        if length
        else f"none {sign} {threshold:g}"
        for patch, length in found.items()
    }


def _differences(group: Sequence[Record], metric: str, position: str, baseline: str) -> Table:
    """Paired differences of every patch to the baseline at the same length."""
    references = {one.rows[0].context_length: one for one in group if one.rows[0].patch == baseline}
    table: Table = {}
    for record in group:
        row = record.rows[0]
        reference = references.get(row.context_length)
        if reference is not None and row.patch != baseline:
            table[row.patch, row.context_length] = _difference(record, reference, metric, position)
    return {place: text for place, text in table.items() if text}


def _growth(group: Sequence[Record], metric: str, position: str) -> tuple[Table, dict[str, str]]:
    """Paired differences of every patch to itself at the trained length, and what they say.

    This is Su's question: does the loss of the same tokens fall as the context grows? The verdict
    is that of the longest context. Tasks that score other samples or more tokens at another length
    give nothing.
    """
    trained = group[0].rows[0].trained_length
    references = {one.rows[0].patch: one for one in group if one.rows[0].context_length == trained}
    table: Table = {}
    for record in group:
        row = record.rows[0]
        reference = references.get(row.patch)
        alike = reference is not None and _counts(record, metric, position) == _counts(
            reference, metric, position
        )
        if reference is not None and alike and row.context_length > trained:
            text = _difference(record, reference, metric, position)
            if text:
                table[row.patch, row.context_length] = text
    longest = max((length for _, length in table), default=0)
    verdicts = {
        patch: f"{'falls' if text.startswith('-') else 'rises'} to {render_length(longest)}"
        if text.endswith("*")
        else "not told apart"
        for (patch, length), text in table.items()
        if length == longest
    }
    return table, verdicts


def _difference(record: Record, reference: Record, metric: str, position: str) -> str:
    """Text of the paired difference of two records; empty where their samples are not the same."""
    found = difference(record, reference, metric, position)
    if found is None:
        return ""
    mark = "*" if found.is_told else " "
    return with_interval(found.value, found.low, found.high, "+") + mark


def _counts(record: Record, metric: str, position: str) -> list[float]:
    """What each sample's statistics end with: scored tokens, where the metric is a mean."""
    return [stats[-1] for stats in scores(record, metric, position).values()]


def _costs(group: Sequence[Record]) -> Table:
    rows = [record.rows[0] for record in group]
    return {
        (row.patch, row.context_length): f"{row.seconds:.1f} / {row.peak_memory_gib:.2f}"
        for row in rows
    }


def with_interval(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    """Text of a value and its interval, three digits after the point."""

    def text(number: float) -> str:
        if not math.isfinite(number):
            return str(number)
        return f"{number:{sign}.3f}" if abs(number) < 1000 else f"{number:{sign}.3g}"

    if low is None or high is None or math.isnan(low):
        return text(value)
    return f"{text(value)} [{text(low)}, {text(high)}]"


def _block(
    title: str, group: Sequence[Record], table: Table, verdicts: dict[str, str] | None = None
) -> str:
    """Align a table: patches in the order of the records, lengths rising, verdicts last."""
    used = {patch for patch, _ in table}
    patches = dict.fromkeys(record.rows[0].patch for record in group)
    return _align(title, [patch for patch in patches if patch in used], table, verdicts)


def _align(
    title: str, names: Iterable[str], table: Table, last: dict[str, str] | None = None
) -> str:
    lengths = sorted({length for _, length in table})
    lines = [[title, *map(render_length, lengths)]]
    lines += [[name, *(table.get((name, one), "-") for one in lengths)] for name in names]
    if last:
        for line in lines:
            line.append(last.get(line[0], ""))
    if max(map(len, aligned(lines, None).splitlines())) <= WIDTH:
        return aligned(lines)
    lines[0][0] = ""
    return f"{title}\n{aligned(lines)}"


def aligned(lines: Sequence[Sequence[str]], limit: int | None = WIDTH) -> str:
    """Lines of cells as text, the columns under each other.

    Columns beyond `limit` characters follow below, with the first column again.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    parts: list[list[int]] = [[0]]
    for column in range(1, len(widths)):
        used = sum(widths[one] + 2 for one in [*parts[-1], column]) - 2
        if limit is not None and used > limit and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(column)
    return "\n".join(
        "".join(
            "  ".join(line[one].ljust(widths[one]) for one in part).rstrip() + "\n"
            for line in lines
        )
        for part in parts
    )
