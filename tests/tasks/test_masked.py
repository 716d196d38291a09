import re

import pytest

import tasks
from tasks import TaskError
from tasks.base import Document
from tests.tasks.toy import Bytes, Words, played, story

DOCUMENTS = [story(name, 900) for name in ("first", "second")]
BERT = Bytes(bos_id=256, end_id=257)


def samples(spec: str = "masked", length: int = 256, tokenizer=BERT, seed: int = 0, trained=128):
    return tasks.parse(spec).samples(DOCUMENTS, tokenizer, length, trained, seed)


def from_the_end(sample) -> list[tuple[int, int]]:
    """Each hidden token with its distance to the end."""
    (one,) = sample.passes
    return [(place - len(one.tokens), one.tokens[place]) for place in one.hidden]


def test_the_same_tokens_are_hidden_at_every_length() -> None:
    for short, long in zip(samples(length=128), samples(length=1000), strict=True):
        assert from_the_end(short) == from_the_end(long)
        assert short.id == long.id
        assert short.passes[0].tokens[1:-1] == long.passes[0].tokens[-127:-1]
        assert (short.tokens, long.tokens) == (128, 1000)


def test_a_share_of_the_last_tokens_is_hidden_and_nothing_else() -> None:
    for spec, last, count in [
        ("masked", 64, 10),
        ("masked(last=100)", 100, 15),
        ("masked(last=40,share=0.5)", 40, 20),
        ("masked(last=2,share=0.1)", 2, 1),
        ("masked(last=9,share=1)", 9, 9),
    ]:
        for sample in samples(spec):
            (one,) = sample.passes
            assert len(one.hidden) == len(set(one.hidden)) == count
            assert list(one.hidden) == sorted(one.hidden)
            assert one.score_from == one.hidden[0]
            assert one.hidden[0] >= 256 - 1 - last and one.hidden[-1] < 256 - 1
            assert tasks.parse(spec).scored_tokens(sample) == count


def test_seeds_and_documents_hide_others() -> None:
    first, second = samples("masked(last=100)")
    other, _ = samples("masked(last=100)", seed=1)
    places = [[at for at, _ in from_the_end(one)] for one in (first, second, other)]
    assert places[0] != places[1] and places[0] != places[2]
    spread = sorted(at for seed in range(40) for at, _ in from_the_end(samples(seed=seed)[0]))
    assert set(spread) == set(range(-65, -1))  # every place is chosen at times


@pytest.mark.parametrize(
    ("tokenizer", "around"), [(BERT, (256, 257)), (Bytes(), (256,)), (Words(bos_id=None), ())]
)
def test_the_text_stands_between_what_the_tokenizer_puts_around_it(tokenizer, around) -> None:
    for sample in samples(tokenizer=tokenizer):
        (one,) = sample.passes
        assert len(one.tokens) == 256
        specials = [one.tokens[0]] * (len(around) > 0) + [one.tokens[-1]] * (len(around) > 1)
        assert tuple(specials) == around
        text = tokenizer.encode(DOCUMENTS[0].text)
        if sample.document == "first":
            inner = one.tokens[1 if around else 0 : -1 if len(around) > 1 else None]
            assert list(inner) == text[-len(inner) :]


def test_scores_count_hidden_tokens() -> None:
    task = tasks.parse("masked")
    (sample, _) = samples()
    scores = {one.metric: one.stats for one in task.score(sample, played(sample, float, True))}
    hidden = [sample.passes[0].tokens[place] for place in sample.passes[0].hidden]
    assert scores == {"accuracy": (10.0, 10.0), "nll": (float(sum(hidden)), 10.0)}


def test_mistakes_are_told_in_one_line() -> None:
    for spec, length, message in [
        (
            "masked(last=127)",
            256,
            "masked(last=127): with 2 tokens around the text these are more ",
        ),
        (
            "masked",
            66,
            "--len 66: masked chooses among the last 64 tokens and needs a longer input",
        ),
        ("masked(share=0)", 256, "masked(share=0): expected"),
        ("masked(share=1.5)", 256, "masked(share=1.5): expected a number from 0 to 1"),
    ]:
        with pytest.raises(TaskError, match=f"^{re.escape(message)}") as error:
            samples(spec, length)
        assert "\n" not in str(error.value)
    with pytest.raises(TaskError, match="'thin' has 4 tokens"):
        tasks.parse("masked").samples([Document("thin", "four")], BERT, 256, 128, 0)
