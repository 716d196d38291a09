"""Stories of people and places: what the last move says, worked out again from the prompt."""

from __future__ import annotations

import re

import pytest

import tasks
from tasks.base import Document
from tasks.facts import PLACES
from tests.tasks.toy import Bytes, played

TEXT = "The cat sat here. A dog ran by! Was it late? " * 100
DOCUMENTS = [Document(f"sample {index}", TEXT) for index in range(30)]


def made(spec: str, seed: int = 0):
    task = tasks.parse(spec)
    return task, task.samples(DOCUMENTS, Bytes(), 2500, 256, seed)


def told(sample) -> tuple[dict[str, str], dict[str, str], str]:
    """Where everyone is, who has what, and who or what is asked for, as the prompt has it."""
    text = Bytes().decode(sample.prompt)
    where, has = {}, {}
    for person, place, taker, thing in re.findall(
        r"(\w+) went to the (\w+)\.|(\w+) picked up the (\w+)\.", text
    ):
        if person:
            assert where.get(person) != place
            where[person] = place
        else:
            has[thing] = taker
    return where, has, re.search(r"where is (?:the )?(\w+) now\? Answer: in the$", text)[1]


def test_the_answer_is_where_the_person_went_last():
    for sample in made("facts")[1]:
        where, has, asked = told(sample)
        assert where[asked] == sample.reference and not has
        assert Bytes().decode(sample.prompt).count(f" {asked} went to the ") >= 2


def test_a_thing_is_where_the_one_who_has_it_went_last():
    carried = 0
    for sample in made("facts(hops=2)")[1]:
        where, has, asked = told(sample)
        assert where[has[asked]] == sample.reference
        text = Bytes().decode(sample.prompt)
        after = text.partition(f"picked up the {asked}.")[2]
        assert f"{has[asked]} went to the {sample.reference}." in after
        carried += after.count(f"{has[asked]} went to") > 1
    assert 3 < carried < 27


@pytest.mark.parametrize(("spec", "moves"), [("facts", 6), ("facts(facts=12)", 12)])
def test_there_are_as_many_moves_as_asked_for(spec, moves):
    for sample in made(spec)[1]:
        assert Bytes().decode(sample.prompt).count(" went to the ") == moves


def test_the_last_move_is_not_always_that_of_the_person():
    last = 0
    for sample in made("facts")[1]:
        text = Bytes().decode(sample.prompt)
        last += re.findall(r"(\w+) went to", text)[-1] == told(sample)[2]
    assert 3 < last < 27


def test_the_right_place_alone_counts():
    task, (sample, *_) = made("facts")
    right = sample.reference
    wrong = next(place for place in PLACES if place != right)
    answers = {f" {right}.": 1, right.upper(): 1, f"{right}, {wrong}": 0, wrong: 0, "": 0}
    for answer, value in answers.items():
        (score,) = task.score(sample, played(sample, lambda _: 0.0, True, answer=answer))
        assert score.stats == (value, 1.0)


@pytest.mark.parametrize("spec", ["facts(hops=3)", "facts(facts=1)", "facts(facts=31)"])
def test_other_stories_are_refused(spec):
    with pytest.raises(tasks.TaskError, match="expected"):
        tasks.parse(spec)
