"""Which fused calls cover the pairs of a band: rectangles, triangles and windows, as indices."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from patches.region import Region

__all__ = ["Call", "calls"]

MAX_BLOCKS = 4096  # folded into one call; CUDA grids end at 65,535
MANY = 768  # queries of a call from which on the CPU works in its largest tiles


@dataclass(frozen=True)
class Call:
    """One fused call over `count` consecutive blocks of one shape, in absolute positions.

    Block m has queries [q_start + m * step, + q_len) and keys [k_start + m * step, + k_len).

    Attributes:
        kind: what query r sees: "full" all keys, "causal" keys 0..r, "reverse" keys r.., "window"
            of keys r.. as many as leave the last query the last key.
    """

    kind: str
    q_start: int
    q_len: int
    k_start: int
    k_len: int
    count: int = 1
    step: int = 0


def cuts(region: Region, q_start: int, q_stop: int, keys: tuple[int, int]) -> list[int]:
    """Query positions between which each bound of the interval is constant or moves by one."""
    size = region.chunk_size
    chunks = range(q_start - q_start % size, q_stop, size)[1:] if size else ()
    edges = [q_start, *chunks, q_stop]
    low, high = region.distance
    points = set(edges)
    for edge in edges[:-1]:
        start, stop = clip(region.constant_bounds(edge), keys)
        points |= {start + low, stop + low}
        if high is not None:
            points |= {start + high - 1, stop + high - 1}
    return sorted(point for point in points if q_start <= point <= q_stop)


def clip(interval: tuple[int, int], keys: tuple[int, int]) -> tuple[int, int]:
    """Intersect an interval of keys with the keys at hand."""
    return max(interval[0], keys[0]), min(interval[1], keys[1])


def calls(
    region: Region, q_start: int, q_stop: int, k_start: int, k_stop: int, widest: int = 0
) -> Iterator[Call]:
    """Cover the region's pairs of queries [q_start, q_stop) and keys [k_start, k_stop) once.

    Windows that move along with at most `widest` keys are one call.
    """
    keys = (k_start, k_stop)
    points, alike = cuts(region, q_start, q_stop, keys), list[Call]()
    for first, stop in pairwise(points):
        start_a, stop_a = clip(region.interval(first), keys)
        start_b, stop_b = clip(region.interval(stop - 1), keys)
        if start_a >= stop_a or start_b >= stop_b:
            continue
        start_moves, stop_moves = start_b > start_a, stop_b > stop_a
        width = stop_a - start_a
        if not (start_moves or stop_moves):
            own = Call("full", first, stop - first, start_a, width)
            if alike and not goes_with(own, alike):
                yield from together(alike)
                alike = []
            alike.append(own)
        elif start_moves and stop_moves and width <= widest:
            yield Call("window", first, stop - first, start_a, stop_b - start_a)
        elif start_moves and stop_moves and stop - first > width:
            most = width * MAX_BLOCKS
            for done in range(0, stop - first, most):
                rows = min(stop - first - done, most)
                yield from blocks_of(first + done, rows, start_a + done, stop_a + done)
        else:
            yield from piece(first, stop - first, start_a, stop_a, (start_moves, stop_moves), 1)
    yield from together(alike)


def goes_with(own: Call, alike: list[Call]) -> bool:
    """Whether a rectangle is the next of those, and they are not queries enough yet."""
    last, rows = alike[-1], sum(one.q_len for one in alike)
    here = (last.q_start + last.q_len, last.k_start)
    return rows < MANY and here == (own.q_start, own.k_start)


def together(alike: list[Call]) -> Iterator[Call]:
    """Rectangles of queries in a row over keys from one start: what all see, and what more."""
    if not alike:
        return
    rows, common = sum(one.q_len for one in alike), min(one.k_len for one in alike)
    yield Call("full", alike[0].q_start, rows, alike[0].k_start, common)
    for one in alike:
        if one.k_len > common:
            start, width = one.k_start + common, one.k_len - common
            yield Call("full", one.q_start, one.q_len, start, width)


def blocks_of(first: int, rows: int, start: int, stop: int) -> Iterator[Call]:
    """Calls for queries whose keys [start, stop) move along: whole blocks, then the rest."""
    width = stop - start
    count, rest = divmod(rows, width)
    if count:
        yield from piece(first, width, start, stop, (True, True), count)
    if rest:
        done = count * width
        yield from piece(first + done, rest, start + done, stop + done, (True, True), 1)


def piece(
    first: int, rows: int, start: int, stop: int, moves: tuple[bool, bool], count: int
) -> Iterator[Call]:
    """Calls for `count` blocks of `rows` queries whose first query sees keys [start, stop)."""
    start_moves, stop_moves = moves
    if stop_moves:
        stop -= 1
        yield Call("causal", first, rows, stop, rows, count, rows)
    if start_moves:
        reversed_rows = min(rows, stop - start)
        if reversed_rows:
            yield Call("reverse", first, reversed_rows, start, reversed_rows, count, rows)
        start += reversed_rows
    if start < stop:
        yield Call("full", first, rows, start, stop - start, count, rows)
