"""L-Eval: questions that share a document, kinds of scores, and their means."""

from __future__ import annotations

import json
from itertools import cycle, pairwise
from pathlib import Path

import pytest

import tasks
from tasks.base import Output
from tasks.corpus import load
from tasks.formats import FORMATS
from tasks.intervals import interval
from tasks.leval import GROUPS, KINDS, OWN, PARTS
from tasks.official.leval import geometric_mean, rouge
from tasks.rows import Row
from tests.tasks.benchmarks import TEXTS, document_of, documents_of, leval
from tests.tasks.toy import Bytes, Words

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")
HERE = [name for name in KINDS if name not in ("codeU", "narrative_qa")]  # in ../shared/data


def made(spec: str, documents=None, length: int = 2000, tokenizer=None):
    task = tasks.parse(spec)
    given = documents_of(task) if documents is None else documents
    return task.samples(given, tokenizer or Bytes(), length, 256, 0)


def one(name: str, **change):
    fields = {key: text for key, text in (leval(name, 0) | change).items() if text is not Ellipsis}
    return made(f"leval(subset={name})", [document_of(name, 1, fields)])


def values(spec: str, samples, answers) -> dict[tuple[str, str], float]:
    task, found = tasks.parse(spec), {}
    for sample, text in zip(samples, answers, strict=True):
        for score in task.score(sample, Output((), (), (), text)):
            found.setdefault((score.metric, score.position), []).append(score.stats)
    return {key: interval(key[0], all_, ["a"] * len(all_), 0)[0] for key, all_ in found.items()}


@pytest.mark.parametrize("tokenizer", [Bytes(), Bytes(bos_id=None), Words()])
def test_questions_about_a_document_begin_with_the_same_tokens_and_the_longest_fills(tokenizer):
    questions = ["Which part?", "Which of all the parts of it is it that is part two?", "What?"]
    document = document_of("tpo", 1, leval("tpo", 0) | {"instructions": questions})
    samples = made("leval(subset=tpo,new=200)", [document], 1200, tokenizer)
    sizes = [len(sample.prompt) for sample in samples]
    assert max(sizes) == sizes[1] == 1000 and len(set(sizes)) > 1
    kept = {sample.prompt[: 1000 - len(tokenizer.encode(questions[1])) - 120] for sample in samples}
    assert len(kept) == 1 and {sample.cut for sample in samples} == {"context"}
    assert len({sample.document for sample in samples}) == 1
    assert len({sample.id for sample in samples}) == 3
    for sample, question in zip(samples, questions, strict=True):
        assert f"Question about the text: {question}" in tokenizer.decode(sample.prompt)


@pytest.mark.parametrize(
    ("name", "start", "end"), [("quality", True, False), ("codeU", False, True)]
)
def test_a_document_loses_its_end_and_code_its_start(name, start, end):
    text = Bytes().decode(made(f"leval(subset={name})")[0].prompt)
    before, _, after = OWN[name].partition("{context}")
    after = after.format(input="Which part is part 0 of it?")
    kept = text.removeprefix(before).removesuffix(after)
    assert text == before + kept + after
    assert TEXTS[0].startswith(kept) == start and TEXTS[0].endswith(kept) == end
    assert len(text) == 2000 - 512 - 1


def test_a_document_that_fits_stays_whole():
    sample = made("leval(subset=quality)", length=20_000)[0]
    filled = OWN["quality"].format(context=TEXTS[0], input="Which part is part 0 of it?")
    assert Bytes().decode(sample.prompt) == filled and sample.cut == ""
    assert sample.until == () and sample.max_new_tokens == 512


def test_open_questions_say_how_long_the_reference_is():
    sample = made("leval(subset=news_summ)")[0]
    assert "\nReply with 11 words.\nAnswer:" in Bytes().decode(sample.prompt)


def test_fiction_is_asked_for_with_the_story_and_without():
    said = "Is it so, based on the world described in the document?"
    samples = one("sci_fi", instructions=[said] * 3)
    assert [sample.position for sample in samples] == ["sci_fi 0"] * 3 + ["sci_fi 1"] * 3
    assert [sample.reference for sample in samples[::3]] == ["true", "false"]
    story, world = (Bytes().decode(sample.prompt) for sample in samples[::3])
    assert said in story and TEXTS[0][:500] in story
    assert world.startswith("Is it so, based on the real world?\n") and len(world) < 100
    found = values(
        "leval(subset=sci_fi)", samples, ["True.", "", "true", "It is True", "it is false", ""]
    )
    assert found["leval-exam", "sci_fi"] == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)


