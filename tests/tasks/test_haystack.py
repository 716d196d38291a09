from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import pytest

from tasks import TaskError
from tasks.base import Document
from tasks.haystack import Haystack, depth_of, following, hide, sample_of
from tests.tasks.toy import Bytes

HEAD, QUESTION = "Head.", "\nQ?"
FILLER = [tuple(f" {'x' * size}.".encode()) for size in (3, 8, 5, 13, 2)]
NEEDLE = tuple(b" NEEDLE.")


@dataclass(frozen=True)
class Merging(Bytes):
    """Merges each of some pairs of letters into one token."""

    pairs: tuple[bytes, ...] = (b".\n",)

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        for number, pair in enumerate(self.pairs):
            data = data.replace(pair, bytes([240 + number]))
        return list(data)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


@dataclass(frozen=True)
class Prefixing(Bytes):
    """Puts a blank before every text, as SentencePiece tokenizers do."""

    def encode(self, text: str) -> list[int]:
        return list(f" {text}".encode())


def hidden(depth: float, room: int, padding: str = "") -> str:
    needles = [(depth, NEEDLE)]
    prompt = hide(Bytes(), HEAD, cycle(FILLER), needles, QUESTION, (room + 7, 7), padding)
    assert len(prompt) == room
    return Bytes().decode(prompt)


@pytest.mark.parametrize("padding", ["", " pad it."])
@pytest.mark.parametrize("room", range(90, 170))
def test_the_room_is_filled_to_the_token(room, padding):
    text = hidden(0.5, room, padding)
    assert text.endswith(QUESTION) and " NEEDLE." in text and HEAD in text
    front = text[: text.index(HEAD)]
    assert front == (" pad it." * 20)[160 - len(front) :] and len(front) < 15
    assert bool(padding) or not front


@pytest.mark.parametrize("room", [110, 137, 300, 1001])
@pytest.mark.parametrize("depth", [0.0, 0.1, 0.25, 0.5, 0.77, 1.0])
def test_the_needle_stands_at_the_border_nearest_to_its_depth(depth, room):
    text = hidden(depth, room, " pad it.")
    body = text[text.index(HEAD) + len(HEAD) : -len(QUESTION)]
    before, after = (len(part) for part in body.split(" NEEDLE."))
    total, borders, pieces = before + after, [0], cycle(FILLER)
    while borders[-1] < total:
        borders.append(borders[-1] + len(next(pieces)))
    assert borders[-1] == total and before in borders
    assert abs(before - depth * total) == min(abs(border - depth * total) for border in borders)


@pytest.mark.parametrize("room", range(100, 140))
def test_without_padding_the_end_of_a_piece_fills_the_rest_behind_the_head(room):
    first = hidden(0.0, room)
    rest = first[len(HEAD) : first.index(" NEEDLE.")]
    assert first == f"{HEAD}{rest} NEEDLE. xxx.{first.partition(' NEEDLE. xxx.')[2]}"
    assert not rest or any(bytes(piece).decode().endswith(rest) for piece in FILLER)
    last = hidden(1.0, room)
    assert last.endswith(f"x. NEEDLE.{QUESTION}") and last.startswith(f"{HEAD}{rest} xxx.")


def test_needles_of_one_place_keep_their_order():
    needles = [(0.5, tuple(b"<1>")), (0.0, tuple(b"<0>")), (0.5, tuple(b"<2>"))]
    prompt = hide(Bytes(bos_id=None), HEAD, cycle(FILLER), needles, QUESTION, (160, 10), " p")
    text = Bytes().decode(prompt)
    assert f"{HEAD}<0> xxx." in text and "<1><2>" in text and len(text) == 150


@pytest.mark.parametrize("room", [1, 16, 30, 44])
def test_too_little_room_is_refused(room):
    with pytest.raises(TaskError, match=r"--len \d+: \d pieces of filler.*raise --len"):
        hide(Bytes(), HEAD, cycle(FILLER), [(0.0, NEEDLE)], QUESTION, (room, 0))


@pytest.mark.parametrize(
    "tokenizer",
    [
        Bytes(),
        Prefixing(),
        Merging(),
        Merging(pairs=(b".\n", b"a\n")),
        Merging(pairs=(b".\n", b"a\n", b"1\n")),
    ],
)
def test_following_leaves_out_what_a_tokenizer_puts_before_a_text(tokenizer):
    assert following(tokenizer, " more") == tuple(b" more")
    assert following(tokenizer, "\nmore") == tuple(b"\nmore")


def read(text: str, share: float, count: int, tokenizer=None) -> list[str]:
    pieces = islice(Haystack(text, tokenizer or Bytes()).read(share), count)
    return [bytes(one).decode(errors="replace") for one in pieces]


def test_sentences_keep_all_words_and_begin_again():
    text = 'One is 3.5 here. "Two!" Three?\n\nFour without end\n\n“Five (all.)” Six'
    whole = [
        " One is 3.5 here.",
        ' "Two!"',
        " Three?",
        " Four without end",
        " “Five (all.)”",
        " Six",
    ]
    assert read(text, 0, 8) == [*whole, *whole[:2]]
    assert read(text + " " * 50_000, 0.4, 3) == whole[3:]


def test_chinese_sentences_end_without_a_blank():
    assert read("今天很好。我们去公园！“好吗？”好", 0, 4) == [
        " 今天很好。",
        " 我们去公园！",
        " “好吗？”",
        " 好",
    ]


def test_text_without_ends_is_cut_into_short_pieces():
    found = read("alpha beta " * 100, 0, 17)
    assert "".join(found) == (" " + "alpha beta " * 100)[: 17 * 64]
    assert {len(one) for one in found} == {64}


def test_the_same_share_is_the_same_sentence_whatever_is_read():
    text = " ".join(f"This is sentence {number}." for number in range(1000))
    haystack = Haystack(text, Bytes())
    for share in (0.9, 0.001, 0.5):
        (first,) = islice(haystack.read(share), 1)
        assert bytes(first).decode() == read(text, share, 1)[0]
    assert read(text, 0.999999, 2) == [" This is sentence 0.", " This is sentence 1."]


def test_no_text_is_refused():
    with pytest.raises(TaskError, match="no text"):
        Haystack("  \n", Bytes())


def test_depths_take_turns_both_ends_first():
    assert [depth_of(index, None, 5) for index in range(6)] == [0, 1, 0.5, 0.25, 0.75, 0]
    assert [depth_of(index, None, 1) for index in range(2)] == [0, 0]
    assert sorted(depth_of(index, None, 9) for index in range(9)) == [n / 8 for n in range(9)]
    assert depth_of(3, 0.2, 5) == 0.2


def test_positions_have_no_needless_digits():
    document = Document("one", "")
    depths = (0, 0.25, 1.0, 1e-5)
    positions = [sample_of(document, depth, (3,), (9, 3), 1, "").position for depth in depths]
    assert positions == [
        "depth 0",
        "depth 0.25",
        "depth 1",
        "depth 0.00001",
    ]


def test_the_depth_of_a_needle_is_where_it_really_stands():
    prompt = (1, 2**40, 256, 1, 2, 7, 5)
    for needle, place in (((1, 2), 3), ((7, 5), 5), ((2**40,), 1), ((1,), 0)):
        sample = sample_of(Document("one", ""), 0.5, needle, prompt, 3, "")
        assert sample.depth == round(place / 7, 6) and sample.tokens == 10
    # 1 and 256 as bytes: 256 shifted by one byte looks like 1
    assert sample_of(Document("one", ""), 0.5, (1, 2), (256, 512, 1, 2), 3, "").depth == 0.5
