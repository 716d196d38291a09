from __future__ import annotations

from dataclasses import dataclass

import pytest

from tasks import TaskError
from tasks.haystack import depth_of, following, hide, ring, sentences
from tests.tasks.toy import Bytes

HEAD, QUESTION = "Head.", "\nQ?"
FILLER = [tuple(f" {'x' * size}.".encode()) for size in (3, 8, 5, 13, 2)]
NEEDLE = tuple(b" NEEDLE.")


@dataclass(frozen=True)
class Prefixing(Bytes):
    """Puts a blank before every text, as SentencePiece tokenizers do."""

    def encode(self, text: str) -> list[int]:
        return list(f" {text}".encode())


def hidden(depth: float, room: int, cut: bool = True) -> str:
    prompt = hide(Bytes(), HEAD, ring(FILLER, 0), [(depth, NEEDLE)], QUESTION, room + 7, 7, cut)
    assert len(prompt) == room if cut else len(prompt) <= room
    return Bytes().decode(prompt)


@pytest.mark.parametrize("room", range(60, 140))
def test_the_room_is_filled_to_the_token(room):
    text = hidden(0.5, room)
    assert text.startswith(HEAD) and text.endswith(QUESTION) and " NEEDLE." in text


@pytest.mark.parametrize("room", [80, 137, 300, 1001])
@pytest.mark.parametrize("depth", [0.0, 0.1, 0.25, 0.5, 0.77, 1.0])
def test_the_needle_stands_at_the_border_nearest_to_its_depth(depth, room):
    text = hidden(depth, room)
    before, after = (len(part) for part in text[5:-3].split(" NEEDLE."))
    total, borders, place = before + after, [0], 0
    while borders[-1] < total:
        borders.append(min(total, borders[-1] + len(FILLER[place % 5])))
        place += 1
    assert before in borders
    assert abs(before - depth * total) == min(abs(border - depth * total) for border in borders)


def test_depth_0_is_behind_the_head_and_depth_1_before_the_question():
    assert hidden(0.0, 200).startswith("Head. NEEDLE. xxx.")
    assert hidden(1.0, 200).endswith(" NEEDLE.\nQ?")


def test_needles_of_one_place_keep_their_order():
    needles = [(0.5, tuple(b"<1>")), (0.0, tuple(b"<0>")), (0.5, tuple(b"<2>"))]
    prompt = hide(Bytes(bos_id=None), HEAD, ring(FILLER, 2), needles, QUESTION, 160, 10)
    text = Bytes().decode(prompt)
    assert text.startswith("Head.<0> xxxxx.") and "<1><2>" in text


def test_without_cutting_the_last_piece_is_whole():
    for room in range(80, 140):
        text = hidden(1.0, room, cut=False)
        assert text.replace(" NEEDLE.", "").removesuffix(QUESTION).endswith("x.")


@pytest.mark.parametrize("room", [1, 16, 17, 18])
def test_too_little_room_is_refused(room):
    with pytest.raises(TaskError, match=r"--len \d+: no room.*raise --len"):
        hide(Bytes(), HEAD, ring(FILLER, 0), [(0.0, NEEDLE)], QUESTION, room, 0, cut=False)


def test_following_leaves_out_what_a_tokenizer_puts_before_a_text():
    assert following(Prefixing(), " more") == tuple(b" more")
    assert following(Bytes(), "\nmore") == tuple(b"\nmore")


def test_sentences_keep_all_words_and_stop_when_there_are_enough():
    text = 'One is 3.5 here. "Two!" Three?\n\nFour without end\n\nFive (that is all.) Six'
    found = [bytes(one).decode() for one in sentences(text, Bytes(), 10_000)]
    assert found == [
        " One is 3.5 here.",
        ' "Two!"',
        " Three?",
        " Four without end",
        " Five (that is all.)",
        " Six",
    ]
    assert [bytes(one).decode() for one in sentences(text, Bytes(), 20)] == found[:2]


def test_no_text_is_refused():
    with pytest.raises(TaskError, match="no text"):
        sentences("  \n", Bytes(), 10)


def test_depths_take_turns_from_0_to_1():
    assert [depth_of(index, None, 5) for index in range(6)] == [0, 0.25, 0.5, 0.75, 1, 0]
    assert [depth_of(index, None, 1) for index in range(2)] == [0, 0]
    assert depth_of(3, 0.2, 5) == 0.2
