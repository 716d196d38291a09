"""Scores of prediction files, worked out by hand from the benchmarks' rules."""

import json
import math
import sys

import pytest

from tasks.formats import FORMATS, Result, find_format, rescore
from tasks.official import chinese
from tasks.spec import TaskError


def scores(folder, name, files):
    """Results and notes of some files, given as rows or as text."""
    for file, rows in files.items():
        text = rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows)
        (folder / file).write_text(text, encoding="utf-8")
    notes = []
    return rescore(find_format(name), folder, notes.append), notes


def error(folder, name, files):
    with pytest.raises(TaskError) as caught:
        scores(folder, name, files)
    return str(caught.value).replace(f"{folder}/", "")


def test_ruler_takes_all_references_or_any_of_them(tmp_path):
    rows = [{"pred": "o\tONE", "outputs": ["o\none", "two"]}, {"pred": "2", "outputs": ["1", "2"]}]
    rows += [{"pred": None, "references": ["x"]}]
    results, notes = scores(tmp_path, "ruler", {"niah_multikey_1.jsonl": rows, "qa_2.jsonl": rows})
    assert results == [
        Result("niah_multikey_1", "string_match_all", 33.33, 3),
        Result("qa_2", "string_match_part", 66.67, 3),
    ]
    assert notes == []


@pytest.mark.parametrize(
    "stem",
    [
        "niah_single_1",
        "vt",
        "vt_4k",
        "variable_tracking",
        "cwe",
        "common_words_extraction",
        "fwe",
        "freq_words_extraction",
        "qa_1",
        "QA-hotpot",
    ],
)
def test_ruler_s_names_are_known(tmp_path, stem):
    rows = [{"pred": "a", "outputs": ["a", "b"]}]
    (result,), _ = scores(tmp_path, "ruler", {f"{stem}.jsonl": rows})
    assert result.score == (100.0 if stem.lower().startswith("qa") else 50.0)


@pytest.mark.parametrize("stem", ["qasper", "vtx", "needle", "xqa"])
def test_another_name_is_no_task_of_ruler(tmp_path, stem):
    text = error(tmp_path, "ruler", {f"{stem}.jsonl": [{"pred": "a", "outputs": ["a"]}]})
    assert text.startswith(f"{stem}.jsonl: unknown data set '{stem}'")
    assert "expected one of niah*, vt*" in text


def test_longbench_is_the_mean_of_the_best_references(tmp_path):
    classes = ["Food", "Date"]
    files = {
        "hotpotqa.jsonl": [
            {"pred": "x\nParis", "answers": ["Paris", "Rome"], "all_classes": None},
            {"pred": "", "answers": ["Rome"]},
            {"pred": "Rome", "answers": ["Paris", "Rome"]},
        ],
        "trec.jsonl": [{"pred": "Food\nDate", "answers": ["Food"], "all_classes": classes}],
    }
    assert scores(tmp_path, "longbench", files)[0] == [
        Result("hotpotqa", "qa_f1", 55.56, 3),
        Result("trec", "classification", 100.0, 1),
    ]


def test_longbench_e_has_a_line_for_each_bucket(tmp_path):
    rows = [
        {"pred": "Paris", "answers": ["Paris"], "length": 3999},
        {"pred": "x", "answers": ["Paris"], "length": 10},
        {"pred": "Paris", "answers": ["Paris"], "length": 8000},
    ]
    low, middle, high = scores(tmp_path, "longbench-e", {"2wikimqa.jsonl": rows})[0]
    assert low == Result("2wikimqa 0-4k", "qa_f1", 50.0, 2)
    assert (middle.dataset, middle.n, math.isnan(middle.score)) == ("2wikimqa 4-8k", 0, True)
    assert high == Result("2wikimqa 8k+", "qa_f1", 100.0, 1)


def test_longbench_adds_up_as_eval_py_does(tmp_path):
    """Step by step: the exact sum, which `sum` of Python 3.12 gives, is rounded to 29.88."""
    said = ["abxxxxxx"] * 5 + ["abcxxxxx"] * 3  # 0.25 and 0.38 each
    rows = [{"pred": one, "answers": [one.replace("x", "y")]} for one in said]
    assert scores(tmp_path, "longbench", {"lcc.jsonl": rows})[0][0].score == 29.87


def test_code_is_scored_by_levenshtein_too_under_a_name_of_its_own(tmp_path):
    files = {"lcc.jsonl": [{"pred": "aacba", "answers": ["abcda"], "length": 5000}]}
    assert scores(tmp_path, "longbench", files)[0] == [
        Result("lcc", "code_sim", 40.0, 1),
        Result("lcc", "code_sim-levenshtein", 60.0, 1),
    ]
    buckets = scores(tmp_path, "longbench-e", files)[0]
    assert [one.metric for one in buckets] == ["code_sim"] * 3 + ["code_sim-levenshtein"] * 3
    assert (buckets[1].score, buckets[4].score) == (40.0, 60.0)


