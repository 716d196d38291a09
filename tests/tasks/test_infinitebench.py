"""InfiniteBench: how answers are read, rows checked, and data sets averaged."""

import json

import pytest

import tasks
from tasks.base import Output
from tasks.infinitebench import GROUPS, NEW, OWN
from tasks.intervals import interval
from tasks.official.infinitebench import DATASETS, score
from tests.tasks.benchmarks import document_of, documents_of, infinitebench
from tests.tasks.toy import Bytes


@pytest.mark.parametrize(
    ("name", "prediction", "references", "wanted"),
    [
        ("passkey", " 71432.", ["71432"], 1),
        ("passkey", "key 7 is 71432", ["71432"], 0),
        ("passkey", "", ["71432"], 0),
        ("number_string", "x0012y", ["0012"], 1),
        ("number_string", "12", ["0012"], 0),
        ("kv_retrieval", 'The value: "ab-cd".', ["ab-cd"], 1),
        ("kv_retrieval", "ab-cde", ["ab-cd"], 0),
        ("longdialogue_qa_eng", "It's Jack!", ["JACK"], 1),
        ("longdialogue_qa_eng", "Jackson", ["JACK"], 0),
        ("code_run", "The return value is: -13.", ["-13"], 1),
        ("code_run", "-13 it is", ["-13"], 0),
        ("code_run", "", ["-13"], 0),
        ("math_find", "it is 42, or 7", ["42"], 1),
        ("math_find", "42.5", ["42"], 0),
        ("math_find", "1.50", ["1.5"], 1),
        ("math_find", "no", ["1"], 0),
        ("math_calc", "[1, -2, 3]", ["1", "2", "4", "5"], 0.5),
        ("math_calc", "1", ["1", "2"], 0.5),
        ("math_calc", "7 1 2", ["1", "2"], 0),
        ("longbook_choice_eng", "B", ["Ann", "B"], 1),
        ("longbook_choice_eng", "Because of her, B", ["Ann", "B"], 1),
        ("longbook_choice_eng", "C. B", ["Ann", "B"], 0),
        ("longbook_choice_eng", "the answer is:  B", ["Ann", "B"], 1),
        ("longbook_choice_eng", "the answer is: Ann", ["Ann", "B"], 1),
        ("longbook_choice_eng", "the answer is: A but B", ["Ann", "B"], 0),
        ("longbook_choice_eng", "the answer is:", ["Ann", "B"], 0),
        ("longbook_choice_eng", "so it is (maybe) B", ["Ann", "B"], 1),
        ("longbook_choice_eng", "so it is BC, or B", ["Ann", "B"], 0),
        ("longbook_choice_eng", "", ["Ann", "B"], 0),
        ("longbook_choice_eng", " \nB, or C", ["Ann", "B"], 1),
        ("longbook_choice_eng", " \n", ["Ann", "B"], 0),
        ("longbook_choice_eng", "eve\n", ["eve", "B"], 1),
        ("longbook_choice_eng", "eve A", ["eve", "B"], 0),
        ("longbook_choice_eng", "Ｂ", ["Ann", "B"], 0),
        ("code_debug", "B.", ["run", "B"], 1),
        ("code_debug", "\n B: run", ["run", "B"], 1),
        ("code_debug", "\n", ["run", "B"], 0),
        ("code_debug", "The correct option is: B", ["run", "B"], 1),
        ("code_debug", "The answer is：B", ["run", "B"], 0),
        ("code_debug", "B", ["run", "B"], 0),
        ("code_debug", "The answer is: run", ["run", "B"], 1),
        ("code_debug", "The answer is: `C`", ["run", "B"], 0),
        ("code_debug", "The error is: Option B", ["run", "B"], 1),
        ("code_debug", "run", ["run", "B"], 0),
        ("longbook_qa_eng", "the Cat", ["dog", "cat"], 1),
        ("longbook_qa_chn", "答案。", ["答案"], 1),
        ("longbook_qa_chn", "答", ["答案"], 2 / 3),
        ("longbook_qa_chn", "。", ["。"], 0),
        ("longbook_sum_eng", "one line\ntwo", ["two\none line"], 1),
    ],
)
def test_answers_are_read_as_compute_scores_does(name, prediction, references, wanted):
    assert score(name, prediction, references) == pytest.approx(wanted)


def one(name, **change):
    fields = infinitebench(name, 0) | change
    task = tasks.parse(f"infinitebench(subset={name})")
    (sample,) = task.samples([document_of(name, 1, fields)], Bytes(), 2000, 256, 0)
    return sample


def test_every_data_set_has_a_limit_and_a_prompt():
    assert set(NEW) == set(OWN) == set(DATASETS) == set(GROUPS["all"]) and len(DATASETS) == 12
    grouped = [name for group, names in GROUPS.items() if group != "all" for name in names]
    assert sorted(grouped) == sorted(DATASETS)
    assert one("passkey").max_new_tokens == 6 and one("math_calc").max_new_tokens == 500


def test_choices_are_listed_with_letters():
    sample = one("code_debug", options=["f", "g", "h", "i"], answer="h")
    assert "\nA. f\nB. g\nC. h\nD. i\n" in Bytes().decode(sample.prompt)
    assert sample.references == ("h", "C")


