"""What a search found: the order of the patches, and which of them are recommended."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from harness.advice.search import Outcome, change_of, cut_reference
from harness.reports.findings import first_row
from harness.reports.pairs import FEWEST_DOCUMENTS, Difference, difference
from harness.results import Record, Row

__all__ = ["Standing", "Standings"]


@dataclass(frozen=True)
class Standing:
    """One patch at the end of a search.

    Attributes:
        record: the cell of its loss.
        loss: the value.
        change: loss minus that of the truncated input, on the same documents.
        found: what it retrieves, if that was measured.
        found_change: minus what the truncated input retrieves.
    """

    record: Record
    loss: Row
    change: Difference | None
    found: Row | None
    found_change: Difference | None

    @property
    def spec(self) -> str:
        """The patch."""
        return self.loss.patch

    @property
    def value(self) -> float:
        """The loss."""
        return self.loss.value or 0.0


@dataclass(frozen=True)
class Standings:
    """The patches of the round that counts.

    Attributes:
        outcome: what was measured.
        refused: why an engine cannot take a patch; empty if it can.
    """

    outcome: Outcome
    refused: Callable[[str], str]

    @cached_property
    def ordered(self) -> list[Standing]:
        """All, best first, the baselines among them.

        Those whose loss documents do not tell from the lowest come first, by what they retrieve,
        then by loss. Without a probe that decides, and with too few documents to tell anything, all
        go by loss.
        """
        records = self.outcome.last.records.values()
        found = [one for record in records if (one := self._standing(record))]
        best = min(found, key=lambda one: one.value)

        def order(one: Standing) -> tuple[bool, float, float]:
            close = _is_close(one, best)
            row = one.found if close and not self.outcome.probe.verdict else None
            return not close, -(row.value or 0.0) if row else 0.0, one.value

        return sorted(found, key=order)

    @property
    def recommended(self) -> Standing | None:
        """The first that beats the truncated input; None if none does."""
        return next(filter(self.beats_cut, self.ordered), None)

    @property
    def deployable(self) -> Standing | None:
        """The first that beats it and that the engine can take."""
        better = filter(self.beats_cut, self.ordered)
        return next((one for one in better if not self.refused(one.spec)), None)

    def beats_cut(self, one: Standing) -> bool:
        """Whether the loss is below that of the truncated input, and no less is retrieved.

        Both by the paired difference as it was measured, told by documents or not. Where the probe
        decides, a patch that it was not put on beats nothing.
        """
        if one.spec == cut_reference() or one.change is None or one.change.value >= 0:
            return False
        if self.outcome.probe.verdict:
            return True
        return one.found_change is not None and one.found_change.value >= 0

    def _standing(self, record: Record) -> Standing | None:
        row, cut = first_row(record), cut_reference()
        if row is None or record.status != "ok":
            return None
        change = change_of(self.outcome.last, row.patch)
        probes = self.outcome.probe.records
        probe = probes.get(row.patch)
        found = first_row(probe) if probe else None
        if probe is None or found is None:
            return Standing(record, row, change, None, None)
        against = difference(probe, probes[cut], found.metric, found.position)
        return Standing(record, row, change, found, against)


def _is_close(one: Standing, best: Standing) -> bool:
    """Whether documents are enough to tell losses apart, and do not tell these."""
    if one is best:
        return True
    found = difference(one.record, best.record, one.loss.metric, one.loss.position)
    return found is not None and found.documents >= FEWEST_DOCUMENTS and not found.is_told