def test_longbench_e_rounds_as_numpy_does(tmp_path):
    said = "7 " * 107 + "8 " * 3893  # 2.675 of a hundred, in binary a little less
    files = {"passage_count.jsonl": [{"pred": said, "answers": ["7"], "length": 1}]}
    assert scores(tmp_path, "longbench", files)[0][0].score == 2.67
    assert scores(tmp_path, "longbench-e", files)[0][0].score == 2.68


def v2(**fields):
    return {"_id": "1", "difficulty": "easy", "length": "short", "answer": "A", **fields}


def test_longbench_v2_has_a_line_for_each_group(tmp_path):
    rows = [
        v2(response="The correct answer is (A)", pred="A", judge=True),
        v2(pred=None, difficulty="hard"),
        v2(judge=True, length="medium"),
    ]
    results, notes = scores(tmp_path, "longbench-v2", {"m.jsonl": rows})
    assert [(one.dataset, one.score, one.n) for one in results[:-1]] == [
        ("m overall", 66.7, 3),
        ("m easy", 100.0, 2),
        ("m hard", 0.0, 1),
        ("m short", 50.0, 2),
        ("m medium", 100.0, 1),
    ]
    assert (results[-1].dataset, results[-1].n) == ("m long", 0)
    assert math.isnan(results[-1].score)
    assert notes == []


def test_a_response_outweighs_what_was_made_of_it(tmp_path):
    rows = [v2(response="(A)", pred="A", judge=True), v2(response=None, pred="B", judge=True)]
    results, notes = scores(tmp_path, "longbench-v2", {"m.jsonl": rows})
    assert results[0].score == 0
    assert len(notes) == 1
    assert "m.jsonl:1" in notes[0]
    assert "2 rows scored anew" in notes[0]


def leval_row(said, meant, evaluation="exam", field="gpt_pred"):
    return {field: said, "gt": meant, "evaluation": evaluation}


def test_leval_reads_each_task_in_its_own_way(tmp_path):
    files = {
        "coursera.pred.jsonl": [leval_row("AB", "ABD"), leval_row("D", "D")],
        "gsm100.pred.jsonl": [leval_row("The answer is 7.", "7", field="pred")],
        "natural_question.pred.jsonl": [
            leval_row("The cat", "cat", "f1"),
            leval_row("a cat sat", "cat", "f1"),
            leval_row("x", "x", "LLM"),
        ],
        "news_summ.pred.jsonl": [leval_row("the cat sat", "the cat ran off", "rouge")],
        "notes.txt": "",
        "coursera.jsonl": "",
    }
    results, notes = scores(tmp_path, "leval", files)
    geometric = 100 * (4 / 7 * 2 / 5 * 4 / 7) ** (1 / 3)
    assert results == [
        Result("coursera", "exact_match", 62.5, 2),
        Result("gsm100", "exact_match", 100.0, 1),
        Result("natural_question", "f1", 83.3333, 2),
        Result("news_summ", "rouge_geometric_mean", round(geometric, 4), 1),
    ]
    assert notes[0].endswith("left out, no *.pred.jsonl: coursera.jsonl, notes.txt")
    assert notes[1].endswith("1 of 3 rows left out: their evaluation needs a judge")


def test_the_three_questions_of_a_conversation_weigh_the_same(tmp_path):
    rows = [leval_row("sun", "sun"), leval_row("x", "sea"), leval_row("x", "sky")]
    files = {"topic_retrieval_longchat.pred.jsonl": [*rows, leval_row("x", "sun")]}
    (result,), _ = scores(tmp_path, "leval", files)
    assert result == Result("topic_retrieval_longchat", "exact_match", 50 / 3, 4)


def test_both_halves_of_a_judgement_weigh_the_same(tmp_path):
    rows = [leval_row("True [fact: False]", "True [fact: True]")]
    (result,), _ = scores(tmp_path, "leval", {"sci_fi.pred.jsonl": rows})
    assert result == Result("sci_fi", "exact_match", 50.0, 1)


GOOD = {"pred": "a", "answers": ["a"], "all_classes": ["a"], "length": 1}


