"""What figures say: one sentence from values, intervals and paired differences."""

import math
from collections.abc import Iterable, Mapping, Sequence

from harness.lengths import render_length
from harness.reports.pairs import FEWEST_DOCUMENTS, difference
from harness.reports.report import baselines
from harness.results import Record, Row

__all__ = [
    "about_cost",
    "about_length",
    "about_retrieval",
    "first_row",
    "front",
    "rank_correlation",
]

CLOSE = 1.05  # of two costs that are called the same
FEWEST_POINTS = 6
STRONG = 0.5  # rank correlation from which two orders are said to agree


def first_row(record: Record) -> Row | None:
    """The row of a cell's first metric over all positions, if it has a finite value."""
    whole = [row for row in record.rows if not row.position] or list(record.rows)
    row = whole[0]
    return row if row.value is not None and math.isfinite(row.value) else None


def _signed(row: Row) -> float:
    """The value, turned so that less is better."""
    value = row.value or 0.0
    return value if row.better == "lower" else -value


def _at_longest(group: Iterable[Record]) -> list[tuple[Record, Row]]:
    """Cells of the longest context that several patches reach, best first."""
    found = [(record, row) for record in group if (row := first_row(record))]
    lengths = [row.context_length for _, row in found]
    shared = [length for length in lengths if lengths.count(length) > 1]
    longest = max(shared or lengths, default=0)
    there = [pair for pair in found if pair[1].context_length == longest]
    return sorted(there, key=lambda pair: _signed(pair[1]))