@pytest.mark.parametrize("name", KINDS)
def test_questions_about_a_document_follow_each_other(name):
    """A prompt is read from where it parts from the one before it."""
    samples = made(f"leval(subset={name})")
    for before, sample in pairwise(samples):
        if before.document == sample.document and len(sample.prompt) > 500:
            pairs = enumerate(zip(before.prompt, sample.prompt, strict=False))
            parting = next(place for place, (one, other) in pairs if one != other)
            assert 2 * parting > len(sample.prompt)


def test_values_are_means_over_data_sets_of_means_over_their_parts():
    names, rows = ("tpo", "topic_retrieval_longchat", "quality"), []
    for name, count in zip(names, (1, 2, 3), strict=True):
        rows += [document_of(name, index + 1, leval(name, index)) for index in range(count)]
    spec = f"leval(subset={'+'.join(names)})"
    samples = made(spec, rows)
    right = {
        "tpo": [1, 0, 0],
        "topic_retrieval_longchat": [1, 1, 0, 1, 0, 0],
        "quality": [1] + [0] * 8,
    }
    hits = [hit for name in ("tpo", "topic_retrieval_longchat", "quality") for hit in right[name]]
    samples.sort(key=lambda sample: names.index(sample.position.split(" ")[0]))
    found = values(
        spec, samples, [s.reference if hit else "B" for s, hit in zip(samples, hits, strict=True)]
    )
    wanted = {"tpo": 100 / 3, "topic_retrieval_longchat": 50.0, "quality": 100 / 9}
    assert found == pytest.approx(
        {("leval-exam", name): value for name, value in wanted.items()}
        | {("leval-exam", ""): sum(wanted.values()) / 3}
    )


def test_questions_by_turns_have_means_of_their_own():
    change = {"instructions": ["Which?"] * 4, "outputs": ["one thing", "two", "three", "four"]}
    samples = one("topic_retrieval_longchat", **change)
    spec = "leval(subset=topic_retrieval_longchat)"
    found = values(spec, samples, ["one thing", "", "", "four"])
    assert found["leval-exam", ""] == pytest.approx(100 / 3)


def test_rouge_is_a_geometric_mean_of_means_and_the_whole_a_mean_over_data_sets():
    spec = "leval(subset=news_summ+tv_show_summ)"
    documents = [document_of("news_summ", index + 1, leval("news_summ", index)) for index in (0, 1)]
    documents.append(document_of("tv_show_summ", 1, leval("tv_show_summ", 0)))
    samples = made(spec, documents)
    answers = ["the quick answer"] * 5 + [samples[5].reference] + ["part of the text"] * 3
    found = values(spec, samples, answers)
    pairs = list(zip(answers, (sample.reference for sample in samples), strict=True))
    first = geometric_mean([rouge(*pair) for pair in pairs[:6]])
    second = geometric_mean([rouge(*pair) for pair in pairs[6:]])
    assert first > 1.2 * second > 0
    assert found["leval-rouge", "news_summ"] == pytest.approx(first)
    assert found["leval-rouge", ""] == pytest.approx((first + second) / 2)


def test_kinds_have_values_of_their_own():
    spec = "leval(subset=tpo+financial_qa+scientific_qa+news_summ)"
    samples = made(spec)
    found = values(spec, samples, [sample.reference for sample in samples])
    assert {key for key in found if key[0].startswith("leval")} == {
        ("leval-exam", ""),
        ("leval-exam", "tpo"),
        ("leval-f1", ""),
        ("leval-f1", "financial_qa"),
        ("leval-f1", "scientific_qa"),
        ("leval-rouge", ""),
        ("leval-rouge", "news_summ"),
    }
    assert {place for metric, place in found if metric == "bleu"} == {
        *("", "financial_qa", "scientific_qa", "news_summ")
    }


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "tpo",
            {"outputs": ["A", " ", "B"]},
            r"'tpo:1': tpo\.jsonl:1: question 2 has a blank output",
        ),
        ("tpo", {"outputs": ...}, r"'tpo:1': .*no field 'outputs'"),
        ("tpo", {"outputs": ["A"]}, r"'tpo:1': .*3 instructions and 1 outputs"),
        ("tpo", {"input": ...}, r"'tpo:1': .*no field 'input'"),
        ("tpo", {"evaluation": "rouge"}, r"'evaluation' is 'rouge'; expected exam"),
        ("sci_fi", {"outputs": ["True"] * 3}, r"'sci_fi:1': .*question 1: 'True' has no '\[fact:'"),
        (
            "tpo",
            {"instructions": ["x" * 2000] * 3},
            r"'tpo:1': --len 2000: instruction and question",
        ),
    ],
)
def test_a_row_that_cannot_be_scored_is_an_error_with_its_id_and_line(name, change, message):
    with pytest.raises(tasks.TaskError, match=message):
        one(name, **change)


