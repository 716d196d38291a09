"""Copies of a short text: what is copied and what is scored."""

import numpy as np
import pytest

from tasks import TaskError, parse
from tasks.base import Document, Output
from tests.tasks.toy import Bytes

RAMP = Document("ramp", "".join(map(chr, range(100))))


def sample_of(spec, length, trained=16, bos=256):
    return parse(spec).samples([RAMP], Bytes(bos), length, trained, seed=0)[0]


def test_the_text_is_copied_after_one_bos_and_all_but_the_first_copy_is_scored():
    (one,) = sample_of("repeat(unit=3)", 10).passes
    assert one.tokens == (256, 0, 1, 2, 0, 1, 2, 0, 1, 2)
    assert one.tokens[one.score_from :] == (0, 1, 2, 0, 1, 2)


def test_without_bos_the_first_copy_begins_the_input_and_the_last_is_cut():
    (one,) = sample_of("repeat(unit=3)", 10, bos=None).passes
    assert one.tokens == (0, 1, 2, 0, 1, 2, 0, 1, 2, 0)
    assert one.score_from == 3


def test_the_unit_is_a_quarter_of_the_trained_length():
    (one,) = sample_of("repeat", 64, trained=32).passes
    assert one.tokens[1:9] == one.tokens[9:17] == tuple(range(8))
    assert one.score_from == 9


def test_one_scored_token_is_enough_and_none_is_refused():
    assert sample_of("repeat(unit=8)", 10).passes[0].tokens[9:] == (0,)
    with pytest.raises(TaskError, match="--len 9: no room for a second copy of 8 tokens"):
        sample_of("repeat(unit=8)", 9)


def test_a_document_shorter_than_the_unit_is_refused():
    with pytest.raises(TaskError, match=r"'ramp' has 100 tokens and repeat\(unit=101\) needs 101"):
        sample_of("repeat(unit=101)", 512)


def test_scores_are_sums_of_loss_and_of_hits_with_their_counts():
    task = parse("repeat(unit=3)")
    output = Output((np.array([0.5, 1.5, 1.0]),), (np.array([True, False, True]),))
    scores = task.score(sample_of(task.spec, 7), output)
    assert [(s.metric, s.stats, s.position) for s in scores] == [
        ("nll", (3.0, 3.0), ""),
        ("accuracy", (2.0, 3.0), ""),
    ]
