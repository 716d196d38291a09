"""LongPPL counted by hand: which tokens are key, and what they cost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks import TaskError, parse
from tasks.base import Document, Output
from tasks.longppl import found_keys, intervals
from tasks.metrics import METRICS
from tests.tasks.toy import Bytes, Words

TEXT = "".join(map(chr, range(100)))
SPEC = "ppl(protocol=longppl,short=8)"


def made(length: int = 40, bos: int | None = 256, keys=None, spec: str = SPEC):
    document = Document("ramp", TEXT, keys=keys)
    return parse(spec).samples([document], Bytes(bos), length, 64, seed=0)[0]


def output(sample, *costs: dict[int, float]) -> Output:
    """Loss by token id, of the long pass and of the short ones; 1 nat otherwise."""
    places = [costs[0], *[costs[-1]] * (len(sample.passes) - 1)]
    nll = tuple(
        np.array([cost.get(token, 1.0) for token in one.tokens[one.score_from :]])
        for cost, one in zip(places, sample.passes, strict=True)
    )
    return Output(nll, tuple(one > 0 for one in nll))


def scores(sample, given: Output) -> dict[str, tuple[float, ...]]:
    return {one.metric: one.stats for one in parse(SPEC).score(sample, given)}


@pytest.mark.parametrize("bos", [256, None])
def test_every_token_behind_the_short_context_has_it_and_up_to_a_quarter_more(bos):
    sample = made(40, bos)
    long, *short = sample.passes
    assert len(long.tokens) == 40
    scored = [token for one in short for token in one.tokens[one.score_from :]]
    assert scored == list(long.tokens[1:])
    own = 0 if bos is None else 1
    for one in short[1:]:
        contexts = [place - own for place in range(one.score_from, len(one.tokens))]
        assert contexts == list(range(8, 8 + len(contexts))) and len(contexts) <= 2


def test_a_key_gains_more_than_two_nats_and_costs_less_than_two():
    sample = made()  # token t stands at t + 1; from position 8 on
    long = {20: 1.9, 21: 2.0, 22: 0.5, 23: 0.5, 3: 0.1}
    short = {20: 3.91, 21: 9.0, 22: 2.5, 23: 2.51, 3: 9.0}
    given = output(sample, long, short)
    assert found_keys(sample, given) == (21, 24)
    total = sum(long.get(token, 1.0) for token in range(7, 39))
    assert scores(sample, given) == {
        "nll": (pytest.approx(total), 32.0),
        "ppl": (pytest.approx(total), 32.0),
        "longppl-self": (pytest.approx(2.4), 2.0),
        "key_share": (2.0, 32.0),
    }
    assert METRICS["longppl-self"].finish((2.4, 2.0)) == pytest.approx(math.exp(1.2))


def test_the_first_tokens_that_can_be_key_are_those_behind_the_short_context():
    sample = made()
    given = output(sample, {6: 0.0, 7: 0.0}, {6: 9.0, 7: 9.0})
    assert found_keys(sample, given) == (8,)


def test_without_a_key_there_is_no_longppl():
    given = output(made(), {}, {})
    assert set(scores(made(), given)) == {"nll", "ppl", "key_share"}


@pytest.mark.parametrize("bos", [256, None])
def test_keys_of_the_data_are_the_tokens_wholly_inside_their_intervals(bos):
    sample = made(40, bos, keys=((10, 12), (30, 31), (90, 95)))
    assert len(sample.passes) == 1
    assert [sample.passes[0].tokens[place] for place in sample.keys] == [10, 11, 30]
    given = output(sample, {10: 0.5, 11: 0.25, 30: 4.0})
    assert scores(sample, given)["longppl"] == (4.75, 3.0)
    assert parse(SPEC).scored_tokens(sample) == 32


def test_a_token_that_reaches_over_an_interval_is_no_key():
    document = Document(
        "words", "aa bbbb cc dd ee ff gg hh ii jj", keys=((3, 6), (7, 10), (11, 16))
    )
    (sample,) = parse("ppl(protocol=longppl,short=2)").samples([document], Words(), 9, 64, seed=0)
    assert sample.keys == (3, 4, 5)  # cc, dd and ee behind BOS; bbbb ends at 7


def test_the_first_token_of_all_is_never_key():
    assert made(40, None, keys=((0, 2),)).keys == (1,)
    assert made(40, 256, keys=((0, 2),)).keys == (1, 2)


def test_intervals_that_touch_are_one():
    assert intervals([(0, 2), (2, 5), (6, 7), (7, 7), (7, 9)]) == ((0, 5), (6, 9))


def test_a_length_within_the_short_context_is_refused():
    with pytest.raises(TaskError, match="--len 8: protocol=longppl compares with 8 tokens"):
        made(8)
    with pytest.raises(TaskError, match="'short' belongs to protocol=longppl"):
        parse("ppl(short=8)")


def test_the_short_context_is_half_the_trained_length_and_4096_at_most():
    document = Document("long", "x" * 20_000)
    for trained, short in ((64, 32), (100_000, 4096)):
        task = parse("ppl(protocol=longppl)")
        (sample,) = task.samples([document], Bytes(None), 10_000, trained, seed=0)
        assert len(sample.passes[1].tokens) == short + short // 4
