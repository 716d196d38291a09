"""The seam of decoding: how several readings of one prompt choose each next token together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from patches.spec import PatchError

__all__ = ["Decoding", "joined"]

Combine = Callable[[Tensor, int | None], tuple[Tensor, int | None]]
Windows = Callable[[Sequence[int], int], Sequence[int]]


@dataclass(frozen=True)
class Decoding:
    """What a method on this seam is made of.

    Attributes:
        combine: from the log-probabilities of the readings [readings, vocabulary] and what was
            remembered of the step before (None at first), scores [vocabulary], whose largest is the
            next token, and what to remember.
        windows: from the borders of a prompt's contexts and the most tokens that a window may have
            within the trained length, the borders of windows of whole contexts. Each window is a
            reading of its own, head before and question behind it, after a reading without any.
            None: every reading is of the whole prompt.
        ropes: for each reading, its frequencies from the model's; none: one with the model's own.
        excludes: fields of a patch that cannot stand beside this, with the reason.
    """

    combine: Combine
    windows: Windows | None = None
    ropes: tuple[Callable[..., Any], ...] = ()
    excludes: tuple[tuple[str, str], ...] = ()


def joined(borders: Sequence[int], windows: int) -> Sequence[int]:
    """Borders of `windows` windows, each with the same number of contexts up to one.

    Raises:
        PatchError: fewer contexts than windows.
    """
    contexts = len(borders) - 1
    if windows > contexts:
        raise PatchError(f"windows={windows}: a prompt has {contexts} contexts; give no more")
    return [borders[contexts * window // windows] for window in range(windows + 1)]
