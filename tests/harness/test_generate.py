"""Greedy continuation: alone, together, after a shared beginning, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import patches
from harness.continued import Faults
from harness.engine import Engine
from harness.errors import HarnessError, NonFinite
from harness.generate import Prompt, generate
from patches.apply import apply
from tests.harness.conftest import make_model

TOKENS = [(7 * index * index + 3 * index) % 256 for index in range(120)]
OTHERS = [(5 * index * index + 11 * index) % 256 for index in range(120)]
CPU = torch.device("cpu")
SPECS = ["none", "ntk", "logn", "rerope(window=16)+logn", "streaming(window=24)", "self-extend"]
MAPS = [
    "leaky-rerope(window=9)",
    "dca",
    "string",
    "lm-infinite(window=24)",
    "window(size=11)+sinks",
    "yarn+rerope(window=16)",
    "dca+window(size=50)+sinks+infoscale",
]


@contextmanager
def patched(spec: str, chunk: int | None = None) -> Iterator[Engine]:
    model = make_model()
    with apply(model, patches.parse(spec), 160):
        yield Engine(model, chunk, CPU)


def made(engine: Engine, prompts: Sequence[Any], **options: Any) -> list[list[int]]:
    given = [one if isinstance(one, Prompt) else Prompt(*one) for one in prompts]
    return list(generate(engine, given, **options))


@contextmanager
def reading(engine: Engine) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the inputs of every forward, but those that find out what the model can do."""
    assert engine.faults == Faults() and engine.reads_together
    seen: list[tuple[int, ...]] = []
    handle = engine.model.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    yield seen
    handle.remove()


@pytest.mark.parametrize("chunk", [None, 16])
def test_one_prompt_is_continued_as_transformers_does(chunk: int | None) -> None:
    model = make_model()
    prompt = torch.tensor([TOKENS[:50]])
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
    )[0, 50:].tolist()
    assert made(Engine(model, chunk, CPU), [(TOKENS[:50], 20)]) == [expected]


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("spec", SPECS + MAPS)
def test_rows_of_unequal_length_are_continued_together_as_alone(
    spec: str, chunk: int | None
) -> None:
    prompts = [
        (TOKENS[:70], 12),
        (OTHERS[:33], 20),
        (TOKENS[5:6], 9),
        (OTHERS[:120], 12),
        (TOKENS, 20),
    ]
    with patched(spec, chunk) as engine:
        alone = [made(engine, [prompt])[0] for prompt in prompts]
        for batch in (2, 3, 5, 9):
            assert made(engine, prompts, batch=batch) == alone
    assert [len(tokens) for tokens in alone] == [12, 20, 9, 12, 20]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_shared_beginning_is_read_once(spec: str, batch: int) -> None:
    document = TOKENS[:100]
    prompts = [([*document, *OTHERS[place : place + 9 + place]], 6) for place in range(4)]
    with patched(spec) as engine:
        alone = [made(engine, [prompt])[0] for prompt in prompts]
        with reading(engine) as seen:
            assert made(engine, prompts, batch=batch) == alone
    reads = [length for rows, length in seen if length > 1]
    assert reads == [109, 10, 11, 12]


def test_the_same_prompt_again_reads_its_last_token_alone() -> None:
    engine = Engine(make_model(), None, CPU)
    with reading(engine) as seen:
        first, second = made(engine, [(TOKENS, 5), (TOKENS, 5)])
    assert first == second and seen == [(1, 120), *[(1, 1)] * 4, (1, 1), *[(1, 1)] * 4]


def test_a_short_shared_beginning_is_read_again() -> None:
    engine = Engine(make_model(), None, CPU)
    with reading(engine) as seen:
        made(engine, [(TOKENS, 2), ([*TOKENS[:40], *OTHERS[:60]], 2)])
    assert [length for _, length in seen if length > 1] == [120, 100]


def test_a_beginning_longer_than_the_prompt_before_is_read_on() -> None:
    engine = Engine(make_model(), None, CPU)
    longer = made(engine, [(TOKENS, 8)])
    with reading(engine) as seen:
        assert made(engine, [(TOKENS[:90], 8), (TOKENS, 8)])[1:] == longer
    assert [length for _, length in seen if length > 1] == [90, 30]


def test_the_end_of_sequence_ends_a_row_that_may_end_and_is_no_answer() -> None:
    model = make_model()
    plain = Engine(model, None, CPU)
    (free,) = made(plain, [(TOKENS, 12)])
    end = free[5]
    first = free.index(end)
    engine = Engine(model, None, CPU)
    engine.end_ids = frozenset([end])
    may = Prompt(TOKENS, 12, lambda tokens: False)
    for batch in (1, 3):
        answers = made(engine, [may, (TOKENS, 12), (OTHERS, 12)], batch=batch)
        assert answers[0] == free[:first] and answers[1] == free and len(answers[2]) == 12


