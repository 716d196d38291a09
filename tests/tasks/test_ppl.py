"""Which tokens each protocol of ppl scores, counted by hand."""

import math

import numpy as np
import pytest

from tasks import TaskError, parse
from tasks.base import Document, Output
from tests.tasks.toy import Bytes, played, story

BOS = 256


def ramp(count: int) -> Document:
    """A document whose byte tokens are their own positions."""
    return Document("ramp", "".join(map(chr, range(count))))


def sample_of(spec, count, length, trained=16, bos=BOS):
    return parse(spec).samples([ramp(count)], Bytes(bos), length, trained, seed=0)[0]


def scored(sample):
    return [one.tokens[one.score_from :] for one in sample.passes]


def test_last_is_bos_and_the_end_of_the_document_and_scores_its_last_tokens():
    sample = sample_of("ppl(last=4)", 100, 10)
    assert sample.passes[0].tokens == (BOS, *range(91, 100))
    assert scored(sample) == [(96, 97, 98, 99)]


def test_last_without_bos_fills_the_length_with_text():
    sample = sample_of("ppl(last=4)", 100, 10, bos=None)
    assert sample.passes[0].tokens == tuple(range(90, 100))
    assert scored(sample) == [(96, 97, 98, 99)]


def test_last_scores_the_same_tokens_at_every_length():
    results = {tuple(scored(sample_of("ppl", 127, length))[0]) for length in (9, 16, 64, 128)}
    assert results == {tuple(range(119, 127))}  # trained length 16, so 8 tokens


@pytest.mark.parametrize(("trained", "tokens"), [(256, 128), (2048, 1024), (8192, 1024)])
def test_last_is_half_the_trained_length_and_at_most_1024(trained, tokens):
    samples = parse("ppl").samples([story("one", 5000)], Bytes(), 2048, trained, seed=0)
    assert len(scored(samples[0])[0]) == tokens


def test_last_uses_a_document_that_fits_exactly_and_refuses_one_token_less():
    assert sample_of("ppl(last=4)", 9, 10).passes[0].tokens == (BOS, *range(9))
    with pytest.raises(TaskError, match="'ramp' has 8 tokens and a length of 10 needs 9"):
        sample_of("ppl(last=4)", 8, 10)


def test_last_refuses_to_score_the_whole_input():
    assert len(scored(sample_of("ppl(last=9)", 100, 10))[0]) == 9
    with pytest.raises(TaskError, match="--len 10: ppl scores the last 10 tokens"):
        sample_of("ppl(last=10)", 100, 10)


def test_sliding_scores_only_new_tokens_in_windows_that_begin_with_bos():
    sample = sample_of("ppl(protocol=sliding,stride=4,tokens=24)", 100, 10)
    assert [one.tokens for one in sample.passes] == [
        (BOS, *range(9)),
        (BOS, *range(4, 13)),
        (BOS, *range(8, 17)),
        (BOS, *range(12, 21)),
        (BOS, *range(16, 24)),
    ]
    assert list(map(len, scored(sample))) == [9, 4, 4, 4, 3]


def test_sliding_counts_twice_the_length_by_default():
    with_bos = sample_of("ppl(protocol=sliding,stride=4)", 100, 10)
    assert list(map(len, scored(with_bos))) == [9, 4, 4, 3]
    without = sample_of("ppl(protocol=sliding,stride=4)", 100, 10, bos=None)
    assert list(map(len, scored(without))) == [9, 4, 4, 2]  # windows of 10; token 0 is unscored


@pytest.mark.parametrize(("trained", "stride"), [(64, 32), (512, 256), (4096, 256)])
def test_the_stride_is_half_the_trained_length_and_at_most_256(trained, stride):
    spec = "ppl(protocol=sliding)"
    (sample,) = parse(spec).samples([story("one", 900)], Bytes(), 1024, trained, seed=0)
    assert len(scored(sample)[1]) == stride


