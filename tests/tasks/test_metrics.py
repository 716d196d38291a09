"""Metrics against the packages that define them; intervals against what they must do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from tasks.base import TaskError
from tasks.intervals import interval, paired_difference
from tasks.metrics import METRICS, bleu_stats, grouped_stats, rouge_stats

VECTORS = Path(__file__).parents[3] / "shared/data/metric_vectors/bleu_rouge_score.jsonl"
PAIRS = [
    ("the cat ran away from it", "the cat sat down with it"),  # no 4-gram in common: smoothed
    ("the cat sat on the mat", "the cat sat on a mat today"),
    ("", "nothing was said here"),
    ("He said: 'it is 3.5%', didn't he?", "He said 'it's 3.5 %', did he not?"),
    ("line one\nline two\n", "line one line two and three"),
    ("a a a a a a", "a b a"),
]
CHINESE = [("我们是学生", "我们是中国的学生。"), ("今天天气很好", "今天的天气很好")]


def corpus_value(pairs, lang):
    stats = [bleu_stats(said, meant, lang) for said, meant in pairs]
    name = "bleu-zh" if lang == "zh" else "bleu"
    return interval(name, stats, [f"d{i}" for i in range(len(pairs))], seed=0)[0]


@pytest.mark.parametrize("count", range(1, len(PAIRS) + 1))
def test_summed_counts_give_the_corpus_bleu_of_sacrebleu(count):
    said, meant = zip(*PAIRS[:count], strict=True)
    expected = sacrebleu.corpus_bleu(list(said), [list(meant)]).score
    assert corpus_value(PAIRS[:count], "en") == pytest.approx(expected, abs=1e-12)


def test_summed_counts_give_the_chinese_corpus_bleu_of_sacrebleu():
    said, meant = zip(*CHINESE, strict=True)
    expected = sacrebleu.corpus_bleu(list(said), [list(meant)], tokenize="zh").score
    assert expected > 10
    assert corpus_value(CHINESE, "zh") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("metric", "tokenizer"), [("bleu", "13a"), ("bleu-zh", "zh")])
def test_the_detail_of_bleu_is_its_signature(metric, tokenizer):
    assert METRICS[metric].detail == (
        f"nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:{sacrebleu.__version__}"
    )


def test_rouge_by_hand():
    scores = rouge_stats("the cat sat on the mat", "on the mat sat the dog", "en")
    assert scores["rouge1"] == (pytest.approx(5 / 6), 1.0)
    assert scores["rouge2"] == (pytest.approx(2 / 5), 1.0)  # on-the, the-mat
    assert scores["rougeL"] == (pytest.approx(3 / 6), 1.0)


def test_rouge_has_no_stemmer():
    assert rouge_stats("cats running", "cat run", "en")["rouge1"] == (0.0, 1.0)


def test_chinese_rouge_counts_characters():
    scores = rouge_stats("我们 好", "我们是", "zh")
    assert scores["rouge1"] == (pytest.approx(2 / 3), 1.0)
    assert scores["rouge2"] == (pytest.approx(1 / 2), 1.0)


@pytest.mark.skipif(not VECTORS.exists(), reason="no ../shared/data/metric_vectors here")
def test_bleu_and_rouge_agree_with_the_recorded_vectors():
    rows = [json.loads(line) for line in VECTORS.read_text(encoding="utf-8").split("\n") if line]
    rows = [row for row in rows if len(row["references"]) == 1]
    assert len(rows) > 50
    for row in rows:
        said, meant = row["prediction"], row["references"][0]
        for lang, tokenizer in (("en", "13a"), ("zh", "zh")):
            counts = [int(value) for value in bleu_stats(said, meant, lang)]
            score = sacrebleu.BLEU.compute_bleu(
                counts[2:6], counts[6:], counts[0], counts[1], "exp", effective_order=True
            ).score
            assert score == pytest.approx(row["sentence_bleu"][tokenizer], abs=1e-9), row["id"]
        for metric, (value, _) in rouge_stats(said, meant, "en").items():
            recorded = row["rouge_score"]["plain"][metric][2]
            assert value == pytest.approx(recorded, abs=1e-12), row["id"]


def means(values):
    return [(float(value), 1.0) for value in values]


def names(count):
    return [f"d{i}" for i in range(count)]


def test_the_interval_holds_the_value_and_has_the_width_of_the_mean():
    values = np.random.default_rng(1).normal(3.0, 1.0, 100)
    value, low, high = interval("nll", means(values), names(100), seed=0)
    assert value == pytest.approx(values.mean())
    assert low < value < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(60):
        _, low, high = interval("nll", means(rng.normal(0, 1, 30)), names(30), seed=trial)
        covered += low <= 0 <= high
    assert 50 <= covered <= 60


def test_the_seed_decides_the_interval_and_the_order_of_samples_does_not():
    values, documents = means([1, 2, 4, 8, 16]), names(5)
    one = interval("nll", values, documents, seed=3)
    assert one == interval("nll", values, documents, seed=3)
    assert one == interval("nll", values[::-1], documents[::-1], seed=3)
    spread = means(np.random.default_rng(0).normal(size=30))
    assert interval("nll", spread, names(30), 3) != interval("nll", spread, names(30), 4)


def test_samples_of_one_document_are_drawn_together():
    values = np.random.default_rng(0).normal(size=8)
    single = interval("nll", means(values), names(8), seed=0)
    copied = interval("nll", means(np.repeat(values, 5)), list(np.repeat(names(8), 5)), seed=0)
    assert copied == pytest.approx(single)


def test_documents_weigh_by_their_tokens():
    value, low, high = interval("nll", [(30.0, 10.0), (1.0, 1.0)], ["long", "short"], seed=0)
    assert value == pytest.approx(31 / 11)
    assert (low, high) == (1.0, 3.0)


def test_one_document_has_a_value_and_no_bounds():
    value, low, high = interval("nll", means([1, 2]), ["one", "one"], seed=0)
    assert value == 1.5
    assert math.isnan(low)
    assert math.isnan(high)
    difference, *bounds = paired_difference("nll", means([3]), means([1]), ["one"], seed=0)
    assert difference == 2.0
    assert all(map(math.isnan, bounds))


GROUPS = [["a"], ["b", "c"]]


def of_sets(values):
    """Statistics of (data set, value) pairs, and document ids."""
    stats = [grouped_stats(GROUPS, name, value) for name, value in values]
    return stats, names(len(values))


def test_documents_are_drawn_within_their_data_set():
    alike = [("a", 10)] * 3 + [("b", 90)] * 2 + [("c", 50)] * 2
    assert interval("longbench", *of_sets(alike), seed=0) == (40, 40, 40)
    rng = np.random.default_rng(4)
    drawn = {name: rng.normal(50, 9, count) for name, count in [("a", 60), ("b", 30), ("c", 45)]}
    pairs = [(name, value) for name, values in drawn.items() for value in values]
    value, low, high = interval("longbench", *of_sets(pairs), seed=0)
    error = {name: values.std() / len(values) ** 0.5 for name, values in drawn.items()}
    spread = math.hypot(error["a"] / 2, error["b"] / 4, error["c"] / 4)
    mean = {name: values.mean() for name, values in drawn.items()}
    assert value == pytest.approx(mean["a"] / 2 + mean["b"] / 4 + mean["c"] / 4)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_a_data_set_of_one_document_leaves_no_bounds():
    stats, documents = of_sets([("a", 10), ("a", 30), ("b", 50)])
    value, *bounds = interval("longbench", stats, documents, seed=0)
    assert value == 35
    assert all(map(math.isnan, bounds))
    *_, high = paired_difference("longbench", stats, stats, documents, seed=0)
    assert math.isnan(high)


def test_third_roots_are_of_means_within_data_sets():
    first, second = [8.0, 8.0, 8.0, 1.0], [27.0, 27.0, 27.0, 1.0]
    empty = [0.0] * 4
    stats = [first + empty] * 2 + [empty + second] * 2
    assert interval("leval-rouge", stats, names(4), seed=0) == pytest.approx((17.5,) * 3)


def test_a_constant_shift_has_a_paired_difference_without_width():
    values = np.random.default_rng(0).normal(size=20)
    shifted = paired_difference("nll", means(values + 0.5), means(values), names(20), seed=0)
    assert shifted == pytest.approx((0.5, 0.5, 0.5))
    _, low, high = interval("nll", means(values), names(20), seed=0)
    assert high - low > 0.3


def test_the_sign_of_a_paired_difference_is_first_minus_second():
    ups = paired_difference("ppl", means([2, 3, 4]), means([1, 1, 1]), names(3), seed=0)
    downs = paired_difference("ppl", means([1, 1, 1]), means([2, 3, 4]), names(3), seed=0)
    assert ups[0] > 0 > downs[0]
    assert 0 < ups[1] <= ups[0] <= ups[2]


def test_bleu_is_resampled_as_a_corpus_not_averaged():
    stats = [bleu_stats(said, meant, "en") for said, meant in PAIRS]
    value, low, high = interval("bleu", stats, names(len(PAIRS)), seed=0)
    assert 0 <= low < value < high <= 100
    averaged = np.mean([METRICS["bleu"].finish(one) for one in stats])
    assert abs(value - averaged) > 1


def test_infinite_and_missing_losses_reach_the_value_without_a_warning():
    value, low, high = interval("ppl", means([1, 1e6, 1]), names(3), seed=0)
    assert (value, high) == (math.inf, math.inf)
    assert low == pytest.approx(math.e)
    assert math.isnan(interval("nll", means([1, math.nan]), names(2), seed=0)[0])
    assert math.isnan(METRICS["accuracy"].finish((0.0, 0.0)))


def test_samples_and_documents_must_pair():
    with pytest.raises(TaskError, match="2 samples and 1 document ids"):
        interval("nll", means([1, 2]), ["one"], seed=0)
    with pytest.raises(TaskError, match="0 samples"):
        interval("nll", [], [], seed=0)
