"""LongBench's metrics on values worked out by hand, and on the official code's where they are."""

import importlib.util
import itertools
import sys
import tempfile
from pathlib import Path

import pytest

from tasks.official import chinese
from tasks.official.longbench import (
    DATASETS,
    METRICS,
    bucket,
    classification,
    code_sim,
    code_sim_levenshtein,
    count,
    first_line,
    qa_f1,
    qa_f1_zh,
    retrieval,
    retrieval_zh,
    rouge_zh,
    row_score,
)
from tasks.official.rouge import rouge_l
from tasks.spec import TaskError
from tests.tasks.official.vectors import needs_vectors, vectors

needs_jieba = pytest.mark.skipif(
    importlib.util.find_spec("jieba") is None, reason="jieba (extra 'zh') is not installed"
)
PERFECT = 2.0 * (1.0 / (2.0 + 1e-8))


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("in the old town of Rome", "Rome", 1 / 3),  # in old town of rome: p 1/5, r 1
        ("e-mail", "email", 1.0),
        ("The U.S.!", "us", 1.0),
        ("“yes”", "yes", 0.0),
        ("yes，", "yes", 0.0),  # full-width punctuation stays
        ("no no yes", "no yes yes", 2 / 3),  # bags: no once, yes once
        ("the", "the", 0.0),
        ("", "", 0.0),
        ("\n\n", "yes", 0.0),
        ("a theatre", "theatre", 1.0),
    ],
)
def test_f1_is_of_bags_of_normalised_words(prediction, reference, score):
    assert qa_f1(prediction, reference) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("a b c", "a c d", 2.0 * (4 / 9) / (4 / 3 + 1e-8)),
        ("same words", "same words", PERFECT),
        ("a a a", "a", PERFECT),  # words count once
        ("A", "a", 0.0),
        ("3.5", "3.7", 2.0 * 0.25 / (1.0 + 1e-8)),  # sentences 3 and 5, 3 and 7
        ("a. ", "a", 2.0 * 0.5 / (1.5 + 1e-8)),  # the blank sentence holds the empty word
        (" ", "\n", PERFECT),
        ("b a.a", "a b", PERFECT),  # b from the first pair, a from the second
        ("b a.b", "a b", 2.0 * 0.25 / (1.0 + 1e-8)),  # b from both
        ("", "a", 0.0),
        ("...", "...", 0.0),
        ("a", "", 0.0),
    ],
)
def test_rouge_is_that_of_the_package_rouge(prediction, reference, score):
    assert rouge_l(prediction, reference) == pytest.approx(score, abs=1e-12)


def test_rouge_of_a_very_long_sentence_is_no_exception():
    text = " ".join(map(str, range(1500)))
    assert rouge_l(text, text) == PERFECT


def test_a_class_behind_one_taken_off_the_list_is_not_looked_at():
    classes = ["Other", "location", "Other location", "entity"]
    assert classification("Other location", "Other location", classes) == 1 / 2
    assert classification("It is Other location", "Other", classes) == 1 / 3
    assert classification("other location", "Other location", classes) == 0
    assert classification("", "entity", classes) == 0
    assert classification("entity", "entity", classes) == 1


def test_numbers_are_compared_as_texts():
    assert count("7 07 7", "7") == 2 / 3
    assert count("７", "7") == 0
    assert count("none", "7") == 0
    assert retrieval("Paragraph 17 or 7", "Paragraph 17") == 1 / 2
    assert retrieval_zh("段落7", "段落7") == 1