def test_sliding_takes_a_shorter_document_whole():
    assert sum(map(len, scored(sample_of("ppl(protocol=sliding,stride=4)", 13, 10)))) == 13


@pytest.mark.parametrize("bos", [BOS, None])
@pytest.mark.parametrize("length", [2, 7, 16])
@pytest.mark.parametrize("stride", [1, 3, 6])
@pytest.mark.parametrize("count", [16, 17, 30, 32])
def test_sliding_scores_every_token_once(bos, length, stride, count):
    window = length - (bos is not None)
    spec = f"ppl(protocol=sliding,stride={stride},tokens={count})"
    if stride > window:
        with pytest.raises(TaskError, match=f"stride of {stride}"):
            sample_of(spec, 100, length, bos=bos)
        return
    sample = sample_of(spec, 100, length, bos=bos)
    flat = [token for tokens in scored(sample) for token in tokens]
    assert flat == list(range(0 if bos else 1, count))
    assert all(len(one.tokens) <= length for one in sample.passes)


def test_sliding_refuses_tokens_that_a_document_lacks_or_that_fill_no_window():
    with pytest.raises(TaskError, match="has 20 tokens and protocol=sliding needs 24"):
        sample_of("ppl(protocol=sliding,tokens=24)", 20, 10)
    with pytest.raises(TaskError, match=r"tokens=8\) does not fill one window.*tokens=9"):
        sample_of("ppl(protocol=sliding,tokens=8)", 20, 10)


def test_by_position_puts_each_target_in_the_bucket_of_its_position():
    sample = sample_of("ppl(protocol=by-position,bucket=4)", 100, 10)
    assert scored(sample) == [tuple(range(9))]
    nll = np.arange(1.0, 10.0)  # position p has loss p
    output = Output((nll,), (np.ones(9, dtype=bool),))
    scores = parse("ppl(protocol=by-position,bucket=4)").score(sample, output)
    stats = {score.position: score.stats for score in scores if score.metric == "nll"}
    assert stats == {
        "": (45.0, 9.0),
        "0:4": (1.0 + 2 + 3, 3.0),
        "4:8": (4.0 + 5 + 6 + 7, 4.0),
        "8:10": (8.0 + 9, 2.0),
    }
    assert {score.metric for score in scores} == {"nll", "ppl"}


def test_by_position_has_eight_buckets_by_default_and_no_empty_one():
    task = parse("ppl(protocol=by-position)")
    sample = sample_of(task.spec, 100, 64)
    scores = task.score(sample, played(sample, lambda _: 1.0, True))
    assert [score.position for score in scores if score.metric == "nll"] == [
        "",
        *(f"{low}:{low + 8}" for low in range(0, 64, 8)),
    ]
    ones = parse("ppl(protocol=by-position,bucket=1)")
    scores = ones.score(sample, played(sample, lambda _: 1.0, True))
    assert all(score.stats[1] >= 1 for score in scores)


def test_the_value_is_the_sum_over_tokens_not_the_mean_of_windows():
    task = parse("ppl(protocol=sliding,stride=4,tokens=24)")
    sample = sample_of(task.spec, 100, 10)
    scores = task.score(sample, played(sample, lambda token: float(token), True))
    assert [(score.metric, score.stats) for score in scores] == [
        ("nll", (276.0, 24.0)),  # 0 + 1 + … + 23
        ("ppl", (276.0, 24.0)),
    ]


def test_ppl_is_the_exponential_of_the_pooled_nll():
    from tasks.metrics import METRICS

    assert METRICS["ppl"].finish((276.0, 24.0)) == pytest.approx(math.exp(11.5))
    assert METRICS["ppl"].finish((1e6, 10.0)) == math.inf
    assert math.isnan(METRICS["ppl"].finish((math.nan, 10.0)))


def test_a_trained_length_without_a_default_asks_for_the_parameter():
    with pytest.raises(TaskError, match="last"):
        sample_of("ppl", 100, 10, trained=1)
