"""What the tasks hide, and how their answers are scored."""

from __future__ import annotations

import json
import re

import pytest

import tasks
from tasks.base import Document
from tests.tasks.toy import Bytes, played

TEXT = "The cat sat. A dog ran by! Was it late? " * 40
MANY = [Document(f"sample {index}", TEXT) for index in range(10)]


def made(spec: str, length: int = 1500, seed: int = 0):
    task = tasks.parse(spec)
    return task, task.samples(MANY, Bytes(), length, 256, seed)


def share(task, sample, answer: str) -> float:
    scores = task.score(sample, played(sample, lambda _: 0.0, True, answer=answer))
    assert len({score.stats for score in scores}) == 1
    return scores[0].stats[0]


@pytest.mark.parametrize("spec", ["passkey", "needle", "kv", "lines"])
def test_depths_take_turns_and_are_scored_apart_and_together(spec):
    task, samples = made(spec, 3000)
    positions = [[s.position for s in task.score(x, played(x, lambda _: 0, True))] for x in samples]
    depths = ["depth 0", "depth 1", "depth 0.5", "depth 0.25", "depth 0.75"]
    assert positions == [["", depth] for depth in depths * 2]


@pytest.mark.parametrize("spec", ["passkey", "needle", "kv", "lines"])
@pytest.mark.parametrize("depth", [0, 0.25, 0.5, 0.9, 1])
def test_the_answer_stands_at_its_depth_of_the_characters(spec, depth):
    _, samples = made(f"{spec}(depth={depth})", 6000)
    for sample in samples:
        text = Bytes().decode(sample.prompt)
        assert abs(text.index(sample.reference) / len(text) - depth) < 0.06
        before = {"passkey": " The pass key is ", "kv": '\n "', "lines": "\nline "}.get(
            spec, " The "
        )
        start = text[: text.index(sample.reference)].rindex(before)
        assert sample.depth == pytest.approx((start + 1) / len(sample.prompt), abs=1e-6)  # BOS
        assert sample.tokens == 6000


@pytest.mark.parametrize("spec", ["passkey", "needle", "kv", "lines", "facts"])
def test_an_answer_ends_where_the_model_ends_it(spec):
    _, samples = made(spec, 3000)
    assert {sample.until for sample in samples} == {()}


def test_the_first_integer_must_equal_the_pass_key():
    task, (sample, *_) = made("passkey")
    key = sample.reference
    assert [share(task, sample, text) for text in (key, f" {key}. Keep", f"00{key}")] == [1, 1, 1]
    wrong = (key[:-1], f"{key}1", f"9 {key}", "none", "")
    assert [share(task, sample, text) for text in wrong] == [0] * 5


def test_the_answer_has_ten_tokens_or_as_many_as_the_key_needs():
    lengths = [made(f"passkey(digits={digits})")[1][0].max_new_tokens for digits in (3, 5, 8, 15)]
    assert lengths == [10, 10, 11, 18]  # bytes: a blank, the digits, a full stop, and one more


def test_the_pass_key_stands_twice_and_the_question_last():
    _, samples = made("passkey(digits=6)")
    for sample in samples:
        text = Bytes().decode(sample.prompt)
        assert text.count(sample.reference) == 2 and len(sample.reference) == 6
        assert text.endswith("The pass key is")


def hidden(sample) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(
        r" The (\w+ \w+) number is (\d+)\.", Bytes().decode(sample.prompt)
    ):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("spec", "keys", "values", "asked"),
    [
        ("needle", 1, 1, 1),
        ("needle(keys=4)", 4, 1, 1),
        ("needle(values=4)", 1, 4, 4),
        ("needle(queries=4)", 4, 1, 4),
        ("needle(keys=6,values=2,queries=2)", 6, 2, 4),
    ],
)
def test_needles_keys_and_values_are_as_asked(spec, keys, values, asked):
    _, samples = made(spec, 3000)
    for sample in samples:
        found = hidden(sample)
        assert len(found) == keys and all(len(its) == values for its in found.values())
        question = Bytes().decode(sample.prompt).rpartition("\n\n")[2]
        wanted = [value for key, its in found.items() if key in question for value in its]
        assert sorted(wanted) == sorted(sample.reference.split()) and len(wanted) == asked


def test_the_share_of_found_values_counts():
    task, (sample, *_) = made("needle(values=4)", 3000)
    values = sample.reference.split()
    assert share(task, sample, " and ".join(reversed(values))) == 1
    assert share(task, sample, f" {values[0]}, {values[2]}, 1") == 0.5
    assert share(task, sample, f"1{values[0]} {values[1]}2") == 0


def test_all_values_of_a_sample_differ():
    _, samples = made("needle(keys=2,values=4,digits=2)", 3000)
    for sample in samples:
        values = [value for its in hidden(sample).values() for value in its]
        assert len(values) == len(set(values)) == 8


def test_only_the_first_needle_stands_at_the_depth():
    _, samples = made("needle(keys=4,depth=0.5)", 6000)
    places = []
    for sample in samples:
        text = Bytes().decode(sample.prompt)
        assert abs(text.index(sample.reference) / len(text) - 0.5) < 0.06
        places += [match.start() / len(text) for match in re.finditer(r" number is \d", text)]
    assert sum(place < 0.4 for place in places) > 5 and sum(place > 0.6 for place in places) > 5


def test_samples_begin_at_sentences_of_their_own():
    _, samples = made("needle", 900)
    starts = [Bytes().decode(s.prompt).partition("at the end.")[2][:12] for s in samples]
    assert len(set(starts)) > 2  # of three sentences over and over


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("needle(keys=2,queries=3)", "at least as many keys"),
        ("needle(keys=100)", "at most"),
        ("needle(depth=2)", "from 0 to 1"),
        ("needle(digits=1,values=5)", "different numbers"),
        ("needle(digits=19)", "at most 18"),
        ("passkey(digits=5k)", "at most 18"),
        ("kv(depth=0.1234567)", "at most 6 decimals"),
        ("passkey(depth=-1)", "from 0 to 1"),
        ("passkey(depth=deep)", "from 0 to 1"),
    ],
)
def test_impossible_needles_are_refused(spec, message):
    with pytest.raises(tasks.TaskError, match=message):
        made(spec, 3000)


def test_the_spec_of_a_depth_is_canonical():
    assert tasks.parse("passkey(depth=0.50)").spec == "passkey(depth=0.5)"
    assert tasks.parse("kv(depth=0.00001)").spec == "kv(depth=0.00001)"
    assert tasks.parse("passkey(depth=.25,digits=5)").spec == "passkey(depth=0.25,digits=5)"


def test_the_pairs_are_a_json_object_that_holds_the_answer():
    _, samples = made("kv", 4000)
    for sample in samples:
        text = Bytes().decode(sample.prompt)
        pairs = json.loads(text[text.index("{") : text.index("}") + 1])
        key = re.search(r'Key: "([^"]+)"', text)
        assert key is not None and pairs[key[1]] == sample.reference and len(pairs) > 30
        assert text.endswith('Its value: "')


def test_lines_have_labels_of_their_own():
    _, samples = made("lines", 6000)
    for sample in samples:
        text = Bytes().decode(sample.prompt)
        lines = dict(re.findall(r"\nline (\S+): its number is (\d{5})\.", text))
        assert len(lines) == text.count("\nline ") > 100
        assert lines[re.search(r"does line (\S+) hold", text)[1]] == sample.reference
