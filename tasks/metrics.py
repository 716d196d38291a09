"""Metrics from sufficient statistics, and intervals that resample documents.

A metric's value is a function of the sum of its samples' statistics, so pooling over documents and
the bootstrap are the same operation. BLEU is on 0-100, as the field has it; ROUGE and accuracy are
on 0-1.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import Output, TaskError

__all__ = [
    "METRICS",
    "Metric",
    "accuracy_stats",
    "bleu_stats",
    "grouped_stats",
    "interval",
    "nll_stats",
    "overlap_stats",
    "paired_difference",
    "rouge_stats",
]

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)
ORDERS = 4
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
OF_TOKENS = ("nll", "ppl", "accuracy", "gain", "key_share", "longppl", "longppl-self")
MEMBERS = 4  # most data sets in a group of `grouped_stats`
Stats = Sequence[float]


@dataclass(frozen=True)
class Metric:
    """A metric: `finish` turns summed statistics into the value; `better` is lower or higher."""

    name: str
    finish: Callable[[Stats], float]
    better: str
    describe: Callable[[], str]
    effective: float | None = None  # what a length must reach to count as one the model can use

    @property
    def of_answer(self) -> bool:
        """True if it rests on the text of answers alone, and not on losses of given tokens."""
        return self.name not in OF_TOKENS

    @property
    def detail(self) -> str:
        """What exactly is computed, with the versions of the code that computes it."""
        return self.describe()


def _mean(stats: Stats) -> float:
    total, count = stats
    return total / count if count else math.nan


def _mean_of_groups(stats: Stats) -> float:
    """Mean over groups of the mean over a group's members of total / count, where they have one."""
    means = [
        total / count if count else None
        for total, count in zip(stats[::2], stats[1::2], strict=True)
    ]
    groups = (means[start : start + MEMBERS] for start in range(0, len(means), MEMBERS))
    found = [_plain_mean([one for one in group if one is not None]) for group in groups]
    return _plain_mean([one for one in found if not math.isnan(one)])


def _geometric_of_groups(stats: Stats) -> float:
    """Mean over data sets of the third root of the product of the means of three scores."""
    sets = [stats[start : start + 4] for start in range(0, len(stats), 4)]
    means = [[total / one[3] for total in one[:3]] for one in sets if one[3]]
    return _plain_mean([math.prod(three) ** (1 / 3) for three in means])


def _plain_mean(values: Stats) -> float:
    return sum(values) / len(values) if values else math.nan


def _ppl(stats: Stats) -> float:
    mean = _mean(stats)
    return math.inf if mean > 700 else math.exp(mean)  # math.exp raises beyond 709


def _bleu(stats: Stats) -> float:
    from sacrebleu import BLEU

    sys_len, ref_len, *counts = (int(value) for value in stats)
    correct, total = counts[:ORDERS], counts[ORDERS:]
    score = BLEU.compute_bleu(correct, total, sys_len, ref_len, smooth_method="exp")
    return float(score.score)


def _bleu_scorer(lang: str) -> Any:
    from sacrebleu import BLEU

    return BLEU(tokenize="zh" if lang == "zh" else "13a")


def _signature(lang: str) -> Callable[[], str]:
    def describe() -> str:
        scorer = _bleu_scorer(lang)
        scorer.corpus_score(["a"], [["a"]])  # the signature counts references only afterwards
        return str(scorer.get_signature())

    return describe


def _rouge_detail(tokenizer: str) -> Callable[[], str]:
    return lambda: f"F|stemmer:no|tok:{tokenizer}|rouge-score:{version('rouge-score')}"


def _ruler_detail() -> str:
    return (
        f"string_match_all, string_match_part for qa; words: wonderwords {version('wonderwords')}"
    )


def _longbench_detail() -> str:
    return "100 * metrics.py's score; code_sim by difflib; mean over categories of data-set means"


def _leval_detail() -> str:
    return f"geometric mean of mean ROUGE-1, -2 and -L; {_rouge_detail('default')()}"


