"""Random draws that are the same on every machine, and for every sample whatever the others are."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["MOST_DIGITS", "Draws"]

MOST_DIGITS = 18  # of a number that one draw of 64 bits gives evenly

T = TypeVar("T")


class Draws:
    """A stream of draws that depends on its parts alone: seed, name of the task, index, ...

    Each draw is the start of sha256(parts, number of the draw), so that no library's generator has
    to stay as it is.
    """

    def __init__(self, *parts: object) -> None:
        """Begin the stream of `parts`."""
        self._parts = repr(parts).encode()
        self._count = 0

    def below(self, end: int) -> int:
        """Draw an integer from 0 to end - 1; end is far below 2**64."""
        return int.from_bytes(self._next()[:8], "big") * end >> 64

    def _next(self) -> bytes:
        self._count += 1
        return hashlib.sha256(self._parts + self._count.to_bytes(8, "big")).digest()

    def pick(self, items: Sequence[T], count: int) -> list[T]:
        """Draw `count` different items, in random order."""
        left = list(items)
        for place in range(count):
            other = place + self.below(len(left) - place)
            left[place], left[other] = left[other], left[place]
        return left[:count]

    def digits(self, count: int) -> str:
        """Draw a number of `count` digits, at most MOST_DIGITS, that does not begin with 0."""
        first = 10 ** (count - 1)
        return str(first + self.below(9 * first))

    def different(self, count: int, numbers: int) -> list[str]:
        """Draw different numbers of `count` digits."""
        found: dict[str, None] = {}
        while len(found) < numbers:
            found[self.digits(count)] = None
        return list(found)

    def uuid(self) -> str:
        """Draw 32 hex digits in the form 8-4-4-4-12."""
        text = self._next().hex()[:32]
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