def test_numbers_to_say_on_the_way_may_be_a_list_in_a_list():
    for answer in ([1, -2, 3], [[1, -2, 3]]):
        assert one("math_calc", answer=answer).references == ("1", "-2", "3")


@pytest.mark.parametrize("answer", [7, [7], "7", ["7"]])
def test_an_answer_may_be_a_number_a_text_or_a_list(answer):
    assert one("math_find", answer=answer).references == ("7",)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("passkey", {"answer": []}, r"'passkey:1': passkey\.jsonl:1: .* holds no text or number"),
        ("passkey", {"answer": None}, "holds no text or number"),
        ("code_run", {"answer": ["x"]}, r"'code_run:1': .*field 'answer': invalid literal"),
        ("math_find", {"answer": ["x"]}, r"'math_find:1': .*field 'answer': could not convert"),
        ("code_debug", {"answer": "zzz"}, "none of the options"),
        ("code_debug", {"options": ["a", "part_a"]}, "2 options; expected 4"),
    ],
)
def test_a_row_that_cannot_be_scored_is_an_error_with_its_id_and_line(name, change, message):
    with pytest.raises(tasks.TaskError, match=message):
        one(name, **change)


def test_the_value_of_all_is_the_mean_over_data_sets():
    task = tasks.parse("infinitebench(subset=passkey+math_find)")
    samples = task.samples(documents_of(task)[1:], Bytes(), 2000, 256, 0)
    stats = [
        task.score(sample, Output((), (), (), sample.reference if right else ""))[0].stats
        for sample, right in zip(samples, [True, True, True, False, False], strict=True)
    ]
    value, _, _ = interval("infinitebench", stats, list("abcde"), 0)
    assert value == pytest.approx((100 + 100 / 3) / 2)


def test_a_long_prompt_keeps_its_first_and_last_half_and_the_odd_token():
    for length in (1001, 1002):
        task = tasks.parse("infinitebench(subset=passkey)")
        document = document_of("passkey", 1, infinitebench("passkey", 0))
        (sample,) = task.samples([document], Bytes(), length, 256, 0)
        assert len(sample.prompt) + 6 == length and sample.cut == "context"
        assert Bytes().decode(sample.prompt).endswith("\n\nWhich part is it?")


def test_free_text_has_overlaps_besides():
    task = tasks.parse("infinitebench(subset=longbook_qa_chn+passkey)")
    samples = task.samples(documents_of(task), Bytes(), 2000, 256, 0)
    found = {
        sample.position: {score.metric for score in task.score(sample, Output((), (), (), "7"))}
        for sample in samples
    }
    assert found["passkey"] == {"infinitebench"}
    assert "bleu-zh" in found["longbook_qa_chn"] and "rougeL-zh" in found["longbook_qa_chn"]


PLACES = "{context}|{input}|{question}"
CHOICES = f"{PLACES}|{{OPTION_A}}{{OPTION_B}}{{OPTION_C}}{{OPTION_D}}"


@pytest.mark.parametrize(
    ("name", "template", "change", "wanted"),
    [
        ("kv_retrieval", PLACES, {"input": "Key?"}, "|Key?|Key?"),
        (
            "code_debug",
            CHOICES,
            {"input": "?", "options": list("wxyz"), "answer": "x"},
            "|?|?|wxyz",
        ),
        (
            "code_run",
            "{context}|{func}|{func_call}",
            {"input": "Return value of func_07(-12) or func_1(2)?"},
            "|func_07|func_07(-12)",
        ),
        (
            "math_find",
            "{context}|{prefix}",
            {"input": "One number. The 2nd Largest number of the list of it is:"},
            "|What is the 2nd largest number of the list in the following list?",
        ),
    ],
)
def test_official_templates_have_the_places_that_the_benchmark_fills(
    name, template, change, wanted
):
    fields = infinitebench(name, 0) | change
    sources = {"prompts": json.dumps({name: template})}
    task = tasks.parse(f"infinitebench(subset={name})")
    (sample,) = task.samples([document_of(name, 1, fields, sources)], Bytes(), 20_000, 256, 0)
    assert Bytes().decode(sample.prompt) == fields["context"] + wanted


def test_an_input_without_what_the_template_asks_for_is_an_error_with_its_line():
    for name, place in (("code_run", "func"), ("math_find", "prefix")):
        sources = {"prompts": json.dumps({name: f"{{context}}{{{place}}}"})}
        task = tasks.parse(f"infinitebench(subset={name})")
        document = document_of(name, 1, infinitebench(name, 0), sources)
        with pytest.raises(tasks.TaskError, match=rf"jsonl:1: field 'input' gives .* no {{{place}"):
            task.samples([document], Bytes(), 2000, 256, 0)
    for name in ("kv_retrieval", "code_debug"):
        sources = {"prompts": json.dumps({name: "{context}{func}"})}
        task = tasks.parse(f"infinitebench(subset={name})")
        document = document_of(name, 1, infinitebench(name, 0), sources)
        with pytest.raises(tasks.TaskError, match=r"KeyError 'func'; .*\{context\} and perhaps"):
            task.samples([document], Bytes(), 2000, 256, 0)