def about_length(group: Sequence[Record]) -> str:
    """Which patch is best at the longest context, and whether documents tell it from a baseline."""
    ranked = _at_longest(group)
    if not ranked:
        return "No cell has a value"
    best, row = ranked[0]
    place = f"at {render_length(row.context_length)}"
    marked = baselines(group)
    others = [pair for pair in ranked[1:] if pair[1].patch in marked]
    if len(ranked) == 1 or (row.patch in marked and len(ranked) == len(others) + 1):
        return f"{row.patch} reaches {row.metric} {row.value:.3f} {place}"
    if row.patch in marked:
        return f"No patch has a better {row.metric} than {row.patch} {place}"
    if not others:
        return f"{row.patch} has the best {row.metric} {place}: {row.value:.3f}"
    reference, base = others[0]
    found = difference(best, reference, row.metric, row.position)
    if found is None:
        return f"{row.patch} has the best {row.metric} {place}: {row.value:.3f}"
    if found.documents < FEWEST_DOCUMENTS:
        return (
            f"{row.patch} has the best {row.metric} {place}; {found.documents} documents are too "
            f"few to tell it from {base.patch}"
        )
    if not found.is_told:
        return (
            f"{found.documents} documents tell no patch from {base.patch} {place}; {row.patch} is "
            f"{abs(found.value):.3f} {row.metric} ahead"
        )
    return f"{row.patch} beats {base.patch} {place} by {abs(found.value):.3f} {row.metric}"


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, equal values sharing theirs; nan if one is constant."""

    def ranks(values: Sequence[float]) -> list[float]:
        order = sorted(values)
        return [order.index(one) + (order.count(one) - 1) / 2 for one in values]

    def centred(values: Sequence[float]) -> list[float]:
        mean = sum(values) / len(values)
        return [one - mean for one in values]

    x, y = centred(ranks(a)), centred(ranks(b))
    spread = math.sqrt(sum(one * one for one in x) * sum(one * one for one in y))
    return (
        sum(one * other for one, other in zip(x, y, strict=True)) / spread if spread else math.nan
    )


def about_retrieval(pairs: Sequence[tuple[Row, Row]]) -> str:
    """Whether patches whose loss is as low as any retrieve less, or go by their loss; one length.

    A loss within 5 % of the lowest is as low; less is retrieved if the interval lies below that of
    the best.
    """
    lowest = min(loss.value or 0.0 for loss, _ in pairs)
    best = max((row for _, row in pairs), key=lambda row: row.value or 0.0)
    loss, place = pairs[0][0], render_length(best.context_length)
    lost = [row for a, row in pairs if (a.value or 0.0) <= CLOSE * lowest and _is_below(row, best)]
    if lost:
        values = sorted({f"{row.value:.2g}" for row in lost}, key=float)
        least_to_most = " to ".join(dict.fromkeys((values[0], values[-1])))
        return (
            f"At {place} {', '.join(row.patch for row in lost)}: {loss.metric} within 5 % of the "
            f"lowest, {best.task} {least_to_most}, {best.value:.2g} under {best.patch}"
        )
    points = {(round(a.value or 0.0, 6), -round(b.value or 0.0, 6)) for a, b in pairs}
    if len(points) < FEWEST_POINTS:
        return (
            f"At {place} {len(points)} different points are too few to tell whether {loss.metric} "
            f"and {best.task} agree"
        )
    rho = rank_correlation(*zip(*sorted(points), strict=True))
    named = f"rank correlation {rho:.2f} over {len(points)} different points"
    if math.isnan(rho):
        return f"At {place} {best.task} is the same, {best.value:.2g}, whatever the {loss.metric}"
    sure = max(STRONG, 2 / math.sqrt(len(points) - 1))  # twice the spread of unrelated orders
    if abs(rho) >= sure:
        order = "better" if rho > 0 else "worse"
        return f"At {place} a lower {loss.metric} goes with {order} {best.task} ({named})"
    return f"At {place} {loss.metric} does not tell who does well on {best.task} ({named})"


def _is_below(row: Row, best: Row) -> bool:
    high, low = row.ci_high, best.ci_low
    return high is not None and low is not None and high < low


def about_depths(
    patch: str, values: Mapping[tuple[str, int], float], lengths: Sequence[int]
) -> str:
    """How far a patch finds all, and where it is worst; values by depth and length."""
    if not values:
        return f"{patch} has no value"
    within = []
    for length in lengths:
        there = [value for (_, one), value in values.items() if one == length]
        if not there or min(there) < 1:
            break
        within.append(length)
    if len(within) == len(lengths):
        return f"{patch} finds all at every depth up to {render_length(lengths[-1])}"
    (depth, length), worst = min(values.items(), key=lambda pair: pair[1])
    mean = sum(values.values()) / len(values)
    reach = f"finds all up to {render_length(within[-1])}," if within else "finds"
    return (
        f"{patch} {reach} {mean:.2f} on average, least ({worst:.2g}) at depth {depth} of "
        f"{render_length(length)}"
    )


def front(rows: Sequence[Row], cost: str) -> list[Row]:
    """Rows that no other beats in value without costing more, cheapest first."""
    chosen: list[Row] = []
    for row in sorted(rows, key=lambda row: (getattr(row, cost), _signed(row))):
        if not chosen or _signed(row) < _signed(chosen[-1]):
            chosen.append(row)
    return chosen


def about_cost(rows: Sequence[Row], cost: str, unit: str) -> str:
    """What the best value costs beside the cheapest cell."""
    chosen = front(rows, cost)
    cheap, best = chosen[0], chosen[-1]
    if len(rows) > 1 and len({row.value for row in rows}) == 1:
        return f"All have the same {best.metric}; {cheap.patch} takes the least {unit}"
    if cheap is best:
        return f"{best.patch} is the cheapest and has the best {best.metric}"
    ratio = getattr(best, cost) / getattr(cheap, cost) if getattr(cheap, cost) else math.inf
    if ratio < CLOSE:
        return f"The best {best.metric}, of {best.patch}, takes little more {unit} than the least"
    return (
        f"The best {best.metric}, of {best.patch}, takes {ratio:.1f} times the {unit} of "
        f"{cheap.patch}"
    )
