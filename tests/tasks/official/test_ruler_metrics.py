"""RULER's metrics on values worked out by hand, and on the official code's where they are there."""

import pytest

from tasks.official.ruler import postprocess, string_match_all, string_match_part
from tests.tasks.official.vectors import needs_vectors, vectors


@pytest.mark.parametrize(
    ("prediction", "references", "share", "any_of"),
    [
        ("1234567 and 7654321", ["1234567", "7654321"], 1.0, 1.0),
        ("1234567", ["1234567", "7654321"], 0.5, 1.0),
        ("THE Norman king", ["the norman", "a king"], 0.5, 1.0),
        ("91234567", ["1234567"], 1.0, 1.0),
        ("", ["x", "y"], 0.0, 0.0),
    ],
)
def test_references_are_looked_for_as_substrings_without_case(
    prediction, references, share, any_of
):
    assert string_match_all(prediction, references) == share
    assert string_match_part(prediction, references) == any_of


def test_control_characters_become_newlines_and_the_ends_are_stripped():
    assert postprocess("\x00 a\tb\x1f\x0bc \n") == "a\nb\n\nc"
    assert postprocess("\x7f") == "\x7f"


@needs_vectors
def test_every_official_vector_is_reproduced():
    rows = [
        row for row in vectors("ruler_metrics") if row["kind"] != "corpus"
    ]  # a corpus lacks parts
    assert len(rows) > 100
    for row in rows:
        prediction, references = postprocess(row["prediction"]), row["references"]
        assert prediction == row["postprocessed"], row["id"]
        share = 100 * string_match_all(prediction, references)
        assert share == pytest.approx(row["string_match_all"], abs=0.005), row["id"]
        assert 100 * string_match_part(prediction, references) == row["string_match_part"]