@pytest.mark.parametrize("least", [0, 1, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_ends_of_a_prompt_and_its_fewest_tokens_are_those_of_transformers(
    least: int, batch: int
) -> None:
    model = make_model()
    plain = Engine(model, None, CPU)
    first, *others = made(plain, [(TOKENS, 1)])[0], *made(plain, [(OTHERS[:60], 12)])
    own, end = first[0], others[0][7]
    expected = []
    for tokens in (TOKENS, OTHERS[:60], TOKENS[:70]):
        prompt = torch.tensor([tokens])
        (whole,) = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            min_length=len(tokens) + least,
            eos_token_id=[own, end],
            pad_token_id=own,
            do_sample=False,
        ).tolist()
        new = whole[len(tokens) :]
        expected.append(new[:-1] if new[-1] in (own, end) else new)
    engine = Engine(model, None, CPU)
    engine.end_ids = frozenset([own, 10**6])
    prompts = [
        Prompt(tokens, 12, lambda made: False, (), (end,), least)
        for tokens in (TOKENS, OTHERS[:60], TOKENS[:70])
    ]
    assert made(engine, prompts, batch=batch) == expected
    assert (expected[0] == []) == (least == 0) and len(expected[1]) < 12


def test_the_models_own_end_is_known() -> None:
    model = make_model()
    assert Engine(model, None, CPU).end_ids == frozenset()
    model.generation_config.eos_token_id = 7
    assert Engine(model, None, CPU).end_ids == {7}
    model.generation_config.eos_token_id = [7, 9]
    assert Engine(model, None, CPU).end_ids == {7, 9}


def test_an_answer_that_is_enough_ends_with_the_token_that_made_it_so() -> None:
    engine = Engine(make_model(), None, CPU)
    (free,) = made(engine, [(TOKENS, 12)])
    with reading(engine) as seen:
        (ended,) = made(engine, [Prompt(TOKENS, 12, lambda tokens: len(tokens) >= 4)])
    assert ended == free[:4] and len(seen) == 4


def test_with_keep_the_newest_tokens_are_read_behind_bos() -> None:
    engine = Engine(make_model(), None, CPU)
    assert made(engine, [(TOKENS, 10)], keep=40) == made(engine, [(TOKENS[-30:], 10)])
    engine = Engine(make_model(), None, CPU, bos_id=TOKENS[0])
    short = [TOKENS[0], *TOKENS[-11:]]
    assert made(engine, [(TOKENS, 4)], keep=16) == made(engine, [(short, 4)])


def test_cutting_the_middle_reads_both_ends() -> None:
    both = {"keep": 40, "cuts_middle": True}
    engine = Engine(make_model(), None, CPU)
    assert made(engine, [(TOKENS, 10)], **both) == made(
        engine, [([*TOKENS[:15], *TOKENS[-15:]], 10)]
    )
    assert made(engine, [(TOKENS, 9)], **both) == made(engine, [([*TOKENS[:15], *TOKENS[-16:]], 9)])
    assert made(engine, [(TOKENS[:30], 10)], **both) == made(engine, [(TOKENS[:30], 10)])
    engine = Engine(make_model(), None, CPU, bos_id=TOKENS[0])
    short = [*TOKENS[:6], *TOKENS[-6:]]  # BOS, and 5 and 6 of the others
    assert made(engine, [(TOKENS, 4)], keep=16, cuts_middle=True) == made(engine, [(short, 4)])


def test_a_window_without_a_prompt_is_refused() -> None:
    with pytest.raises(HarnessError, match="no prompt in a window of 10"):
        made(Engine(make_model(), None, CPU), [(TOKENS, 10)], keep=10)


def test_nan_names_the_first_bad_position() -> None:
    model = make_model()
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(NonFinite, match="generated position 120"):
        made(Engine(model, None, CPU), [(TOKENS, 4)])


def test_padding_is_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that was something else before."""
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda one, *shape: one.new_full(shape, float("nan"))
    )
    engine = Engine(make_model(), None, CPU)
    prompts = [(TOKENS, 6), (OTHERS[:9], 6)]
    assert made(engine, prompts, batch=2) == [made(engine, [one])[0] for one in prompts]


def test_a_step_of_rows_of_equal_length_needs_no_mask() -> None:
    engine = Engine(make_model(), None, CPU)
    assert engine.reads_together  # measured once, before masks are looked for
    masks: list[bool] = []
    engine.model.register_forward_pre_hook(
        lambda _, __, kwargs: masks.append("attention_mask" in kwargs), with_kwargs=True
    )
    made(engine, [(TOKENS, 3), (OTHERS, 3)], batch=2)
    assert not any(masks)
    made(engine, [(TOKENS, 3), (OTHERS[:50], 3)], batch=2)
    assert any(masks)
