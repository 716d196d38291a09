"""What a sample asks of the generation."""

from __future__ import annotations

from harness.measure import _prompt
from tasks.base import Sample
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
