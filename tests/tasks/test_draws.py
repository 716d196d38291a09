from __future__ import annotations

import hashlib
from collections import Counter

from tasks.draws import Draws


def test_draws_are_the_start_of_the_digest_whatever_machine():
    digest = hashlib.sha256(repr((3, "needle", 5)).encode() + (1).to_bytes(8, "big")).digest()
    assert Draws(3, "needle", 5).below(1000) == int.from_bytes(digest[:8], "big") * 1000 // 2**64
    draws = Draws(0, "passkey", 0)
    assert [draws.below(100) for _ in range(8)] == [87, 92, 42, 88, 32, 92, 8, 80]


def test_streams_of_other_parts_differ_and_the_same_parts_repeat():
    def stream(*parts):
        draws = Draws(*parts)
        return [draws.below(1 << 30) for _ in range(4)]

    assert stream(0, "a", 1) == stream(0, "a", 1)
    assert (
        len(
            {
                tuple(stream(*parts))
                for parts in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2)]
            }
        )
        == 4
    )


def test_below_is_even():
    draws = Draws("even")
    counts = Counter(draws.below(7) for _ in range(7000))
    assert set(counts) == set(range(7))
    assert all(850 < count < 1150 for count in counts.values())


def test_pick_takes_different_items_in_every_order():
    draws = Draws("pick")
    orders = Counter(tuple(draws.pick("abc", 2)) for _ in range(600))
    assert len(orders) == 6 and all(len(set(order)) == 2 for order in orders)
    assert all(60 < count < 140 for count in orders.values())
    items = [1, 2, 3]
    assert sorted(draws.pick(items, 3)) == items == [1, 2, 3]


def test_different_numbers_differ_even_where_few_are_left():
    assert sorted(Draws("few").different(1, 9)) == list("123456789")


def test_digits_and_uuids_have_their_form():
    draws = Draws("form")
    assert all(len(text) == 3 and text[0] != "0" for text in (draws.digits(3) for _ in range(300)))
    ids = [draws.uuid() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all([len(part) for part in one.split("-")] == [8, 4, 4, 4, 12] for one in ids)
