"""Every metric of answers on the awkward cases, worked out by hand.

Several references, of which a later one is right; full-width punctuation and digits; answers that
are newlines alone.
"""

from __future__ import annotations

import importlib.util
import math

import pytest

import tasks
from tasks.base import Output, Sample
from tasks.metrics import METRICS, overlap_stats
from tasks.official import leval
from tasks.official.infinitebench import score as infinitebench_score
from tasks.official.longbench import DATASETS, row_score
from tasks.official.longbench_v2 import extract_answer
from tasks.official.ruler import postprocess, string_match_all, string_match_part
from tests.tasks.benchmarks import documents_of
from tests.tasks.toy import SOURCES, Bytes, story

BENCHMARKS = ("longbench", "longbench-e", "longbench-v2", "leval", "infinitebench")
PERFECT = 2.0 * (1.0 / (2.0 + 1e-8))
HALF_ROUGE = 2.0 * 0.5 / (1.5 + 1e-8)  # one of two words is right, and it is the whole reference
CLASSES = ["体育", "军事", "Food", "Date"]
needs_jieba = pytest.mark.skipif(
    importlib.util.find_spec("jieba") is None, reason="jieba (extra 'zh') is not installed"
)
LONGBENCH = [
    ("narrativeqa", "\nRome", ["Paris", "in Rome"], 2 / 3),
    ("narrativeqa", "Rome，", ["Paris", "Rome"], 0),  # full-width punctuation stays on the word
    ("qasper", "（yes）", ["yes"], 0),
    ("multifieldqa_en", "１２", ["7", "12"], 0),
    ("hotpotqa", "no", ["a", "the", "no no"], 2 / 3),
    ("2wikimqa", "“Rome”, it is!", ["x", "“Rome” it is"], 1),
    ("musique", "U.S.", ["UK", "us"], 1),
    ("multifieldqa_zh", "北京，", ["上海", "北京"], 1),
    ("multifieldqa_zh", "２", ["2"], 0),
    ("dureader", "北京，", ["上海", "北京"], HALF_ROUGE),
    (
        "vcsum",
        "\n北京",
        ["北京"],
        PERFECT,
    ),  # the newline is a word of jieba's, and a blank to rouge
    ("gov_report", "a b。", ["x", "a b。"], PERFECT),
    ("qmsum", "b。", ["b"], 0),
    ("multi_news", "a\nb", ["a\nb"], PERFECT),
    ("trec", "\nFood，", ["Date", "Food"], 1),
    ("trec", "Ｆood", ["Food"], 0),
    ("trec", "Food or Date", ["Food"], 1 / 2),
    ("lsht", "体育。\n军事", ["体育"], 1),
    ("triviaqa", "\n\nRome\nParis", ["Paris", "Rome"], 1),
    ("samsum", "\n\nb\na", ["b"], PERFECT),
    ("passage_count", "７，7", ["8", "7"], 1 / 2),
    ("passage_retrieval_en", "Paragraph １7", ["Paragraph 17"], 0),
    ("passage_retrieval_zh", "段落７，段落7", ["段落7"], 1 / 2),
    ("lcc", "\n\nx＝1", ["y", "x＝1"], 1),
    ("repobench-p", "（)", ["()"], 0.5),
    ("repobench-p", "\n \n", ["  x"], 0.5),  # a line of one blank is the line of code
]


@pytest.mark.parametrize(("dataset", "prediction", "references", "wanted"), LONGBENCH)
def test_longbench(dataset: str, prediction: str, references: list[str], wanted: float) -> None:
    if DATASETS[dataset].endswith("_zh") and not importlib.util.find_spec("jieba"):
        pytest.skip("jieba (extra 'zh') is not installed")
    found = row_score(dataset, prediction, references, CLASSES)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_every_data_set_of_longbench_has_a_vector() -> None:
    assert {dataset for dataset, *_ in LONGBENCH} == {*DATASETS}


@pytest.mark.parametrize(
    ("prediction", "references", "share", "any_of"),
    [
        ("\n\n", ["1", "2"], 0, 0),
        ("\n \t2\x0b", ["1", "2"], 1 / 2, 1),
        ("“１２３”，456。", ["123", "456"], 1 / 2, 1),
        ("ＡＢ", ["ab"], 0, 0),
        ("STRASSE, ÉTÉ", ["x", "été"], 1 / 2, 1),
    ],
)
def test_ruler(prediction: str, references: list[str], share: float, any_of: float) -> None:
    said = postprocess(prediction)
    assert (string_match_all(said, references), string_match_part(said, references)) == (
        share,
        any_of,
    )


@pytest.mark.parametrize(
    "response", ["\n", "The correct answer is （A）", "The correct answer is Ａ"]
)
def test_longbench_v2(response: str) -> None:
    assert extract_answer(response) is None