def test_wording_is_taken_from_the_data_where_it_is_there():
    sources = {"prompts": json.dumps({"tpo": "ASK {context} OF {input}"})}
    document = document_of("tpo", 1, leval("tpo", 0) | {"input": "it"}, sources)
    sample = made("leval(subset=tpo)", [document])[0]
    assert Bytes().decode(sample.prompt) == "ASK it OF Which part is part 0 of it?"
    with pytest.raises(
        tasks.TaskError, match=r"leval/prompts\.json: nothing for sci_fi, sci_fi world"
    ):
        made("leval(subset=sci_fi)", [document_of("sci_fi", 1, leval("sci_fi", 0), sources)])


def test_groups_are_those_of_the_paper():
    assert {name: len(names) for name, names in GROUPS.items()} == {
        "all": 20,
        "closed": 7,
        "open": 13,
    }
    with pytest.raises(tasks.TaskError, match="did you mean 'coursera'"):
        tasks.parse("leval(subset=courser)")


@needs_shared
@pytest.mark.parametrize("name", HERE)
def test_real_rows_score_as_their_prediction_file_does(name):
    task = tasks.parse(f"leval(subset={name})")
    corpus = load(str(SHARED), 6, task.reads, task.sources, task.tables)
    samples = task.samples(corpus.documents, Bytes(), 10**6, 256, 0)
    texts = cycle(["A", "12 is B", "It is true", "the end"])
    answers = [
        sample.reference if index % 3 else next(texts) for index, sample in enumerate(samples)
    ]
    found = values(task.spec, samples, answers)
    lines, said = [], iter(answers)
    for document in corpus.documents:
        meant = document.row.fields["outputs"]
        preds = [next(said) for _ in meant]
        if name == "sci_fi":
            preds = [f"{pred} [fact: {next(said)}]" for pred in preds]
        for pred, gt in zip(preds, meant, strict=True):
            lines.append(Row({"pred": pred, "gt": gt, "evaluation": KINDS[name]}, "file:1"))
    (wanted,) = FORMATS["leval"].score(name, lines, print)
    assert found[f"leval-{KINDS[name]}", name] == pytest.approx(wanted.score, abs=1e-4)
    assert found[f"leval-{KINDS[name]}", ""] == found[f"leval-{KINDS[name]}", name]
    assert len({sample.document for sample in samples}) == len(corpus.documents) == 6


@needs_shared
def test_rows_for_a_judge_are_left_out_and_said():
    task = tasks.parse("leval(subset=financial_qa)")
    corpus = load(str(SHARED), 100, task.reads, task.sources, task.tables)
    assert len(corpus.documents) == 6
    assert corpus.name == f"{SHARED}; prompts own; financial_qa without 2 rows"


def test_parts_are_few_enough_for_a_group():
    assert max(PARTS.values()) <= 4


def test_official_templates_say_words_and_turn_to_the_world_in_their_own_way():
    table = dict.fromkeys(("news_summ", "tpo", "sci_fi"), "{context}|{input}|") | {
        "news_summ": "{context}|{input}|{words}",
        "sci_fi world": "{context}{input}!",
        "sci_fi replaced": ["in the story.", "in truth"],
    }

    def asked(name: str, table: dict, **change) -> list[str]:
        sources = {"prompts": json.dumps(table)}
        fields = leval(name, 0) | change
        document = document_of(name, 1, fields, sources)
        samples = made(f"leval(subset={name})", [document], 20_000)
        return [Bytes().decode(sample.prompt) for sample in samples]

    assert asked("news_summ", table)[0] == f"{TEXTS[0]}|Which part is part 0 of it?|11"
    assert asked("tpo", table)[0] == f"{TEXTS[0]}|Which part is part 0 of it?|"
    said = ["Is it so in the story."] * 3
    assert asked("sci_fi", table, instructions=said)[::3] == [
        f"{TEXTS[0]}|{said[0]}|",
        "Is it so in truth!",
    ]
    with pytest.raises(tasks.TaskError, match=r"sci_fi replaced: expected two texts"):
        asked("sci_fi", table | {"sci_fi replaced": ["one"]})
    with pytest.raises(tasks.TaskError, match=r"tpo: KeyError 'words'; expected .*\{input\}"):
        asked("tpo", table | {"tpo": "{context}{words}"})


def test_only_questions_about_the_document_stand_in_a_chat_template():
    tokenizer = Bytes(chat=("<user>", "<model>"))
    texts = made("leval(subset=sci_fi,chat=on)", tokenizer=tokenizer)[:6:3]
    story, world = (Bytes().decode(sample.prompt) for sample in texts)
    assert story.startswith("<user>") and story.endswith("<model>") and texts[0].chat
    assert "<user>" not in world and "<model>" not in world and not texts[1].chat
