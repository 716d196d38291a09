"""What a sample asks of the generation, and what of it is the answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import measure
from harness.cli import main
from harness.journal import read_journal
from harness.measure import _prompt
from harness.tokenizer import TextTokenizer
from tasks.base import Sample
from tests.harness.conftest import command, make_tokenizer
from tests.tasks.toy import Bytes

ASKED = Sample("a", "a", (), (1, 2, 3), 9, until=("\n",), ends=(10, 13), min_new_tokens=2)


def test_a_sample_that_may_end_says_how() -> None:
    prompt = _prompt(ASKED, Bytes())
    assert (prompt.tokens, prompt.max_new_tokens) == ((1, 2, 3), 9)
    assert (prompt.ends, prompt.min_new_tokens) == ((10, 13), 2)
    assert prompt.ended is not None
    assert prompt.ended([65, 10]) and not prompt.ended([65, 66])


def test_a_sample_that_never_ends_says_nothing_of_ends() -> None:
    prompt = _prompt(Sample("a", "a", (), (1, 2, 3), 9), Bytes())
    assert prompt.ended is None and prompt.ends == () and prompt.min_new_tokens == 0


def test_special_tokens_are_no_part_of_an_answer(
    monkeypatch: pytest.MonkeyPatch, own_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.save_pretrained(own_checkpoint)
    answer = tokenizer("<s>12<s>345<s>").input_ids
    monkeypatch.setattr(measure, "generate", lambda engine, asked, *more: iter([answer]))
    one = ["--task", "needle(depth=0)", "--n", "1", "--len", "500", "--patch", "none"]
    assert main(command(own_checkpoint, data, tmp_path / "out", *one)) == 0
    (record,) = read_journal(tmp_path / "out")
    assert record.samples[0]["text"] == "12345"
    assert TextTokenizer(tokenizer).decode(answer, special=True) == "<s>12<s>345<s>"
