"""Pairs of finished cells on one metric: what their difference says, as a table or as JSON."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.lengths import render_length
from harness.reports.pairs import FEWEST_DOCUMENTS, Difference, difference
from harness.reports.report import aligned, with_interval
from harness.reports.rerun import WIDTH, signature_of, signature_of_table
from harness.results import Record, Row

__all__ = ["Comparison", "as_entry", "cell_of", "compare", "render"]


@dataclass(frozen=True)
class Comparison:
    """Two cells that differ in what is compared alone, on one metric.

    Attributes:
        noise: differences up to this are nothing but arithmetic.
    """

    a: Row
    b: Row
    difference: Difference | None
    noise: float = 0.0

    @property
    def value_a(self) -> float:
        """A's value."""
        return self.a.value or 0.0

    @property
    def verdict(self) -> str:
        """What the difference says of B."""
        if self.difference is None:
            failed = [name for name, row in (("A", self.a), ("B", self.b)) if row.status != "ok"]
            return f"{' and '.join(failed)} failed"
        if self.difference.documents < FEWEST_DOCUMENTS:
            return f"none below n {FEWEST_DOCUMENTS}"
        if not self.difference.is_told:
            return f"no difference at n {self.difference.documents}"
        if abs(self.difference.value) <= self.noise:
            return f"below noise {self.noise:g}"
        return "worse" if (self.difference.value > 0) == (self.b.better == "lower") else "better"


def compare(a: Record, b: Record, metrics: Sequence[str], noise: float = 0.0) -> list[Comparison]:
    """Comparisons of two cells on the metrics, or on the first.

    Raises:
        HarnessError: their samples are not the same although their settings are.
    """
    if a.status != "ok" or b.status != "ok":
        return [Comparison(a.rows[0], b.rows[0], None)]
    whole = [row for row in b.rows if not row.position] or list(b.rows)
    first = whole[0].metric
    comparisons = []
    for row in whole:
        if row.metric not in (metrics or [first]):
            continue
        partner = [x for x in a.rows if (x.metric, x.position) == (row.metric, row.position)]
        found = difference(b, a, row.metric, row.position)
        if not partner or found is None:
            raise HarnessError(
                f"{cell_of(row)}: A and B scored other samples (code {a.rows[0].code}, "
                f"{row.code}); run both sides with one version"
            )
        comparisons.append(Comparison(partner[0], row, found, noise))
    return comparisons


def cell_of(row: Row) -> str:
    """A cell in words."""
    return f"{row.model} {row.task} {render_length(row.context_length)} {row.patch}"


def render(comparisons: Sequence[Comparison], name_a: str, name_b: str) -> str:
    """A line a pair, and the signatures of both sides."""
    lines = [["cell", "metric", "A", "B", "B - A", "of A", "B is"]]
    for one in comparisons:
        patch = one.b.patch if one.a.patch == one.b.patch else f"{one.a.patch} -> {one.b.patch}"
        length = render_length(one.b.context_length)
        cell = f"{one.b.model} {one.b.task} {length} {patch}"
        found, place = one.difference, f"@{one.b.position}" if one.b.position else ""
        if found is None:
            lines.append([cell, "-", one.a.status, one.b.status, "-", "-", one.verdict])
            continue
        values = (with_interval(row.value or 0.0, None, None) for row in (one.a, one.b))
        change = with_interval(found.value, found.low, found.high, "+")
        share = f"{found.value / abs(one.value_a):+.2%}" if one.value_a else "-"
        lines.append([cell, one.b.metric + place, *values, change, share, one.verdict])
    head = textwrap.fill(f"A {name_a}  B {name_b}  [95 % bootstrap over documents]", WIDTH)
    return f"{head}\n\n{aligned(lines)}\n{_signatures(comparisons)}"


def _signatures(comparisons: Sequence[Comparison]) -> str:
    """That of A and that of B, or one where they are the same."""
    a, b = ([getattr(one, side) for one in comparisons] for side in ("a", "b"))
    if signature_of_table(a) == signature_of_table(b):
        return signature_of_table(a)
    return signature_of_table(a, "A ") + signature_of_table(b, "B ")


def as_entry(one: Comparison) -> dict[str, Any]:
    """A pair as an object of JSON."""
    sides = {
        name: {
            "patch": row.patch,
            "value": row.value,
            "status": row.status,
            "cell": row.cell,
            "signature": signature_of(row),
        }
        for name, row in (("a", one.a), ("b", one.b))
    }
    found = one.difference
    return {
        "model": one.b.model,
        "task": one.b.task,
        "context_length": one.b.context_length,
        "metric": one.b.metric,
        "position": one.b.position,
        **sides,
        "difference": found and found.value,
        "ci_low": found and found.low,
        "ci_high": found and found.high,
        "documents": found and found.documents,
        "verdict": one.verdict,
    }
