"""Pairs of queries and keys: what a band covers, what may be seen."""

from dataclasses import dataclass, replace

__all__ = ["EVERYWHERE", "Region"]

UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class Region:
    """Pairs (query i, key j) with bounded distance, key index and chunk lag; None: no upper bound.

    distance[0] <= i - j < distance[1], keys[0] <= j < keys[1] and, with chunks of `chunk_size`,
    lag[0] <= i // chunk_size - j // chunk_size < lag[1]. The keys of one query form an interval.
    """

    distance: tuple[int, int | None] = (0, None)
    keys: tuple[int, int | None] = (0, None)
    chunk_size: int | None = None
    lag: tuple[int, int | None] = (0, None)

    def interval(self, i: int) -> tuple[int, int]:
        """Keys [start, stop) of query i; empty when start >= stop."""
        start, stop = self.constant_bounds(i)
        if self.distance[1] is not None:
            start = max(start, i - self.distance[1] + 1)
        return start, min(stop, i - self.distance[0] + 1)

    def constant_bounds(self, i: int) -> tuple[int, int]:
        """The part of `interval` that does not move with i inside a chunk."""
        start, stop = self.keys[0], UNBOUNDED if self.keys[1] is None else self.keys[1]
        if self.chunk_size is not None:
            chunk = i // self.chunk_size
            if self.lag[1] is not None:
                start = max(start, (chunk - self.lag[1] + 1) * self.chunk_size)
            stop = min(stop, (chunk - self.lag[0] + 1) * self.chunk_size)
        return start, stop

    def within(self, distance: tuple[int, int | None], keys: tuple[int, int | None]) -> "Region":
        """This region cut to a distance interval and a key interval."""
        return replace(
            self, distance=intersect(self.distance, distance), keys=intersect(self.keys, keys)
        )

    @property
    def is_empty(self) -> bool:
        """True when the distance or the key interval is empty."""
        return any(high is not None and low >= high for low, high in (self.distance, self.keys))


def intersect(a: tuple[int, int | None], b: tuple[int, int | None]) -> tuple[int, int | None]:
    """Intersection of two half-open intervals, None being no upper bound."""
    highs = [high for high in (a[1], b[1]) if high is not None]
    return max(a[0], b[0]), min(highs) if highs else None


EVERYWHERE = Region()
