"""Paired differences of two finished cells, by document."""

from dataclasses import dataclass

from harness.results import Record
from tasks.intervals import paired_difference

__all__ = ["FEWEST_DOCUMENTS", "Difference", "difference", "scores"]

FEWEST_DOCUMENTS = 6  # with fewer, all of them agreeing is no rare event (p = 2 / 2^n)
SMALLEST = 0.0005  # a difference that is printed as 0.000 is none


@dataclass(frozen=True)
class Difference:
    """A value minus another on the same samples, with its 95 % interval over documents."""

    value: float
    low: float
    high: float
    documents: int

    @property
    def is_told(self) -> bool:
        """True if it is not 0 as printed, its interval is without 0 and documents are enough."""
        seen = abs(self.value) >= SMALLEST and (self.low > 0 or self.high < 0)
        return seen and self.documents >= FEWEST_DOCUMENTS


def difference(
    record: Record, reference: Record, metric: str, position: str = ""
) -> Difference | None:
    """Value of a record minus that of the reference; None where their samples are not the same."""
    ours, theirs = scores(record, metric, position), scores(reference, metric, position)
    if not ours or ours.keys() != theirs.keys():
        return None
    documents = [document for _, document in ours]
    found = paired_difference(
        metric,
        list(ours.values()),
        [theirs[one] for one in ours],
        documents,
        record.rows[0].seed,
    )
    return Difference(*found, len(set(documents)))


def scores(record: Record, metric: str, position: str) -> dict[tuple[str, str], list[float]]:
    """Sufficient statistics by sample and document."""
    return {
        (sample["id"], sample["document"]): stats
        for sample in record.samples
        for name, place, stats in sample["scores"]
        if (name, place) == (metric, position)
    }