@pytest.mark.parametrize(
    ("task", "prediction", "reference", "wanted"),
    [
        ("quality", "\n", "(C) it", 0),
        ("quality", "（C）", "(C) it", 1),
        ("coursera", "\n\n", "BD", 0),
        ("coursera", "B，D", "BD", 0.25),  # D is in front of the end, not of a blank
        ("gsm100", "The answer is ４２。", "42", 1),  # float() reads digits of any script
        ("gsm100", "\n", "42", 0),
        ("codeU", "\n", "7", 0),
        ("topic_retrieval_longchat", "“Sun”。", "the sun", 0),
        ("topic_retrieval_longchat", "The Sun。", "the sun", 1),
        ("topic_retrieval_longchat", "\n", "the sun", 0),
    ],
)
def test_closed_questions_of_leval(
    task: str, prediction: str, reference: str, wanted: float
) -> None:
    (pair,) = leval.pairs(task, prediction, reference)
    assert leval.exact_match(*pair) == wanted


def test_free_answers_of_leval() -> None:
    assert leval.f1("\n", "cat") == leval.f1("cat。", "cat") == 0
    assert leval.f1("“cat” cat", "cat") == pytest.approx(2 / 3)
    assert set(leval.rouge("\n", "cat").values()) == {0}
    assert leval.rouge("ｃat cat。", "cat")["rouge1"] == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    ("name", "prediction", "references", "wanted"),
    [
        ("passkey", "１２", ["12"], 0),
        ("kv_retrieval", "“ab-cd”。", ["ab-cd"], 0),
        ("longdialogue_qa_eng", "Ｊack！", ["JACK"], 0),
        ("longdialogue_qa_eng", "\n\njack\n", ["JACK"], 1),
        ("code_run", "值是：-13。", ["-13"], 0),
        ("math_find", "４", ["4"], 1),  # \d and int() take digits of any script
        ("longbook_qa_eng", "cat。", ["dog", "cat。"], 1),
        ("longbook_qa_chn", "《答》，案！", ["题", "答案"], 2 * 2 / 5),  # `《` stays, `》` goes
        ("longbook_sum_eng", "one", ["two", "one"], 1),
    ],
)
def test_infinitebench(name: str, prediction: str, references: list[str], wanted: float) -> None:
    assert infinitebench_score(name, prediction, references) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("name", "reference", "text", "wanted"),
    [
        ("passkey", "12345", "１２３４５", 1.0),
        ("passkey", "12345", "\n\n12345。", 1.0),
        ("needle", "12 34", "34，１２", 0.5),
        ("kv", "ab-12", "“ab-12”。", 1.0),
        ("kv", "ab-12", "ＡB-12", 0.0),
        ("lines", "12", "\n１２", 0.0),
        ("facts", "kitchen", "（Kitchen）。", 1.0),
    ],
)
def test_own_tasks(name: str, reference: str, text: str, wanted: float) -> None:
    sample = Sample("a", "a", reference=reference, position="depth 0")
    (first, *_) = tasks.parse(name).score(sample, Output((), (), (), text))
    assert METRICS[first.metric].finish(first.stats) == wanted


def test_overlap_takes_each_metric_s_best_reference() -> None:
    references = ["the cat sat on a mat", "on a mat the cat sat down"]
    found = dict(overlap_stats("the cat sat on a mat", references, "en"))
    assert METRICS["bleu"].finish(found["bleu"]) == pytest.approx(100)
    assert found["rougeL"] == (1.0, 1.0)
    swapped = dict(overlap_stats("the cat sat on a mat", references[::-1], "en"))
    assert swapped == found


def test_overlap_of_chinese_counts_full_width_characters() -> None:
    found = dict(overlap_stats("今天下雨，", ["晴", "今天下雨"], "zh"))
    assert found["rouge1-zh"][0] == pytest.approx(2 * 4 / 9)
    assert found["rouge2-zh"][0] == pytest.approx(2 * 3 / 7)
    assert found["bleu-zh"][:3] == (5.0, 4.0, 4.0)  # tokens said, meant, and in common


def samples_of(name: str) -> list[Sample]:
    task = tasks.parse(name)
    if task.reads == "rows":
        return task.samples(documents_of(task), Bytes(), 6000, 512, 0)
    given = [story(f"d{index}", 900) for index in range(2)]
    if name == "ruler":
        given = [type(one)(one.id, one.text, sources=SOURCES) for one in given]
    return task.samples(given, Bytes(), 3000, 512, 0)


@needs_jieba
def test_newlines_alone_score_nothing_in_any_metric_of_answers() -> None:
    own = ("passkey", "needle", "kv", "lines", "facts", "ruler", "continuation")
    covered = set()
    for name in (*BENCHMARKS, *own):
        task = tasks.parse(name)
        for sample in samples_of(name):
            for text in ("\n", "\n\n\n"):
                for one in task.score(sample, Output((), (), (), text)):
                    if METRICS[one.metric].of_answer:
                        value = METRICS[one.metric].finish(one.stats)
                        assert value == 0 or math.isnan(value), (name, sample.id, one)
                        covered.add(one.metric)
    in_chinese = {name for name in METRICS if name.endswith("-zh")}
    assert covered | in_chinese == {name for name in METRICS if METRICS[name].of_answer}
    assert {"bleu-zh", "rougeL-zh"} <= covered