@pytest.mark.parametrize("metric", [retrieval, retrieval_zh])
def test_an_answer_without_a_number_is_refused(metric):
    with pytest.raises(ValueError, match="answer 'seventh' has no"):
        metric("7", "seventh")


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("ab", "abc", 0.8),
        ("abcdexyz", "abcdeuvw", 0.62),  # 62.5 to the even 62
        ("abcdefgh", "abcstuvw", 0.38),  # 37.5 to the even 38
        ("\n\n# note\nab\nrest", "ab", 1.0),
        ("see http://x\n`ab`\nab", "ab", 1.0),
        ("# only\n// notes", "", 1.0),
        ("\n", "ab", 0.0),
        ("# note\n\nab", "ab", 0.0),  # a blank line is a line of code
        (" ab", "ab", 0.8),
        ("b" + 199 * "a", 200 * "a", 0.0),  # autojunk: no match starts at a frequent character
    ],
)
def test_code_is_compared_on_its_first_line(prediction, reference, score):
    assert code_sim(prediction, reference) == score


def test_code_similarity_is_not_that_of_levenshtein():
    assert code_sim("aacba", "abcda") == 0.4
    assert code_sim_levenshtein("aacba", "abcda") == 0.6  # a, b or c, and a again: 2 * 3 / 10


def longest_common(one: str, other: str) -> int:
    lengths = {(i, j): 0 for i in range(len(one) + 1) for j in range(len(other) + 1)}
    for i, j in itertools.product(range(1, len(one) + 1), range(1, len(other) + 1)):
        same = one[i - 1] == other[j - 1]
        above, left = lengths[i - 1, j], lengths[i, j - 1]
        lengths[i, j] = lengths[i - 1, j - 1] + 1 if same else max(above, left)
    return lengths[len(one), len(other)]


def test_levenshtein_similarity_is_that_of_a_longest_common_subsequence():
    texts = ["".join(one) for size in range(1, 6) for one in itertools.product("ab中", repeat=size)]
    for one, other in zip(texts, reversed(texts), strict=True):
        if one != other:
            total = len(one) + len(other)
            distance = total - 2 * longest_common(one, other)
            assert code_sim_levenshtein(one, other) == round(100 * (1 - distance / total)) / 100


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("\n\n# note\nab\nrest", "ab", 1.0),
        ("# only", "", 1.0),
        ("\n", "ab", 0.0),
        ("a" * 20 + "x" * 183, "a" * 20 + "y" * 177, 0.1),  # 10 exactly
        ("b" + 199 * "a", 200 * "a", 1.0),  # 99.5 to the even 100; difflib finds nothing
        ("x" * 100 + "b" * 83, "y" * 100 + "b" * 83, 0.45),
    ],
)
def test_levenshtein_similarity_is_of_the_same_line(prediction, reference, score):
    assert code_sim_levenshtein(prediction, reference) == score


def test_the_first_line_keeps_its_blanks():
    assert first_line("\n\n a\nb") == " a"
    assert first_line("\n \nFood") == " "
    assert first_line("\n") == first_line("") == ""


@pytest.mark.parametrize(
    ("dataset", "seen"),
    [("trec", 0), ("lsht", 0), ("triviaqa", 0), ("samsum", 0), ("hotpotqa", 1), ("qmsum", 1)],
)
def test_four_data_sets_see_the_first_line_only(dataset, seen):
    assert (row_score(dataset, "no\nParis", ["Paris"], ["Paris"]) > 0) == seen


def test_the_best_reference_counts():
    assert row_score("hotpotqa", "Paris", ["Rome", "Paris", "in Paris"]) == 1
    assert row_score("trec", "Food\nDate", ["Date", "Food"], ["Food", "Date"]) == 1


def test_every_data_set_has_a_metric():
    assert len(DATASETS) == 21
    assert {*DATASETS.values()} == {*METRICS, "classification"}


@pytest.mark.parametrize(
    ("length", "name"),
    [(0, "0-4k"), (3999, "0-4k"), (4000, "4-8k"), (7999, "4-8k"), (8000, "8k+")],
)
def test_buckets_hold_their_lower_bound(length, name):
    assert bucket(length) == name


