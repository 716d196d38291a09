"""From what the samples of a cell scored to its rows. Imports no torch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.results import Row, Scores
from tasks.intervals import interval
from tasks.metrics import METRICS

__all__ = ["total_rows"]


def total_rows(row: Row, samples: Sequence[Scores]) -> Iterator[Row]:
    """Yield one row a metric and position, with the interval over documents.

    Args:
        row: everything but the metric.
        samples: what each sample scored.
    """
    places = dict.fromkeys(
        (metric, position) for sample in samples for metric, position, _ in sample["scores"]
    )
    for metric, position in places:
        scored = [
            (stats, str(sample["document"]))
            for sample in samples
            for name, place, stats in sample["scores"]
            if (name, place) == (metric, position)
        ]
        stats, documents = zip(*scored, strict=True)
        value, low, high = interval(metric, stats, documents, row.seed)
        yield replace(
            row,
            metric=metric,
            position=position,
            n=len(set(documents)),
            value=value,
            ci_low=None if math.isnan(low) else low,
            ci_high=None if math.isnan(high) else high,
            better=METRICS[metric].better,
            metric_detail=METRICS[metric].detail,
        )
