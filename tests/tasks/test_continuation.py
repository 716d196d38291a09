"""Prompt, reference and scores of the continuation task."""

import numpy as np
import pytest

from tasks import TaskError, parse
from tasks.base import Document, Output
from tasks.intervals import interval
from tasks.metrics import METRICS
from tests.tasks.toy import Bytes, Words, played, story

RAMP = Document("ramp", "".join(map(chr, range(32, 127))))
CHINESE = Document("book", "春天到了,花开了,鸟儿在树上唱歌。" * 40)


def sample_of(spec, length, trained=64, bos=256):
    return parse(spec).samples([RAMP], Bytes(bos), length, trained, seed=0)[0]


def test_prompt_and_new_tokens_fill_the_length_and_the_reference_follows_the_prompt():
    sample = sample_of("continuation(new=4)", 10)
    assert sample.prompt == (256, 32, 33, 34, 35, 36)
    assert sample.max_new_tokens == 4
    assert sample.reference_tokens == (37, 38, 39, 40)
    assert sample.reference == "%&'("


def test_token_accuracy_is_measured_on_the_reference_after_the_same_prompt():
    sample = sample_of("continuation(new=4)", 10)
    (one,) = sample.passes
    assert one.tokens == sample.prompt + sample.reference_tokens
    assert one.score_from == len(sample.prompt)


def test_without_bos_the_prompt_is_text_alone():
    assert sample_of("continuation(new=4)", 10, bos=None).prompt == tuple(range(32, 38))


@pytest.mark.parametrize(("trained", "new"), [(64, 16), (400, 100), (4096, 100)])
def test_new_is_a_quarter_of_the_trained_length_and_at_most_100(trained, new):
    samples = parse("continuation").samples([story("one", 900)], Bytes(), 512, trained, seed=0)
    assert samples[0].max_new_tokens == new


def test_one_text_token_of_prompt_is_enough_and_none_is_refused():
    assert sample_of("continuation(new=8)", 10).prompt == (256, 32)
    with pytest.raises(TaskError, match="--len 9: no room for a prompt before 8 new tokens"):
        sample_of("continuation(new=8)", 9)


def test_scores_have_bleu_counts_rouge_f_and_token_accuracy():
    task = parse("continuation(new=4)")
    document = Document("one", "w1 w2 w3 the cat sat down")
    (sample,) = task.samples([document], Words(), 8, 64, seed=0)
    assert sample.reference == "the cat sat down"
    output = Output((np.zeros(4),), (np.array([True, True, False, True]),), text="the cat ran")
    stats = {score.metric: score.stats for score in task.score(sample, output)}
    assert stats["accuracy"] == (3.0, 4.0)
    # 3 words said, 4 in the reference; matches of order 1-4; n-grams said of order 1-4
    assert stats["bleu"] == (3.0, 4.0, 2.0, 1.0, 0.0, 0.0, 3.0, 2.0, 1.0, 0.0)
    assert stats["rouge1"] == pytest.approx((2 * 2 / (3 + 4), 1.0))
    assert stats["rouge2"] == pytest.approx((2 * 1 / (2 + 3), 1.0))
    assert stats["rougeL"] == pytest.approx((2 * 2 / (3 + 4), 1.0))


def test_chinese_is_compared_by_characters_and_named_so():
    task = parse("continuation(lang=zh,new=30)")
    (sample,) = task.samples([CHINESE], Bytes(), 121, 64, seed=0)
    scores = task.score(sample, played(sample, lambda _: 0.0, True))
    by_metric = {score.metric: score.stats for score in scores}
    assert set(by_metric) == {"bleu-zh", "rouge1-zh", "rouge2-zh", "rougeL-zh", "accuracy"}
    assert interval("bleu-zh", [by_metric["bleu-zh"]], ["book"], 0)[0] == pytest.approx(100.0)
    assert by_metric["rougeL-zh"] == (1.0, 1.0)
    assert "tok:zh" in METRICS["bleu-zh"].detail


@pytest.mark.parametrize("text", [CHINESE.text, "Ελληνική γλώσσα. " * 60])
def test_letters_that_english_scoring_drops_are_refused(text):
    with pytest.raises(TaskError, match=r"'x': 100% of the letters.*continuation\(lang=zh\)"):
        parse("continuation").samples([Document("x", text)], Bytes(), 64, 64, seed=0)


def test_a_few_accents_are_accepted():
    text = Document("x", "Le café était fermé depuis longtemps, dit-elle en riant. " * 20)
    assert parse("continuation").samples([text], Bytes(), 64, 64, seed=0)
