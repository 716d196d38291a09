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
        question_position: if given, the windows stand side by side in one reading: each is read
            behind the head alone, at the same positions, and the question sees them all from this
            position on, given the length of the head and those of the windows.
        ropes: for each reading, its frequencies from the model's; none: one with the model's own.
        excludes: fields of a patch that cannot stand beside this, with the reason.
        takes_logits: True if `combine` is given logits as the model made them.
    """

    combine: Combine
    windows: Windows | None = None
    question_position: Callable[[int, Sequence[int]], int] | None = None
    ropes: tuple[Callable[..., Any], ...] = ()
    excludes: tuple[tuple[str, str], ...] = ()
    takes_logits: bool = False

    @property
    def leaves_model(self) -> bool:
        """True if every reading is as the model itself reads."""
        return not self.ropes and self.question_position is None


def joined(borders: Sequence[int], windows: int) -> Sequence[int]:
    """Borders of `windows` windows, each with the same number of contexts up to one.

    Raises:
        PatchError: fewer contexts than windows.
    """
    contexts = len(borders) - 1
    if windows > contexts:
        raise PatchError(f"windows={windows}: a prompt has {contexts} contexts; give no more")
    return [borders[contexts * window // windows] for window in range(windows + 1)]
