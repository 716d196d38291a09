"""What the context beyond the trained length is worth, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tasks import TaskError, parse
from tasks.base import Document, Output
from tests.tasks.toy import Bytes

TEXT = Document("ramp", "".join(map(chr, range(100))))


@pytest.mark.parametrize("bos", [256, None])
@pytest.mark.parametrize("length", [9, 13, 32, 63])
def test_every_token_stands_once_in_the_short_passes_in_the_order_of_the_long(bos, length):
    (sample,) = parse("gain").samples([TEXT], Bytes(bos), length, 8, seed=0)
    long, *short = sample.passes
    assert len(long.tokens) == length and long.score_from == 1
    scored = [token for one in short for token in one.tokens[one.score_from :]]
    assert scored == list(long.tokens[1:])
    assert len(short[0].tokens) == 8 and max(len(one.tokens) for one in short) == 8
    for one in short[1:]:
        assert one.score_from >= 4


def output(sample, long: dict[int, float], short: dict[int, float]) -> Output:
    def nll(one, costs):
        return np.array([costs.get(token, 1.0) for token in one.tokens[one.score_from :]])

    passes = (nll(sample.passes[0], long), *(nll(one, short) for one in sample.passes[1:]))
    return Output(passes, tuple(one > 0 for one in passes))


def test_gain_is_short_minus_long_beyond_the_trained_length_by_bucket():
    (sample,) = parse("gain").samples([TEXT], Bytes(), 24, 8, seed=0)  # text token t at t + 1
    short = {2: 50.0, 7: 3.0, 10: 5.0, 20: 4.0, 22: 9.0}
    scores = parse("gain").score(sample, output(sample, {22: 2.5, 15: 4.0}, short))
    assert {(one.metric, one.position): one.stats for one in scores} == {
        ("gain", ""): (2.0 + 4.0 - 3.0 + 3.0 + 6.5, 16.0),  # 7 is at position 8, 2 is not beyond
        ("key_share", ""): (2.0, 16.0),  # 10 and 20: 7 gains 2.0, 22 costs 2.5
        ("gain", "8:16"): (2.0 + 4.0, 8.0),
        ("key_share", "8:16"): (1.0, 8.0),
        ("gain", "16:24"): (-3.0 + 3.0 + 6.5, 8.0),
        ("key_share", "16:24"): (1.0, 8.0),
    }


def test_a_length_within_the_trained_one_is_refused():
    with pytest.raises(TaskError, match="--len 8: gain compares with the trained length 8"):
        parse("gain").samples([TEXT], Bytes(), 8, 8, seed=0)


def test_a_model_that_sees_its_trained_length_alone_gains_little_and_truncate_nothing():
    (sample,) = parse("gain").samples([TEXT], Bytes(), 64, 16, seed=0)

    def cost(context: int) -> float:
        return 4.0 * context**-0.5

    def nll(one, most):
        places = range(one.score_from, len(one.tokens))
        return np.array([cost(min(place, most)) for place in places])

    short = tuple(nll(one, 16) for one in sample.passes[1:])
    window = Output((nll(sample.passes[0], 15), *short), ())
    far = Output((nll(sample.passes[0], 64), *short), ())
    scores = [parse("gain").score(sample, one)[0].stats for one in (window, far)]
    assert 0 < scores[0][0] / scores[0][1] < 0.4 < scores[1][0] / scores[1][1]
    assert parse("gain").scored_tokens(sample) == 64 - 16 == scores[0][1]
