"""The search of `recommend`: rounds of loss with more documents for fewer patches, then a probe.

Every measurement is an ordinary cell of the run directory. Imports torch.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import torch

import patches
import tasks
from harness.advice.clock import Clock
from harness.errors import HarnessError
from harness.journal import Journal
from harness.lengths import render_length
from harness.outputs import write_table
from harness.plan import Cell, Request, plan
from harness.reports.findings import first_row
from harness.reports.pairs import Difference, difference
from harness.results import Record
from harness.run import Measurer, run

__all__ = [
    "Outcome",
    "Probe",
    "Round",
    "Search",
    "change_of",
    "cut_reference",
    "references",
    "sizes",
]

ROUND_SHARE = 0.5  # of what is left of the budget, for each round
NO_TIME = "no time was left for it"


@dataclass(frozen=True)
class Round:
    """Loss of some patches on the same documents.

    Attributes:
        n: documents that were asked for.
        records: finished cells by patch, the references among them.
        unmeasured: patches that there was no time for.
        dropped: measured patches that the next round leaves out.
    """

    n: int
    records: dict[str, Record]
    unmeasured: tuple[str, ...]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probe:
    """Retrieval of the patches of the last round.

    Attributes:
        task: its spec.
        records: finished cells by patch; none where the probe does not decide.
        verdict: empty if it decides, else why not.
    """

    task: str
    records: dict[str, Record]
    verdict: str


@dataclass(frozen=True)
class Outcome:
    """What was measured; `seconds` is what the cells that were left out would take."""

    rounds: tuple[Round, ...]
    probe: Probe
    seconds: float

    @property
    def last(self) -> Round:
        """The round that counts: the last one that has more than the references."""
        cut = cut_reference()
        full = [x for x in self.rounds if cut in x.records and x.records.keys() - {*references()}]
        return full[-1] if full else self.rounds[0]


def references() -> list[str]:
    """The baselines of the table of patches."""
    return [name for name, entry in patches.PATCHES.items() if entry.baseline]


def cut_reference() -> str:
    """The baseline that cuts the input, which a recommendation must not be worse than."""
    return next(name for name in references() if patches.parse(name).keep)


def change_of(one: Round, spec: str) -> Difference | None:
    """Loss of a patch minus that of the truncated input in a round; None if it has none."""
    record = one.records.get(spec)
    row = first_row(record) if record and record.status == "ok" else None
    if record is None or row is None:
        return None
    return difference(record, one.records[cut_reference()], row.metric, row.position)


def sizes(n: int) -> list[int]:
    """Documents of the rounds: a quarter, half, all."""
    return sorted({max(1, n // 4), max(1, n // 2), n})


@dataclass
class Search:
    """One search.

    Attributes:
        request: one model, one length; `patches` are the candidates, n the documents of the last
            round.
        clock: the budget.
        is_deployable: whether an engine can take a patch; the best such one is never dropped.
    """

    request: Request
    device: torch.device
    journal: Journal
    measurer: Measurer
    clock: Clock
    is_deployable: Callable[[str], bool]

    def run(self) -> Outcome:
        """Measure as much as the budget allows; the baselines of the first round whatever it is.

        Raises:
            HarnessError: see `plan` and `run`; or the truncated input cannot be measured.
        """
        pool: Sequence[str] = self.request.patches
        rounds: list[Round] = []
        steps = sizes(self.request.n)
        for index, n in enumerate(steps):
            self.clock.begin(ROUND_SHARE)
            one = self._round(pool, n, is_first=index == 0)
            ranked = self._ranked(one)
            pool = self._better_half(ranked) if index + 1 < len(steps) else ranked
            rounds.append(replace(one, dropped=tuple(x for x in ranked if x not in pool)))
            if not pool:
                break
        found = Outcome((*rounds,), Probe(tasks.in_role("retrieval"), {}, NO_TIME), 0.0)
        ranked = self._ranked(found.last)
        self.clock.begin(1)
        probe = self._probe(found.last, ranked) if ranked else found.probe
        return replace(found, probe=probe, seconds=self.clock.left_out)

    def _round(self, pool: Sequence[str], n: int, is_first: bool) -> Round:
        task, cut = tasks.in_role("loss"), cut_reference()
        said = f"{len(pool)} candidates and {len(references())} baselines, n {n}"
        print(f"{task}: {said}", file=sys.stderr)
        always = references() if is_first else ()
        records = self._measure(task, pool, replace(self.request, n=n), always)
        if cut in records and records[cut].status != "ok":
            reason = records[cut].rows[0].error
            raise HarnessError(f"{cut} failed ({reason}): there is nothing to compare with")
        missing = [spec for spec in (*references(), *pool) if spec not in records]
        return Round(n, records, (*missing,))

    def _measure(
        self, task: str, pool: Sequence[str], request: Request, always: Collection[str]
    ) -> dict[str, Record]:
        """Cells of the baselines and patches that time allows, and of those that are always."""
        first = sorted(references(), key=lambda spec: spec != cut_reference())
        wanted = replace(request, tasks=(task,), patches=(*first, *pool))

        def is_wanted(cell: Cell) -> bool:
            for record in self.journal.records.values():
                self.clock.learn(record)
            return cell.template.patch in always or self.clock.allows(cell)

        return {record.rows[0].patch: record for record in self._run(wanted, is_wanted)}

    def _run(self, request: Request, wanted: Callable[[Cell], bool]) -> list[Record]:
        derive = partial(write_table, self.journal)
        cells = plan(request, self.device)
        given = (cells, self.journal, self.device, self.measurer, request.retry, derive, wanted)
        return run(*given)

    def _ranked(self, one: Round) -> list[str]:
        """Candidates of a round that have a value, the lowest loss first."""
        changes = {spec: change_of(one, spec) for spec in one.records if spec not in references()}
        values = {spec: change.value for spec, change in changes.items() if change}
        return sorted(values, key=lambda spec: values[spec])

    def _better_half(self, ranked: Sequence[str]) -> list[str]:
        """The better half, and the best that can be deployed if the half has none."""
        half = list(ranked[: ceil(len(ranked) / 2)])
        if not any(map(self.is_deployable, half)):
            half += [spec for spec in ranked[len(half) :] if self.is_deployable(spec)][:1]
        return half

    def _probe(self, last: Round, ranked: Sequence[str]) -> Probe:
        """Retrieval, if the model as it is can retrieve within its trained length."""
        task, cut = tasks.in_role("retrieval"), cut_reference()
        plain = next(name for name in references() if name != cut)
        trained = last.records[cut].rows[0].trained_length
        request = replace(self.request, tasks=(task,))
        try:
            here = replace(request, lengths=(trained,), patches=(plain,))
            able = self._run(here, self.clock.allows)
            row = first_row(able[0]) if able else None
            if row is None:
                return Probe(task, {}, f"{plain} failed on it" if able else NO_TIME)
            if not row.ci_low:
                where = f"of n {row.n} within the trained {render_length(trained)} already"
                return Probe(task, {}, f"{plain} finds {row.value:.2f} {where}")
            records = self._measure(task, ranked, request, ())
        except tasks.TaskError as error:
            return Probe(task, {}, str(error))
        ok = {spec: record for spec, record in records.items() if record.status == "ok"}
        if cut not in ok or not ok.keys() - set(references()):
            return Probe(task, {}, NO_TIME if records.keys() == ok.keys() else "it failed")
        return Probe(task, ok, "")
