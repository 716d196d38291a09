"""A budget of time, and what cells take as far as others tell."""

import time
from dataclasses import dataclass, field

from harness.plan import Cell
from harness.results import Record, Row

__all__ = ["Clock"]

_Place = tuple[str, str, int]


@dataclass
class Clock:
    """How much of the budget is left, and what a cell takes, as far as others tell.

    Attributes:
        end: the moment of `time.monotonic` when the budget is spent.
        left_out: seconds that the cells which were not allowed would take.
    """

    end: float
    left_out: float = 0.0
    _took: dict[tuple[object, ...], dict[_Place, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Let the first stage have it all until told otherwise."""
        self._until = self.end

    def begin(self, share: float) -> None:
        """Give the next stage a share of what is left."""
        now = time.monotonic()
        self._until = now + (self.end - now) * share

    def learn(self, record: Record) -> None:
        """Take note of what a sample of a cell took."""
        row = record.rows[0]
        if record.samples:
            each = row.seconds / len(record.samples)
            self._took.setdefault(_setting(row), {})[_place(row)] = each

    def predicted(self, cell: Cell) -> float:
        """Seconds a cell will take: as its patch took on the task, else on another, else the most.

        Where nothing is known at its length, it is taken to grow with the length; 0 while nothing
        of the model is known.
        """
        row, took = cell.template, self._took.get(_setting(cell.template), {})
        length = row.context_length
        if _place(row) in took:
            return took[_place(row)] * len(cell.samples)
        here = {place: each for place, each in took.items() if place[2] == length}
        others = {place: each * length / place[2] for place, each in took.items()}
        known = here or others
        alike = [each for (_, patch, _), each in known.items() if patch == row.patch]
        return max(alike or known.values(), default=0.0) * len(cell.samples)

    def allows(self, cell: Cell) -> bool:
        """Whether a cell will end within the stage's share."""
        seconds = self.predicted(cell)
        if time.monotonic() + seconds <= self._until:
            return True
        self.left_out += seconds
        return False


def _setting(row: Row) -> tuple[object, ...]:
    return row.model, row.device, row.dtype, row.chunk


def _place(row: Row) -> _Place:
    return row.task, row.patch, row.context_length
