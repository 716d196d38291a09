"""RULER's thirteen tasks: what stands in the prompt, what is asked, and how it is scored."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

import tasks
from tasks.base import Document
from tasks.ruler import GROUPS, PARTS
from tasks.ruler.prompts import FAMILIES, NEEDLE, NOISE, OWN
from tests.tasks.toy import SOURCES, Bytes, played

TEXT = "The cat sat here. A dog ran by! Was it late? " * 400
DOCUMENTS = [Document(f"sample {index}", TEXT, sources=SOURCES) for index in range(6)]
LENGTH = {"cwe": 24_000, "qa_1": 6000, "qa_2": 6000}  # bytes are many tokens


def made(name: str, length: int | None = None, seed: int = 0, n: int = 6, sources=None):
    task = tasks.parse(f"ruler(tasks={name})")
    documents = DOCUMENTS[:n] if sources is None else [Document("sample 0", TEXT, sources=sources)]
    return task.samples(documents, Bytes(), length or LENGTH.get(name, 4096), 256, seed)


def text_of(sample) -> str:
    return Bytes().decode(sample.prompt)


def scored(sample, answer: str) -> float:
    task = tasks.parse(f"ruler(tasks={sample.position})")
    whole, own = task.score(sample, played(sample, lambda _: 0.0, True, answer=answer))
    assert whole.stats == own.stats and (whole.position, own.position) == ("", sample.position)
    return whole.stats[0]


@pytest.mark.parametrize("name", PARTS)
def test_prompt_and_answer_fill_the_length_to_the_token(name):
    base = LENGTH.get(name, 4096)
    for length in (base, base + 97):
        for sample in made(name, length):
            assert len(sample.prompt) + sample.max_new_tokens == length
            assert sample.max_new_tokens == OWN[PARTS[name].family].new and sample.until == ()
            assert sample.prompt[0] == 256 and 256 not in sample.prompt[1:]


@pytest.mark.parametrize("name", PARTS)
def test_answers_depend_on_the_seed_and_the_index_alone(name):
    base = LENGTH.get(name, 4096)
    answers = [sample.reference for sample in made(name)]
    assert made(name) == made(name)
    assert answers[:2] == [sample.reference for sample in made(name, n=2)]
    assert answers == [sample.reference for sample in made(name, 2 * base)]
    assert len(set(answers)) == len(answers)
    if not name.startswith("qa"):
        assert not set(answers) & {sample.reference for sample in made(name, seed=1)}


@pytest.mark.parametrize("name", PARTS)
def test_the_references_score_100_and_nothing_scores_0(name):
    sample = made(name)[0]
    references = sample.reference.split("\n")
    assert scored(sample, ", ".join(references).upper()) == 100
    assert scored(sample, "") == scored(sample, "none of it") == 0
    part = 100 if PARTS[name].any_of else 100 / len(references)
    assert scored(sample, f" is {references[-1]}\x01") == pytest.approx(part)


@pytest.mark.parametrize(
    ("name", "keys", "values", "asked"),
    [
        ("niah_single_1", 1, 1, 1),
        ("niah_single_2", 1, 1, 1),
        ("niah_single_3", 1, 1, 1),
        ("niah_multikey_1", 4, 1, 1),
        ("niah_multivalue", 1, 4, 4),
        ("niah_multiquery", 4, 1, 4),
    ],
)
def test_needles_keys_and_values_are_those_of_the_benchmark(name, keys, values, asked):
    for sample in made(name):
        text = text_of(sample)
        found = re.findall(r"One of the special magic (\w+) for (\S+) is: (\S+)\.", text)
        counts = Counter(key for _, key, _ in found)
        assert len(counts) == keys and set(counts.values()) == {values}
        assert {kind for kind, _, _ in found} == {"uuids" if name == "niah_single_3" else "numbers"}
        question = text.rpartition("\n")[2]
        wanted = [value for _, key, value in found if key in question]
        assert sorted(wanted) == sorted(sample.reference.split("\n")) and len(wanted) == asked
        assert question.endswith(" are" if asked > 1 else " is")


@pytest.mark.parametrize("name", ["niah_multikey_2", "niah_multikey_3"])
def test_a_haystack_of_needles_has_every_key_once(name):
    for sample in made(name, 8000):
        text = text_of(sample)
        found = re.findall(r"\nOne of the special magic \w+ for (\S+) is: (\S+)\.", text)
        assert len(found) > 40 and len(dict(found)) == len(found)
        assert dict(found)[re.search(r"for (\S+) are|for (\S+) is$", text)[2]] == sample.reference


def test_keys_that_are_drawn_again_are_left_out(monkeypatch):
    monkeypatch.setattr("tasks.ruler.niah.words", lambda kind: [kind + str(i) for i in range(10)])
    for sample in made("niah_multikey_2", 4096):
        keys = re.findall(r"\nOne of the special magic \w+ for (\S+) is: ", text_of(sample))
        assert len(set(keys)) == len(keys) > 40


def test_noise_is_the_benchmarks_and_essays_are_the_data():
    assert NOISE in text_of(made("niah_single_1")[0])
    essay = text_of(made("niah_single_2")[0])
    assert NOISE not in essay and "A dog ran by! Was it late?" in essay


def test_essays_begin_where_the_data_begins_for_all_samples():
    own = Document("sample 0", "Once upon a time. " + TEXT)
    task = tasks.parse("ruler(tasks=niah_single_2)")
    for length in (2048, 4096):
        (sample,) = task.samples([own], Bytes(), length, 256, 0)
        assert text_of(sample).count("Once upon a time.") == 1


def test_needles_take_depths_all_over_the_text():
    places = []
    for seed in range(8):
        for sample in made("niah_multiquery", 8000, seed):
            text = text_of(sample)
            places += [match.start() / len(text) for match in re.finditer("One of the", text)]
    assert min(places) < 0.06 and max(places) > 0.9
    assert all(sum(low <= place < low + 0.25 for place in places) > 20 for low in (0, 0.25, 0.5))


def test_the_chain_of_variables_hands_one_value_on():
    for sample in made("vt"):
        text = text_of(sample)
        names = sample.reference.split("\n")
        statements = re.findall(r"VAR ([A-Z]{5}) = (?:VAR )?(\w+)", text)
        value = re.search(r"have the value (\d+), namely: $", text)[1]
        assert statements == list(zip(names, [value, *names[:-1]], strict=True))
        lines = text.split("\n")  # a statement is one, and a blank follows all but the first
        assert {f"VAR {names[0]} = {value}", f"VAR {names[1]} = VAR {names[0]} "} < set(lines)
        assert len(list(filter(re.compile(r"VAR \w+ = (VAR \w+ |\d{5})").fullmatch, lines))) == 10
        example = re.findall(r"VAR ([A-Z]{3}) = ", text)
        assert len(example) == 5 and f":  {' '.join(example)}\n\n" in text
        assert text.partition(f":  {' '.join(example)}\n\n")[0].count(NOISE) == 10


@pytest.mark.parametrize(("length", "often", "seldom"), [(4095, 6, 1), (24_000, 30, 3)])
def test_common_words_stand_as_often_as_the_benchmark_has_them(length, often, seldom):
    for sample in made("cwe", length, n=2):
        listed = text_of(sample).rpartition("more often than the rest.\n")[2].partition("\nQ")[0]
        numbers, words = zip(*re.findall(r"(\d+)\. (\D+?)(?= \d+\. |$)", listed), strict=True)
        assert numbers == tuple(str(place) for place in range(1, len(words) + 1))
        counts = Counter(words)
        common = sample.reference.split("\n")
        assert {word for word, times in counts.items() if times == often} == set(common)
        assert set(counts.values()) == {often, seldom} and len(common) == 10


def test_from_4096_tokens_on_common_words_stand_more_often():
    with pytest.raises(tasks.TaskError, match="common words alone take"):
        made("cwe", 4096)
    assert made("cwe", 4095)


@pytest.mark.parametrize(("name", "most"), [("cwe", 90), ("fwe", 30)])
def test_one_more_word_would_not_fit(name, most):
    for sample in made(name, n=2):
        assert text_of(sample).index(OWN[PARTS[name].family].before[:20]) < most


def test_frequent_words_follow_the_zeta_distribution():
    for sample in made("fwe", 8000):
        text = text_of(sample).partition("frequent.")[2].partition("\nQuestion")[0]
        counts = Counter(text.split())
        ranked = ["...", *sample.reference.split("\n")]
        assert [word for word, _ in counts.most_common(4)] == ranked
        total = sum(counts.values())
        for rank, word in enumerate(ranked, 1):
            assert counts[word] / total == pytest.approx(6 / (3.14159 * rank) ** 2, rel=0.12)
        assert all(re.fullmatch(r"[a-z]{6}|\.\.\.", word) for word in counts)


def test_squad_answers_stand_in_a_document_beside_its_article_and_others():
    for index, sample in enumerate(made("qa_1")):
        text = text_of(sample)
        article, part = divmod(index, 2)
        assert sample.reference.split("\n")[0] == f"fact {article}{part + 1}"
        assert f"Question: What does part {part + 1} of article {article} say? Answer:" in text
        parts = set(re.findall(r"\nArticle (\d+) part (\d) says", text))
        assert {(str(article), str(one)) for one in range(3)} <= parts and len(parts) > 5
        labels = re.findall(r"Document (\d+):\n", text)
        assert labels == [str(place) for place in range(1, len(labels) + 1)]


def test_hotpotqa_has_all_ten_paragraphs_of_the_question():
    for index, sample in enumerate(made("qa_2")):
        titles = set(re.findall(r"\nTitle (\d+\.\d+)\n", text_of(sample)))
        assert {f"{index}.{place}" for place in range(10)} <= titles and len(titles) > 10


@pytest.mark.parametrize("name", ["qa_1", "qa_2"])
def test_the_borders_of_a_question_cut_its_prompt_into_documents(name):
    for length in (6000, 6097):
        for sample in made(name, length):
            text = [chr(one) for one in sample.prompt[1:]]
            starts = [match.start() for match in re.finditer(r"\n\nDocument", "".join(text))]
            *contexts, question = (place - 1 for place in sample.borders)
            assert contexts == starts and len(starts) > 4
            asked = "".join(text[question:])
            assert asked.startswith("\n\n") and asked.endswith("Answer:") and "Doc" not in asked


def test_in_chat_the_borders_are_those_of_the_documents_too():
    task = tasks.parse("ruler(tasks=qa_1,chat=on)")
    (sample,) = task.samples(DOCUMENTS[:1], Bytes(chat=("<user>", "</><model>")), 6000, 256, 0)
    text = [chr(one) for one in sample.prompt[1:]]
    starts = [match.start() for match in re.finditer(r"\n\nDocument", "".join(text))]
    *contexts, question = (place - 1 for place in sample.borders)
    assert contexts == starts and "".join(text[question:]).startswith("\n\nReply")


def test_other_prompts_have_no_contexts_to_read_apart():
    names = [name for name in PARTS if not name.startswith("qa")]
    assert all(not made(name, n=1)[0].borders for name in names)


def test_needed_documents_are_never_cut():
    outcomes = set()
    for length in range(1000, 1400, 7):
        try:
            (sample,) = made("qa_2", length, n=1)
        except tasks.TaskError:
            outcomes.add("refused")
            continue
        outcomes.add("made")
        for title, sentences in json.loads(SOURCES["hotpotqa"])[0]["context"]:
            assert f"{title}\n{''.join(sentences)}" in text_of(sample)
    assert outcomes == {"refused", "made"}


def test_the_answer_document_is_not_always_in_the_same_place():
    places = set()
    for sample in made("qa_1"):
        before = text_of(sample).partition(f"says {sample.reference.split(chr(10))[0]}.")[0]
        places.add(re.findall(r"Document (\d+):", before)[-1])
    assert len(places) > 2


def official() -> dict:
    return {
        family: {
            "template": f"OFFICIAL {family}\n{{context}}\nAsked: {{query}}",
            "answer_prefix": " So:",
            "tokens_to_generate": 9,
        }
        for family in FAMILIES
    }


def test_official_wording_and_limits_are_used_where_they_are_given():
    (sample,) = made("niah_single_1", sources={"prompts": json.dumps(official())})
    assert text_of(sample).startswith("OFFICIAL niah\n") and text_of(sample).endswith(" So:")
    assert sample.max_new_tokens == 9


@pytest.mark.parametrize("fault", ["not json", "[]", "{}", {"niah": {"template": "no place"}}])
def test_malformed_official_prompts_are_refused(fault):
    text = fault if isinstance(fault, str) else json.dumps(official() | fault)
    with pytest.raises(tasks.TaskError, match=r"ruler/templates\.json: .*expected an object with"):
        made("niah_single_1", sources={"prompts": text})


@pytest.mark.parametrize(
    ("name", "length", "sources", "message"),
    [
        ("qa_1", 6000, {}, "no squad file in the data"),
        ("qa_1", 6000, {"squad": "[1]"}, "squad: TypeError"),
        ("qa_2", 6000, {"hotpotqa": "{"}, "hotpotqa: JSONDecodeError"),
        ("qa_2", 1000, SOURCES, "the 10 documents of question 0 of hotpotqa do not fit"),
        ("qa_1", 10**6, SOURCES, "do not fill it; lower --len"),
        ("cwe", 1250, {}, "the common words alone take"),
        ("cwe", 10**6, {}, "words of the list do not fill it; lower --len"),
        ("fwe", 300, {}, "no three words are more frequent"),
        ("vt", 300, {}, "raise --len"),
    ],
)
def test_lengths_and_data_that_do_not_go_are_refused(name, length, sources, message):
    with pytest.raises(tasks.TaskError, match=message):
        made(name, length, sources=sources)


def test_the_file_has_to_have_a_question_for_every_sample():
    task = tasks.parse("ruler(tasks=qa_2)")
    documents = [Document(f"sample {index}", TEXT, sources=SOURCES) for index in range(25)]
    with pytest.raises(tasks.TaskError, match="--n 25: hotpotqa has 24 questions"):
        task.samples(documents, Bytes(), 6000, 256, 0)


def test_tasks_are_chosen_by_name_and_by_group():
    assert tasks.parse("ruler").tasks == tuple(PARTS) and len(PARTS) == 13
    assert tasks.parse("ruler(tasks=fwe+vt)").spec == "ruler(tasks=vt+fwe)"
    assert tasks.parse("ruler(tasks=all)").spec == "ruler"
    assert set(tasks.parse("ruler(tasks=synthetic)").tasks) == set(PARTS) - {"qa_1", "qa_2"}
    assert len(GROUPS["niah"]) == 8
    with pytest.raises(tasks.TaskError, match="did you mean 'niah_single_1'"):
        tasks.parse("ruler(tasks=niah_singel_1)")


def test_the_mean_gives_every_task_the_same_weight():
    task = tasks.parse("ruler(tasks=niah_single_1+niah_multivalue)")
    samples = task.samples(DOCUMENTS, Bytes(), 4096, 256, 0)
    assert [sample.position for sample in samples] == ["niah_single_1"] * 6 + [
        "niah_multivalue"
    ] * 6
    assert len({sample.id for sample in samples}) == 12
    assert samples[0].reference != samples[6].reference.split("\n")[0]
    assert [sample.document for sample in samples] == [one.id for one in DOCUMENTS] * 2


def test_the_needle_is_whole_in_the_prompt():
    for name in GROUPS["niah"]:
        for sample in made(name):
            for value in sample.reference.split("\n"):
                assert re.search(
                    re.escape(NEEDLE.partition("{key}")[2]).replace(
                        re.escape("{value}"), re.escape(value)
                    ),
                    text_of(sample),
                )


@pytest.mark.parametrize("name", PARTS)
def test_in_chat_the_task_is_the_users_and_the_answer_the_models(name):
    task = tasks.parse(f"ruler(tasks={name},chat=on)")
    tokenizer = Bytes(chat=("<user>", "</><model>"))
    length = LENGTH.get(name, 4096)
    for sample in task.samples(DOCUMENTS[:2], tokenizer, length, 256, 0):
        text = text_of(sample)
        assert len(sample.prompt) + sample.max_new_tokens == length
        assert text.startswith("<user>") and text.count("<user>") == text.count("</><model>") == 1
        asked, _, answer = text.partition("</><model>")
        assert asked.endswith("?") and re.match(" (In the text|Answer:)", answer)


def test_chat_needs_a_template():
    with pytest.raises(tasks.TaskError, match="no chat template; leave chat=on out"):
        tasks.parse("ruler(tasks=vt,chat=on)").samples(DOCUMENTS, Bytes(), 4096, 256, 0)