@pytest.mark.parametrize(
    ("name", "file", "rows", "words"),
    [
        ("longbench", "qasper.jsonl", "", "qasper.jsonl: empty"),
        ("longbench", "qasper.jsonl", "\n \n", "qasper.jsonl: empty"),
        ("longbench", "qasper.jsonl", '{"pred": 1}\n{"pr', "qasper.jsonl:2: not JSON"),
        ("longbench", "qasper.jsonl", "[" * 100_000, "qasper.jsonl:1: not read"),
        ("longbench", "qasper.jsonl", "[1]", "qasper.jsonl:1: a list; expected an object"),
        ("longbench", "qaspr.jsonl", [GOOD], "unknown data set 'qaspr'; did you mean 'qasper'?"),
        (
            "longbench",
            "qasper.jsonl",
            [GOOD, {"answer": "a", "pred": "a"}],
            "qasper.jsonl:2: no field 'answers'; fields: answer, pred",
        ),
        ("longbench", "qasper.jsonl", [{**GOOD, "pred": None}], "qasper.jsonl:1: field 'pred' is"),
        ("longbench", "qasper.jsonl", [{**GOOD, "answers": "a"}], "'answers' is a text; expected"),
        ("longbench", "qasper.jsonl", [{**GOOD, "answers": []}], "with at least one"),
        ("longbench", "trec.jsonl", [{**GOOD, "all_classes": None}], "'all_classes' is null"),
        ("longbench", "passage_retrieval_en.jsonl", [GOOD], "jsonl:1: answer 'a' has no"),
        ("longbench-e", "qasper.jsonl", [{**GOOD, "length": "9"}], "'length' is a text"),
        ("longbench-e", "qasper.jsonl", [{**GOOD, "length": True}], "'length' is true"),
        ("longbench-e", "qasper.jsonl", [{**GOOD, "length": math.nan}], "'length' is NaN"),
        ("ruler", "qa_1.jsonl", [{"pred": "a"}], "no field 'outputs' or 'references'"),
        ("ruler", "qa_1.jsonl", [{"pred": "a", "outputs": []}], "qa_1.jsonl:1: field 'outputs'"),
        ("longbench-v2", "m.jsonl", [v2()], "no field 'response' or 'pred' or 'judge'"),
        ("longbench-v2", "m.jsonl", [v2(judge="yes")], "'judge' is not true or false"),
        ("longbench-v2", "m.jsonl", [v2(pred="a")], "field 'pred' is 'a'; expected A, B, C, D"),
        ("longbench-v2", "m.jsonl", [v2(pred="A", length=9)], "m.jsonl:1: field 'length' is 9"),
        ("leval", "tpo.pred.jsonl", [{"gt": "A"}], "tpo.pred.jsonl:1: no field 'evaluation'"),
        ("leval", "tpo.pred.jsonl", [leval_row("A", "A", "em")], "'em'; expected exam, f1, rouge"),
        ("leval", "tpo.pred.jsonl", [leval_row("A", "A", "LLM")], "evaluation LLM; expected one"),
        (
            "leval",
            "tpo.pred.jsonl",
            [leval_row("A", "A"), leval_row("A", "A", "f1")],
            "rows with evaluation exam, f1; expected one of",
        ),
        ("leval", "tpo.pred.jsonl", [leval_row("A", "A", field="x")], "no field 'pred' or '*_pred"),
        (
            "leval",
            "tpo.pred.jsonl",
            [leval_row("A", "A"), leval_row("A", "A", field="pred")],
            "tpo.pred.jsonl:2: no field 'gpt_pred'",
        ),
        ("leval", "tpo.pred.jsonl", [leval_row("A", " ")], "tpo.pred.jsonl:1: a blank 'gt'"),
        ("leval", "sci_fi.pred.jsonl", [leval_row("no", "no")], "sci_fi.pred.jsonl:1: 'no' has no"),
        (
            "leval",
            "topic_retrieval_longchat.pred.jsonl",
            [leval_row("a", "a")] * 2,
            "2 rows; expected first, second, third",
        ),
        ("leval", "toefl.pred.jsonl", [leval_row("A", "A")], "unknown data set 'toefl'"),
    ],
)
def test_a_bad_row_is_named_with_its_place(tmp_path, name, file, rows, words):
    assert words in error(tmp_path, name, {file: rows})


def test_a_file_that_is_no_utf_8_is_named(tmp_path):
    (tmp_path / "qasper.jsonl").write_bytes(b'{"pred": "\xff"}')
    assert "not UTF-8 at byte 10" in error(tmp_path, "longbench", {})


def test_a_directory_without_predictions_says_what_it_holds(tmp_path):
    text = error(tmp_path, "longbench", {f"{number}.txt": "" for number in range(7)})
    assert text.endswith(
        "no *.jsonl file in it; found: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more"
    )


def test_an_unknown_format_is_told_the_near_one():
    with pytest.raises(TaskError, match="did you mean 'longbench-e'"):
        find_format("longbench_e")
    assert list(FORMATS) == ["ruler", "longbench", "longbench-e", "longbench-v2", "leval"]


def test_chinese_predictions_without_jieba_are_an_error(tmp_path, monkeypatch):
    chinese._segmenter.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    files = {"vcsum.jsonl": [{"pred": "北京", "answers": ["北京"]}]}
    assert "vcsum.jsonl:1: Chinese answers are scored" in error(tmp_path, "longbench", files)


def test_line_ends_a_byte_order_mark_and_separators_inside_texts_are_no_matter(tmp_path):
    rows = [json.dumps(row, ensure_ascii=False) for row in (GOOD, {**GOOD, "pred": "b\u2028"})]
    text = "\ufeff" + "\r\n".join(rows) + "\r\n"
    assert scores(tmp_path, "longbench", {"lcc.jsonl": text})[0][0].n == 2