@needs_jieba
def test_chinese_words_are_those_of_jieba_with_unknown_ones():
    assert chinese.words("他来到了网易杭研大厦") == ["他", "来到", "了", "网易", "杭研", "大厦"]
    assert chinese.words("") == []


@needs_jieba
@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("我来到北京。", "北京", 0.5),  # 我 来到 北京: p 1/3, r 1
        ("北京，", "《北京》", 2 / 3),  # 《 is a word, and no punctuation
        ("Ｂ", "B", 0.0),
        ("。", "。", 0.0),
        ("", "北京", 0.0),
        ("\n", "北京", 0.0),
        ("ABC", "abc", 1.0),
    ],
)
def test_chinese_f1_is_of_bags_of_words(prediction, reference, score):
    assert qa_f1_zh(prediction, reference) == pytest.approx(score, abs=1e-12)


@needs_jieba
def test_chinese_rouge_counts_punctuation_as_words():
    assert rouge_zh("北京。", "北京") == pytest.approx(2.0 * 0.5 / (1.5 + 1e-8), abs=1e-12)
    assert rouge_zh("", "北京") == 0


@needs_jieba
def test_the_cache_of_jieba_lies_in_a_directory_of_the_user(cache_home, caplog):
    import jieba

    jieba.setLogLevel("DEBUG")
    before = Path(tempfile.gettempdir(), "jieba.cache").exists()
    chinese._segmenter.cache_clear()
    assert chinese.words("北京") == ["北京"]
    cache = cache_home / "length-harness/jieba"
    assert (cache / "jieba.cache").is_file() and cache.stat().st_mode & 0o777 == 0o700
    assert Path(tempfile.gettempdir(), "jieba.cache").exists() == before
    assert not caplog.records


@needs_jieba
def test_words_that_other_code_adds_to_jieba_change_nothing():
    import jieba

    jieba.dt.tmp_dir = chinese._segmenter().tmp_dir
    jieba.add_word("来到北京")
    assert jieba.lcut("来到北京") == ["来到北京"]
    assert chinese.words("来到北京") == ["来到", "北京"]


def test_a_missing_jieba_is_named_with_what_to_install(monkeypatch):
    chinese._segmenter.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(TaskError, match=r"pip install jieba==0\.42\.1"):
        qa_f1_zh("北京", "北京")


def test_a_cache_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(TaskError, match="set XDG_CACHE_HOME"):
        chinese._cache_directory()


def one_score(family, row, reference):
    if family == "classification":
        return classification(row["prediction"], reference, row["all_classes"])
    metrics = {**METRICS, "retrieval": retrieval, "retrieval_zh": retrieval_zh}
    return metrics[family](row["prediction"], reference)


@needs_vectors
def test_every_official_vector_is_reproduced():
    chinese_ones = importlib.util.find_spec("jieba") is not None
    seen = 0
    for row in vectors("longbench_v1_metrics"):
        family = row["family"].removesuffix("_score")
        if family in ("qa_f1_zh", "rouge_zh") and not chinese_ones:
            continue
        seen += 1
        if "sample_raises" in row:
            with pytest.raises(TypeError):
                row_score(row["dataset"], row["prediction"], row["answers"], row["all_classes"])
            continue
        for reference, expected in zip(row["answers"], row["each"], strict=True):
            score = one_score(family, row, reference)
            assert score == pytest.approx(expected["score"], abs=1e-12), row["id"]
        for reference, expected in zip(
            row["answers"], row.get("each_levenshtein", ()), strict="each_levenshtein" in row
        ):
            assert code_sim_levenshtein(row["prediction"], reference) == expected["score"], row[
                "id"
            ]
        classes = row["all_classes"] or ()
        score = row_score(row["dataset"], row["prediction"], row["answers"], classes)
        assert score == pytest.approx(row["sample_unrounded"], abs=1e-12), row["id"]
        assert round(100 * score, 2) == row["sample"], row["id"]
    assert seen == (910 if chinese_ones else 730)
