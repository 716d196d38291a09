"""Values of metrics with intervals that resample documents.

Where a value is a mean of data sets' means, documents are drawn within each data set, so that each
resample has as many of each as the data (the stratified bootstrap of Efron and Tibshirani 1993,
An Introduction to the Bootstrap, section 8.3, for samples of several populations).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.base import TaskError
from tasks.metrics import METRICS, Metric, Stats

__all__ = ["interval", "paired_difference"]

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)


def _by_document(stats_by_sample: Sequence[Stats], documents: Sequence[str]) -> NDArray[np.float64]:
    """Sum statistics within documents, in the order of document ids: [documents, stats]."""
    if not stats_by_sample or len(stats_by_sample) != len(documents):
        raise TaskError(
            f"{len(stats_by_sample)} samples and {len(documents)} document ids; "
            "expected one id a sample and at least one sample"
        )
    table = np.asarray(stats_by_sample, dtype=np.float64)
    names, rows = np.unique(np.asarray(documents), return_inverse=True)
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, rows, table)
    return sums


def _strata(metric: Metric, sums: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Rows of the documents of each data set; all in one where the value has one mean."""
    if metric.sets is None:
        return [np.arange(len(sums))]
    _, kinds = np.unique(sums[:, metric.sets] > 0, axis=0, return_inverse=True)
    return [np.flatnonzero(kinds.ravel() == kind) for kind in range(kinds.max() + 1)]


def _draws(strata: Sequence[NDArray[np.int64]], seed: int) -> NDArray[np.int64] | None:
    """Rows of each resample [resamples, documents], by the seed and the strata's sizes only.

    None where a stratum has one document, which says nothing about the spread over documents.
    """
    if min(map(len, strata)) == 1:
        return None
    rng = np.random.default_rng(seed)
    drawn = [rows[rng.integers(0, len(rows), (RESAMPLES, len(rows)))] for rows in strata]
    return np.concatenate(drawn, axis=1)


def _resampled(
    sums: NDArray[np.float64], finish: Callable[[Stats], float], draws: NDArray[np.int64]
) -> list[float]:
    return [finish(sums[rows].sum(axis=0).tolist()) for rows in draws]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    # An order statistic: no interpolation, which would turn two infinite values into nan.
    low, high = np.percentile(np.asarray(values), PERCENTILES, method="inverted_cdf")
    return float(low), float(high)


def interval(
    metric: str, stats_by_sample: Sequence[Stats], documents: Sequence[str], seed: int
) -> tuple[float, float, float]:
    """Return a metric's value and its 95 % percentile bootstrap interval over documents.

    All samples of a document are drawn together. One document, in all or of a data set whose mean
    is a part of the value, says nothing about the spread over documents: both bounds are nan then.

    Args:
        metric: name in METRICS.
        stats_by_sample: sufficient statistics, one entry a sample.
        documents: document id of each sample.
        seed: seed of the resampling.
    """
    sums, finish = _by_document(stats_by_sample, documents), METRICS[metric].finish
    value = finish(sums.sum(axis=0).tolist())
    draws = _draws(_strata(METRICS[metric], sums), seed)
    if draws is None:
        return value, math.nan, math.nan
    return value, *_bounds(_resampled(sums, finish, draws))


def paired_difference(
    metric: str,
    stats_a: Sequence[Stats],
    stats_b: Sequence[Stats],
    documents: Sequence[str],
    seed: int,
) -> tuple[float, float, float]:
    """Return value(a) - value(b) on the same samples, and its interval over the same resamples.

    Both bounds are nan where `interval`'s are.

    Args:
        metric: name in METRICS.
        stats_a: sufficient statistics, one entry a sample.
        stats_b: the same for the other side, in the same order of samples.
        documents: document id of each sample.
        seed: seed of the resampling.
    """
    sums_a, sums_b = _by_document(stats_a, documents), _by_document(stats_b, documents)
    finish = METRICS[metric].finish
    value = finish(sums_a.sum(axis=0).tolist()) - finish(sums_b.sum(axis=0).tolist())
    draws = _draws(_strata(METRICS[metric], sums_a), seed)
    if draws is None:
        return value, math.nan, math.nan
    pairs = zip(_resampled(sums_a, finish, draws), _resampled(sums_b, finish, draws), strict=True)
    return value, *_bounds([a - b for a, b in pairs])
