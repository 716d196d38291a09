"""Metrics of a finished cell again, from the answers that its record holds. Imports no torch."""

import math
from dataclasses import dataclass, replace
from typing import Any

import tasks
from harness.results import Record, Row, Scores
from harness.totals import total_rows
from tasks.base import Output, Sample, Task
from tasks.metrics import METRICS

__all__ = ["Line", "is_of_answer", "lines_of", "recompute", "same", "sample_of"]

TOLERANCE = 1e-9  # relative: sums may be taken in another order elsewhere


@dataclass(frozen=True)
class Line:
    """One metric of a cell, from the stored answers and as it was stored.

    `changed` counts the samples whose scores are others now.
    """

    model: str
    patch: str
    task: str
    context_length: int
    metric: str
    position: str
    n: int
    value: float | None
    ci_low: float | None
    ci_high: float | None
    stored: float | None
    changed: int
    cell: str

    @property
    def differs(self) -> bool:
        """True if it is not what is stored."""
        return self.changed > 0 or not same(self.value, self.stored)


def is_of_answer(row: Row) -> bool:
    """Whether the metric of a row rests on answers alone."""
    return row.metric in METRICS and METRICS[row.metric].of_answer


def recompute(record: Record) -> list[tuple[Row, int]]:
    """Rows of the metrics that rest on answers, and how many samples score otherwise than stored.

    Nothing for a cell that failed, or whose metrics rest on given tokens.

    Raises:
        TaskError: the task, a parameter of it or a reference is not known to this version.
    """
    if not any(map(is_of_answer, record.rows)):
        return []
    task = tasks.parse(record.rows[0].task)
    fresh: list[Scores] = [{**one, "scores": _scores(task, one)} for one in record.samples]
    pairs = list(zip(map(_by_place, record.samples), map(_by_place, fresh), strict=True))
    return [
        (row, sum(not _alike(*pair, (row.metric, row.position)) for pair in pairs))
        for row in total_rows(record.rows[0], fresh)
    ]


def lines_of(record: Record) -> list[Line]:
    """The metrics of a cell that rest on answers; one that is gone from its task has no value.

    Raises:
        TaskError: see `recompute`.
    """
    stored = {(row.metric, row.position): row for row in record.rows}
    found = {(row.metric, row.position): (row, changed) for row, changed in recompute(record)}
    lost = {
        place: (replace(row, value=None, ci_low=None, ci_high=None), len(record.samples))
        for place, row in stored.items()
        if place not in found and is_of_answer(row)
    }
    return [
        Line(
            *(row.model, row.patch, row.task, row.context_length, row.metric, row.position),
            *(row.n, row.value, row.ci_low, row.ci_high),
            stored=stored[place].value if place in stored else None,
            changed=changed,
            cell=row.cell,
        )
        for place, (row, changed) in (found | lost).items()
    ]


def sample_of(stored: Scores) -> Sample:
    """What was asked, as far as a record holds it: no tokens."""
    references = tuple(stored["references"])
    return Sample(
        id=stored["id"],
        document=stored["document"],
        reference=references[0] if references else "",
        references=references,
        classes=tuple(stored["classes"]),
        position=stored["position"],
        fields=stored["fields"],
    )


def same(value: float | None, other: float | None) -> bool:
    """Whether two values are one: both missing, both nan, or as close as sums of floats are."""
    if value is None or other is None:
        return value is other
    both_nan = math.isnan(value) and math.isnan(other)
    return both_nan or math.isclose(value, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _scores(task: Task, stored: Scores) -> list[Any]:
    found = task.score(sample_of(stored), Output((), (), (), stored["text"]))
    answered = [one for one in found if METRICS[one.metric].of_answer]
    return [[one.metric, one.position, list(one.stats)] for one in answered]


def _by_place(sample: Scores) -> dict[tuple[str, str], list[float]]:
    return {(metric, position): stats for metric, position, stats in sample["scores"]}


def _alike(
    before: dict[tuple[str, str], list[float]],
    now: dict[tuple[str, str], list[float]],
    place: tuple[str, str],
) -> bool:
    old, new = before.get(place, []), now.get(place, [])
    return len(old) == len(new) and all(map(same, old, new))
