"""Metrics from sufficient statistics.

A metric's value is a function of the sum of its samples' statistics, so pooling over documents and
the bootstrap (intervals.py) are the same operation. BLEU is on 0-100, as the field has it; ROUGE
and accuracy are on 0-1.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

from tasks.base import Output
from tasks.official.longbench import LEVENSHTEIN

__all__ = [
    "METRICS",
    "Metric",
    "accuracy_stats",
    "bleu_stats",
    "grouped_stats",
    "nll_stats",
    "overlap_stats",
    "rouge_stats",
]

ORDERS = 4
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
OF_TOKENS = ("nll", "ppl", "accuracy", "gain", "key_share", "longppl", "longppl-self")
MEMBERS = 4  # most data sets in a group of `grouped_stats`
Stats = Sequence[float]


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        finish: turns summed statistics into the value.
        better: lower or higher.
        effective: what a length must reach to count as one the model can use.
        sets: where among the statistics the counts of data sets stand that each have a mean of
            their own in the value; None: all samples have one mean.
    """

    name: str
    finish: Callable[[Stats], float]
    better: str
    describe: Callable[[], str]
    effective: float | None = None
    sets: slice | None = None

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


def _geometric(stats: Stats) -> float:
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


def _of_groups(name: str, describe: Callable[[], str]) -> Metric:
    return Metric(name, _mean_of_groups, "higher", describe, sets=slice(1, None, 2))


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
        _of_groups("infinitebench", lambda: "100 * compute_scores.py's"),
        _of_groups("longbench", _longbench_detail),
        _of_groups(LEVENSHTEIN, lambda: "100 * code_sim by common subsequences, as rapidfuzz"),
        Metric("longbench-v2", _mean, "higher", lambda: "100 * right letters / all"),
        _of_groups("leval-exam", lambda: "100 * em.py's exact match"),
        _of_groups("leval-f1", lambda: "100 * f1.py's F1"),
        Metric("leval-rouge", _geometric, "higher", _leval_detail, sets=slice(3, None, 4)),
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
