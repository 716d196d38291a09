"""Parallel context windows: contexts that do not see each other, a question that sees them all."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from patches.base import SINGLE, Patch
from patches.decoding import Decoding, joined
from patches.method import Method, Parameter


def alone(log_probs: Tensor, last: int | None) -> tuple[Tensor, int | None]:
    """The one reading."""
    return log_probs[0], None


def behind_the_longest(head: int, windows: Sequence[int]) -> int:
    """Pq(first token of the question) = head + max_k n_k, n_k the length of window k."""
    return head + max(windows)


def fewest(borders: Sequence[int], most: int) -> Sequence[int]:
    """The fewest windows of at most so many tokens; one a context where none are short enough."""
    for windows in range(1, len(borders) - 1):
        found = joined(borders, windows)
        if max(stop - start for start, stop in pairwise(found)) <= most:
            return found
    return borders


def pcw(windows: int | None = None) -> Patch:
    """Key j is visible to query i iff j <= i and j is in the head, in i's window, or i in none."""

    def cut(borders: Sequence[int], most: int) -> Sequence[int]:
        return joined(borders, windows) if windows else fewest(borders, most)

    hides = "parallel windows hide keys themselves; leave one of them out"
    clashes = (
        ("bands", f"both {SINGLE['bands']}; keep one of them"),
        ("visible", hides),
        ("native_window", hides),
    )
    return Patch(decoding=Decoding(alone, cut, behind_the_longest, excludes=clashes))


METHODS = (
    Method(
        name="pcw",
        seam="decoding",
        build=pcw,
        parameters=(
            Parameter(
                "windows",
                int,
                "the fewest that fit the trained length with head, question and answer",
                low=1,
            ),
        ),
        formula="windows of contexts at the same positions head ... head + n_k - 1, each sees the "
        "head and itself; question and answer see all, from position head + max_k n_k on",
        claims="more examples for few-shot classification; joins poorly what is spread over "
        "windows",
        source="Ratner et al. 2022 (2212.10947); AI21Labs/Parallel-Context-Windows pcw_wrapper.py "
        "(left indentation)",
        differs="what stands before the contexts is read once and seen by all windows, as the "
        "repository keeps one BOS; windows keep their order, the repository puts the longest "
        "first, which changes nothing; query scales count the keys that a query sees",
    ),
)
