"""LongBench: prompts, truncation, ends, and averages as the leaderboard takes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import harness
import tasks
from harness.tokenizer import TextTokenizer
from tasks.base import Output
from tasks.corpus import load
from tasks.intervals import interval
from tasks.longbench.datasets import DATASETS, EXTENDED, GROUPS
from tasks.longbench.prompts import OWN
from tests.tasks.benchmarks import document_of, documents_of, longbench, longbench_v2
from tests.tasks.toy import Bytes, Words

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")
TINY = Path(harness.__file__).parent / "assets" / "tiny"
OFFICIAL = {
    "prompts": json.dumps({name: "ASK {context} OF {input} END" for name in DATASETS}),
    "limits": json.dumps(dict.fromkeys(DATASETS, 9)),
}


CHAT = ("<u>", "</u>yes: ")  # 12 bytes


def made(spec: str, documents=None, length: int = 2000, tokenizer=None, sources=None, chat=None):
    task = tasks.parse(spec)
    given = documents_of(task, sources) if documents is None else documents
    return task.samples(given, tokenizer or Bytes(chat=chat), length, 256, 0)


def one(name: str, length: int = 2000, cut: str = "prompt", tokenizer=None, sources=None, **change):
    fields = longbench(name, 0) | change
    fields = {key: value for key, value in fields.items() if value is not Ellipsis}
    document = document_of(name, 1, fields, sources)
    (sample,) = made(f"longbench(subset={name},cut={cut})", [document], length, tokenizer)
    return sample


def said(sample, text: str) -> dict[tuple[str, str], tuple[float, ...]]:
    task = tasks.parse(f"longbench(subset={sample.position})")
    return {
        (score.metric, score.position): score.stats
        for score in task.score(sample, Output((), (), (), text))
    }


def value(sample, text: str) -> float:
    return interval("longbench", [said(sample, text)["longbench", ""]], ["a"], 0)[0]


@pytest.mark.parametrize("tokenizer", [Bytes(), Bytes(bos_id=None), Words()])
@pytest.mark.parametrize("length", [400, 401, 1000])
def test_a_long_prompt_keeps_both_halves_as_pred_py_does(tokenizer, length):
    sample = one("hotpotqa", length, tokenizer=tokenizer, sources=OFFICIAL)
    fields = longbench("hotpotqa", 0)
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = bos + tokenizer.encode(f"ASK {fields['context']} OF {fields['input']} END")
    half = int((length - 9) / 2)
    kept = tokenizer.decode(ids[:half]) + tokenizer.decode(ids[-half:])
    assert len(ids) > length and list(sample.prompt) == bos + tokenizer.encode(kept)
    assert length - 9 - 2 <= len(sample.prompt) <= length - 9
    text = tokenizer.decode(sample.prompt)
    assert text.startswith("ASK the") and text.endswith("OF Which part is part 0? END")
    assert sample.cut == "context"


@pytest.mark.parametrize("length", [700, 701])
def test_a_cut_prompt_loses_special_tokens_of_its_text_as_in_pred_py(length):
    hf = AutoTokenizer.from_pretrained(TINY)
    tokenizer, fields = TextTokenizer(hf), longbench("hotpotqa", 0)
    context = f"Part one </s> <s>{fields['context']}"
    sample = one("hotpotqa", length, tokenizer=tokenizer, sources=OFFICIAL, context=context)
    ids, half = hf(f"ASK {context} OF {fields['input']} END").input_ids, int((length - 9) / 2)
    kept = [hf.decode(part, skip_special_tokens=True) for part in (ids[:half], ids[-half:])]
    assert list(sample.prompt) == hf("".join(kept)).input_ids
    assert "s>" not in "".join(kept) and hf.eos_token_id in ids


def test_a_prompt_that_fits_to_the_token_is_not_cut():
    whole = one("hotpotqa", 10**6, sources=OFFICIAL)
    size = len(whole.prompt) + whole.max_new_tokens
    assert whole.cut == "" and one("hotpotqa", size, sources=OFFICIAL) == whole
    assert one("hotpotqa", size - 1, sources=OFFICIAL).cut == "context"


def test_text_that_grows_when_encoded_again_is_cut_until_it_fits():
    for length in range(300, 330):
        sample = one("vcsum", length, context="会议" * 500, sources=OFFICIAL)
        assert length - 9 - 8 <= len(sample.prompt) <= length - 9
        assert Bytes().decode(sample.prompt).endswith("END")


def test_a_question_longer_than_half_the_budget_is_cut_unless_the_context_alone_is():
    question = "Q" + "x" * 300 + "?"
    official = one("triviaqa", 400, input=question, sources=OFFICIAL)
    assert official.cut == "wording" and question not in Bytes().decode(official.prompt)
    kept = one("triviaqa", 400, cut="context", input=question, sources=OFFICIAL)
    assert kept.cut == "context" and len(kept.prompt) == 400 - 9
    text = Bytes().decode(kept.prompt)
    context = longbench("triviaqa", 0)["context"].encode()
    room = 400 - 9 - 1 - len(f"ASK  OF {question} END")
    ends = context[: room // 2] + context[-(room - room // 2) :]
    assert text == f"ASK {ends.decode()} OF {question} END"
    with pytest.raises(tasks.TaskError, match=r"'triviaqa:1': --len 300: instruction and question"):
        one("triviaqa", 300, cut="context", input=question, sources=OFFICIAL)


def test_the_context_is_cut_at_tokens_of_its_own():
    sample = one("trec", 100, cut="context", tokenizer=Words(), sources=OFFICIAL)
    assert len(sample.prompt) == 91


def test_the_official_wording_and_limits_are_used_where_they_are_given():
    sample = one("trec", sources=OFFICIAL, context="a {b} text")
    assert Bytes().decode(sample.prompt) == "ASK a {b} text OF Which part is part 0? END"
    assert sample.max_new_tokens == 9
    own = one("trec", context="a {b} text")
    assert own.max_new_tokens == 64
    wanted = (
        OWN["trec"].replace("{context}", "a {b} text").replace("{input}", "Which part is part 0?")
    )
    assert Bytes().decode(own.prompt) == wanted


def test_own_wording_asks_what_the_row_asks():
    assert set(OWN) == set(DATASETS)
    silent = {"gov_report", "multi_news", "vcsum", "passage_count"}  # their input is empty
    assert {name for name, text in OWN.items() if "{input}" not in text} == silent
    assert all(text.count("{context}") == 1 for text in OWN.values())


def test_ends_limits_and_chat_are_those_of_the_official_code():
    samples = {sample.position: sample for sample in made("longbench")}
    assert {one.until for one in samples.values()} == {()}
    assert {name for name, one in samples.items() if one.ends or one.min_new_tokens} == {"samsum"}
    assert samples["samsum"].ends == (10,) and samples["samsum"].min_new_tokens == 1
    assert not any(one.chat for one in samples.values())
    chatted = {one.position: one for one in made("longbench(chat=on)", chat=CHAT)}
    plain = {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
    assert {name for name, one in chatted.items() if not one.chat} == plain
    for name in plain:
        assert chatted[name].prompt == samples[name].prompt


@pytest.mark.parametrize(
    "spec",
    ["longbench(chat=on,subset=qasper)", "longbench-v2(chat=on)", "leval(chat=on,subset=open)"],
)
@pytest.mark.parametrize("length", [900, 60_000])
def test_a_prompt_in_chat_is_the_users_message_within_the_length(spec, length):
    alone = made(spec.replace("chat=on,", "").replace("(chat=on)", ""), length=length - 12)
    for sample, plain in zip(made(spec, length=length, chat=CHAT), alone, strict=True):
        text = Bytes().decode(sample.prompt)
        assert sample.chat and len(sample.prompt) + sample.max_new_tokens <= length
        assert text == CHAT[0] + Bytes().decode(plain.prompt) + CHAT[1]


def test_chat_without_a_template_is_refused():
    with pytest.raises(tasks.TaskError, match=r"longbench\(chat=on\): this model has no chat"):
        made("longbench(chat=on)")


def test_the_first_line_counts_where_eval_py_takes_it_alone():
    assert value(one("trec"), "\nKind 3\nKind 4") == 100
    assert value(one("trec"), "Kind 4\nKind 3") == 0
    assert value(one("trec"), "Kind 3, Kind 4") == 50
    assert value(one("hotpotqa"), "no\nthe quick answer is in part 3 of the long text") > 50
    assert value(one("samsum"), "\n \nthe quick answer is in part 3 of the long text") == 0


def test_code_has_the_other_similarity_beside_its_score():
    sample = one("lcc", answers=["abcda"])
    found = said(sample, "aacba")
    assert {key: stats[:2] for key, stats in found.items() if key[1] in ("", "lcc")} == {
        **{("longbench", place): (40.0, 1.0) for place in ("", "lcc")},
        **{("code_sim-levenshtein", place): (60.0, 1.0) for place in ("", "lcc")},
    }


def test_overlap_is_of_the_line_that_eval_py_takes():
    sample = one("samsum", answers=["they meet at noon near the lake"])
    scores = said(sample, "\nthey meet at noon near the lake\nDialogue: on and on")
    assert scores["rougeL", "samsum"] == (1.0, 1.0)
    assert interval("bleu", [scores["bleu", "samsum"]], ["a"], 0)[0] == pytest.approx(100)


def test_the_best_reference_counts_for_every_metric():
    sample = one("qasper", answers=["something else than that", "it is the second answer here"])
    scores = said(sample, "it is the second answer here")
    assert scores["longbench", "qasper"][:2] == (100.0, 1.0)
    assert scores["rougeL", "qasper"] == scores["rouge2", "qasper"] == (1.0, 1.0)
    assert interval("bleu", [scores["bleu", "qasper"]], ["a"], 0)[0] == pytest.approx(100)
    assert {metric for metric, _ in said(one("lcc"), "x")} == {"longbench", "code_sim-levenshtein"}
    assert {metric for metric, _ in said(one("dureader"), "答")} == {
        *("longbench", "bleu-zh", "rouge1-zh", "rouge2-zh", "rougeL-zh")
    }


def averaged(spec: str, rows: dict[str, list[bool]]):
    """Values by position of rows that are answered rightly or not."""
    task = tasks.parse(spec)
    documents = [
        document_of(name, index, longbench(name, 0) | {"length": 100 + 5000 * (index % 2)})
        for name, right in rows.items()
        for index in range(len(right))
    ]
    samples = task.samples(documents, Bytes(), 1000, 256, 0)
    stats: dict[str, list] = {}
    for sample, right in zip(samples, [one for all_ in rows.values() for one in all_], strict=True):
        for score in task.score(sample, Output((), (), (), sample.reference if right else "")):
            if score.metric == "longbench":
                stats.setdefault(score.position, []).append(score.stats)
    return {
        place: interval("longbench", found, [str(one) for one in range(len(found))], 0)
        for place, found in stats.items()
    }


def test_averages_weigh_data_sets_the_same_whatever_their_rows():
    found = averaged(
        "longbench(subset=qasper+multifieldqa_zh+hotpotqa+musique+lcc)",
        {
            "qasper": [True],
            "multifieldqa_zh": [False, True, False, False],
            "hotpotqa": [True, True, False, False, False],
            "musique": [True] * 3,
            "lcc": [False, True],
        },
    )
    single, multi, code = (100 + 25) / 2, (40 + 100) / 2, 50
    wanted = {
        "": (single + multi + code) / 3,
        "en": (100 + multi + code) / 3,
        "en flat": (100 + 40 + 100 + 50) / 4,
        "zh": (25 + code) / 2,
        "zh flat": (25 + 50) / 2,
        "en single-doc-qa": 100,
        "zh single-doc-qa": 25,
        "en multi-doc-qa": multi,
        "en code": code,
        "zh code": code,
        "qasper": 100,
        "multifieldqa_zh": 25,
        "hotpotqa": 40,
        "musique": 100,
        "lcc": 50,
    }
    assert {place: values[0] for place, values in found.items()} == pytest.approx(wanted)


def test_the_interval_of_an_average_leaves_out_that_data_sets_differ():
    rows = {"qasper": [True] * 20, "hotpotqa": [False] * 20}
    assert averaged("longbench(subset=qasper+hotpotqa)", rows)[""] == (50, 50, 50)


def test_buckets_of_the_extended_set_are_averages_of_their_own():
    found = averaged(
        "longbench-e(subset=qasper+multifieldqa_en+lcc)",
        {
            "qasper": [True, False, True],
            "multifieldqa_en": [False, False],
            "lcc": [False, True, False, True, False, False],
        },
    )
    wanted = {  # the paper's macro-average: a category weighs the same, whatever its data sets
        "": ((200 / 3 + 0) / 2 + 100 / 3) / 2,
        "flat": (200 / 3 + 0 + 100 / 3) / 3,
        "0-4k": ((100 + 0) / 2 + 0) / 2,
        "0-4k flat": 100 / 3,
        "4-8k": ((0 + 0) / 2 + 200 / 3) / 2,
        "4-8k flat": 200 / 9,
        "qasper": 200 / 3,
        "qasper 0-4k": 100,
        "qasper 4-8k": 0,
        "multifieldqa_en": 0,
        "multifieldqa_en 0-4k": 0,
        "multifieldqa_en 4-8k": 0,
        "lcc": 100 / 3,
        "lcc 0-4k": 0,
        "lcc 4-8k": 200 / 3,
    }
    assert {place: values[0] for place, values in found.items()} == pytest.approx(wanted)
    assert len(EXTENDED) == 13
    assert tasks.parse("longbench-e(subset=lcc)").tables["lcc"].patterns == ("lcc_e.jsonl",)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("trec", {"answers": []}, r"'trec:1': trec\.jsonl:1: field 'answers' is an empty list"),
        ("trec", {"answers": ...}, r"'trec:1': trec\.jsonl:1: no field 'answers'"),
        (
            "qasper",
            {"answers": [" ", ""]},
            r"'qasper:1': .*blank texts alone; expected a reference",
        ),
        ("trec", {"all_classes": None}, r"'trec:1': .*'all_classes' is null"),
        ("lcc", {"context": ...}, r"'lcc:1': .*no field 'context'"),
        ("lcc", {"input": ...}, r"'lcc:1': .*no field 'input' or 'question'"),
        ("passage_retrieval_en", {"answers": ["3"]}, r"passage_retrieval_en:1': .*no 'Paragraph '"),
    ],
)
def test_a_row_that_cannot_be_scored_is_an_error_with_its_id_and_line(name, change, message):
    with pytest.raises(tasks.TaskError, match=message):
        one(name, **change)


def test_question_is_another_name_of_input():
    sample = one("lcc", input=..., question="Q?", sources=OFFICIAL, context="c")
    assert Bytes().decode(sample.prompt) == "ASK c OF Q? END"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("prompts", "{", r"dataset2prompt\.json: not JSON"),
        ("prompts", "[]", r"dataset2prompt\.json: nothing for trec"),
        ("prompts", '{"trec": "no place"}', r"dataset2prompt\.json: trec: ValueError no {context}"),
        ("prompts", '{"trec": "{context}{x}"}', r"trec: KeyError 'x'; expected a text"),
        ("prompts", '{"trec": "{context}{input.x}"}', r"trec: AttributeError"),
        ("prompts", '{"trec": 3}', r"trec: AttributeError"),
        ("limits", '{"lcc": 3}', r"dataset2maxlen\.json: nothing for trec"),
        ("limits", '{"trec": 0}', r"dataset2maxlen\.json: trec: 0; expected an integer"),
        ("limits", '{"trec": true}', r"dataset2maxlen\.json: trec: True; expected an integer"),
    ],
)
def test_malformed_official_files_are_refused(key, text, message):
    with pytest.raises(tasks.TaskError, match=message):
        one("trec", sources={key: text})


def test_subsets_are_chosen_by_name_language_and_category():
    assert tasks.parse("longbench").subset == tuple(DATASETS) and len(DATASETS) == 21
    assert (
        tasks.parse("longbench(subset=qasper+hotpotqa)").spec == "longbench(subset=qasper+hotpotqa)"
    )
    sizes = {name: len(names) for name, names in GROUPS.items()}
    assert (sizes["en"], sizes["zh"], sizes["code"], sizes["few-shot"]) == (16, 7, 2, 4)
    with pytest.raises(tasks.TaskError, match=r"longbench\(subset=hotpot_qa\).*mean 'hotpotqa'"):
        tasks.parse("longbench(subset=hotpot_qa)")
    with pytest.raises(tasks.TaskError, match="did you mean 'qasper'"):
        tasks.parse("longbench-e(subset=qaspr)")


def test_letters_are_counted_by_difficulty_and_length():
    task, found = tasks.parse("longbench-v2"), {}
    for sample, text in zip(
        made("longbench-v2"),
        ["So **The correct answer is (A)**.", "The correct answer is C", "It is (C)"],
        strict=True,
    ):
        assert sample.until == () and sample.max_new_tokens == 128
        for score in task.score(sample, Output((), (), (), text)):
            found.setdefault(score.position, []).append(score.stats[0])
    assert found == {
        "": [100, 0, 0],
        "easy": [100, 0],
        "hard": [0],
        "short": [100],
        "medium": [0],
        "long": [0],
    }


def test_v2_takes_the_last_token_of_an_odd_budget_and_strips_the_fields():
    official = "T $DOC$ | $Q$ | $C_A$ | $C_B$ | $C_C$ | $C_D$"
    fields = longbench_v2("longbench-v2", 0)
    for length in (500, 501):
        document = document_of("longbench-v2", 1, fields, {"prompts": official})
        (sample,) = made("longbench-v2", [document], length)
        choices = " | ".join(f"it is part {letter}" for letter in "ABCD")
        whole = f"T {fields['context'].strip()} | Which part is part 0? | {choices}".encode()
        ids, most = [256, *whole], length - 128
        assert list(sample.prompt) == ids[: most // 2] + ids[-most // 2 :]
    with pytest.raises(tasks.TaskError, match=r"0shot\.txt: no \$DOC\$, \$C_D\$ in it"):
        document = document_of("longbench-v2", 1, fields, {"prompts": "$Q$ $C_A$ $C_B$ $C_C$"})
        made("longbench-v2", [document])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, r"'longbench-v2:1': .*'answer' is 'E'; expected A, B, C, D"),
        ({"difficulty": "odd"}, "expected easy, hard"),
        ({"context": None}, "'context' is null"),
        ({"choice_D": 3}, "'choice_D' is 3, not a text"),
    ],
)
def test_a_row_of_v2_that_cannot_be_scored_is_an_error(change, message):
    document = document_of("longbench-v2", 1, longbench_v2("", 0) | change)
    with pytest.raises(tasks.TaskError, match=message):
        made("longbench-v2", [document])


@needs_shared
@pytest.mark.parametrize("name", DATASETS)
def test_real_rows_with_official_prompts(name):
    task = tasks.parse(f"longbench(subset={name})")
    corpus = load(str(SHARED), 2, task.reads, task.sources, task.tables)
    path = SHARED / "longbench_v1" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:2]]
    templates = json.loads((SHARED / "prompts/longbench_v1/dataset2prompt.json").read_text("utf-8"))
    limits = json.loads((SHARED / "prompts/longbench_v1/dataset2maxlen.json").read_text("utf-8"))
    assert corpus.name.startswith(f"{SHARED}; prompts official dataset2prompt.json@")
    assert limits[name] == DATASETS[name].new
    whole = task.samples(corpus.documents, Bytes(bos_id=None), 10**7, 256, 0)
    short = task.samples(corpus.documents, Bytes(bos_id=None), 3000, 256, 0)
    for row, sample, cut in zip(rows, whole, short, strict=True):
        assert Bytes().decode(sample.prompt) == templates[name].format(**row)
        assert sample.references == tuple(row["answers"]) and sample.max_new_tokens == limits[name]
        assert value(sample, row["answers"][0]) == pytest.approx(100)
        assert cut.prompt[:1000] == sample.prompt[:1000] and cut.cut


@needs_shared
def test_real_rows_of_v2_with_the_official_prompt():
    task = tasks.parse("longbench-v2")
    corpus = load(str(SHARED), 40, task.reads, task.sources, task.tables)
    assert "prompts official 0shot.txt@" in corpus.name and len(corpus.documents) == 40
    row = json.loads((SHARED / "longbench_v2" / "sample.jsonl").read_text("utf-8").split("\n")[0])
    text = (SHARED / "prompts" / "longbench_v2" / "0shot.txt").read_text(encoding="utf-8")
    for place, field in [("$DOC$", "context"), ("$Q$", "question")]:
        text = text.replace(place, row[field].strip())
    for letter in "ABCD":
        text = text.replace(f"$C_{letter}$", row[f"choice_{letter}"].strip())
    (sample,) = task.samples(corpus.documents[:1], Bytes(bos_id=None), 10**7, 256, 0)
    assert Bytes().decode(sample.prompt) == text
