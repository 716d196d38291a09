"""LongBench v2's reading of answers, by hand and on the official code's values where they are."""

import pytest

from tasks.official.longbench_v2 import extract_answer
from tests.tasks.official.vectors import needs_vectors, vectors


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The correct answer is (B)", "B"),
        ("I think. The correct answer is C.", "C"),
        ("**The correct answer is (D)**", "D"),
        ("The *correct* answer is C", "C"),
        ("The correct answer is B. The correct answer is (C)", "C"),
        ("The correct answer is (A) or (B)", "A"),
        ("The correct answer is Apple", "A"),
        ("the correct answer is (A)", None),
        ("The correct answer is  (A)", None),
        ("The correct answer is\n(A)", None),
        ("The correct answer is （A）", None),  # full-width parentheses
        ("The correct answer is (E)", None),
        ("(A)", None),
        ("", None),
    ],
)
def test_the_letter_of_a_response(response, letter):
    assert extract_answer(response) == letter


@needs_vectors
def test_every_official_vector_is_reproduced():
    rows = list(vectors("longbench_v2_extract"))
    assert len(rows) == 107
    for row in rows:
        letter = extract_answer(row["response"])
        assert letter == row["pred"], row["id"]
        assert (letter == row["answer"]) == row["judge"], row["id"]