def _table(metrics: Iterable[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


METRICS: dict[str, Metric] = _table(
    [
        Metric("nll", _mean, "lower", lambda: "sum of nll / scored tokens, in nats"),
        Metric("ppl", _ppl, "lower", lambda: "exp(sum of nll / scored tokens)"),
        Metric("accuracy", _mean, "higher", lambda: "scored tokens that are the argmax / all"),
        Metric("gain", _mean, "higher", lambda: "nll with the trained length minus nll with all"),
        Metric("key_share", _mean, "higher", lambda: "tokens with gain > 2 and nll < 2 / all"),
        Metric("longppl", _ppl, "lower", lambda: "exp(mean nll of the key tokens in the data)"),
        Metric("longppl-self", _ppl, "lower", lambda: "the same of keys the model itself finds"),
        Metric("exact_match", _mean, "higher", lambda: "answers equal to the hidden one / all"),
        Metric("string_match", _mean, "higher", lambda: "mean share of references in the answer"),
        Metric("ruler", _mean, "higher", _ruler_detail, effective=85.6),
        Metric("infinitebench", _mean_of_groups, "higher", lambda: "100 * compute_scores.py's"),
        Metric("longbench", _mean_of_groups, "higher", _longbench_detail),
        Metric("longbench-v2", _mean, "higher", lambda: "100 * right letters / all"),
        Metric("leval-exam", _mean_of_groups, "higher", lambda: "100 * em.py's exact match"),
        Metric("leval-f1", _mean_of_groups, "higher", lambda: "100 * f1.py's F1"),
        Metric("leval-rouge", _geometric_of_groups, "higher", _leval_detail),
        Metric("bleu", _bleu, "higher", _signature("en")),
        Metric("bleu-zh", _bleu, "higher", _signature("zh")),
        *(Metric(name, _mean, "higher", _rouge_detail("default")) for name in ROUGE_TYPES),
        *(Metric(f"{name}-zh", _mean, "higher", _rouge_detail("char")) for name in ROUGE_TYPES),
    ]
)


def grouped_stats(groups: Sequence[Sequence[str]], member: str, value: float) -> tuple[float, ...]:
    """Return the statistics of one value of a member, for a mean over groups of means of members.

    Every member has a total and a count of its own, so members weigh the same in their group and
    groups the same in the whole, whatever the number of samples.
    """
    places = [one for group in groups for one in [*group, *[""] * (MEMBERS - len(group))]]
    assert len(places) == MEMBERS * len(groups)
    return tuple(part for one in places for part in ((value, 1.0) if one == member else (0.0, 0.0)))


def nll_stats(output: Output) -> tuple[float, float]:
    """Return (sum of nll, scored tokens) over all passes."""
    return sum(float(one.sum()) for one in output.nll), float(sum(map(len, output.nll)))


def accuracy_stats(output: Output) -> tuple[float, float]:
    """Return (tokens predicted right, scored tokens) over all passes."""
    return float(sum(int(one.sum()) for one in output.hits)), float(sum(map(len, output.hits)))


def bleu_stats(prediction: str, reference: str, lang: str) -> tuple[float, ...]:
    """Return (prediction length, reference length, 4 matches, 4 totals) of corpus BLEU."""
    score = _bleu_scorer(lang).corpus_score([prediction], [[reference]])
    return tuple(map(float, (score.sys_len, score.ref_len, *score.counts, *score.totals)))


class _Characters:
    """Tokenizer of rouge-score: each character that is not blank, lower-cased."""

    def tokenize(self, text: str) -> list[str]:
        return [character for character in text.lower() if not character.isspace()]


def rouge_stats(prediction: str, reference: str, lang: str) -> dict[str, tuple[float, float]]:
    """Return (F, 1) of ROUGE-1, ROUGE-2 and ROUGE-L, on characters where lang is zh."""
    scorer = import_module("rouge_score.rouge_scorer").RougeScorer  # the package has no types
    tokenizer = _Characters() if lang == "zh" else None
    scores = scorer(list(ROUGE_TYPES), tokenizer=tokenizer).score(reference, prediction)
    return {name: (float(scores[name].fmeasure), 1.0) for name in ROUGE_TYPES}


def overlap_stats(
    prediction: str, references: Sequence[str], lang: str
) -> list[tuple[str, tuple[float, ...]]]:
    """Return BLEU's counts and each ROUGE's (F, 1) by metric, each against its best reference."""
    bleu = max((bleu_stats(prediction, one, lang) for one in references), key=_bleu)
    rouge = [rouge_stats(prediction, one, lang) for one in references]
    best = [(name, max(one[name] for one in rouge)) for name in ROUGE_TYPES]
    suffix = "-zh" if lang == "zh" else ""
    return [(f"{name}{suffix}", stats) for name, stats in [("bleu", bleu), *best]]


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


def _resampled(
    sums: NDArray[np.float64], finish: Callable[[Stats], float], seed: int
) -> list[float]:
    """Values on resampled documents; the resamples depend on the seed and document count only."""
    count = len(sums)
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    return [finish(sums[rows].sum(axis=0).tolist()) for rows in drawn]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    # An order statistic: no interpolation, which would turn two infinite values into nan.
    low, high = np.percentile(np.asarray(values), PERCENTILES, method="inverted_cdf")
    return float(low), float(high)


def interval(
    metric: str, stats_by_sample: Sequence[Stats], documents: Sequence[str], seed: int
) -> tuple[float, float, float]:
    """Return a metric's value and its 95 % percentile bootstrap interval over documents.

    All samples of a document are drawn together. One document says nothing about the spread over
    documents: both bounds are nan then.

    Args:
        metric: name in METRICS.
        stats_by_sample: sufficient statistics, one entry a sample.
        documents: document id of each sample.
        seed: seed of the resampling.
    """
    sums, finish = _by_document(stats_by_sample, documents), METRICS[metric].finish
    value = finish(sums.sum(axis=0).tolist())
    if len(sums) == 1:
        return value, math.nan, math.nan
    return value, *_bounds(_resampled(sums, finish, seed))


def paired_difference(
    metric: str,
    stats_a: Sequence[Stats],
    stats_b: Sequence[Stats],
    documents: Sequence[str],
    seed: int,
) -> tuple[float, float, float]:
    """Return value(a) - value(b) on the same samples, and its interval over the same resamples.

    Both bounds are nan where there is one document.

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
    if len(sums_a) == 1:
        return value, math.nan, math.nan
    pairs = zip(_resampled(sums_a, finish, seed), _resampled(sums_b, finish, seed), strict=True)
    return value, *_bounds([a - b for a, b in pairs])
