"""A recommendation: the search, its table, and the export line of what can be deployed."""

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import patches
from harness.advice.clock import Clock
from harness.advice.search import Outcome, Round, Search, change_of, cut_reference, references
from harness.advice.standings import Standing, Standings
from harness.checkpoint import open_checkpoint
from harness.deploy.export import Exports
from harness.environment import environment
from harness.journal import Journal
from harness.lengths import render_length
from harness.measure import InProcess
from harness.outputs import write_table
from harness.plan import Request, resolve_device
from harness.reports.as_json import print_json
from harness.reports.pairs import FEWEST_DOCUMENTS, Difference
from harness.reports.report import aligned, with_interval
from harness.reports.rerun import WIDTH, signature_of, signature_of_table
from harness.results import Row
from harness.run import Measurer
from harness.terminal import show_text
from patches.candidates import candidates

__all__ = ["Wish", "recommend"]


@dataclass(frozen=True)
class Wish:
    """What a command line asks for.

    Attributes:
        request: one model and length; without patches, the candidates are tried.
        length: tokens to read.
        end: the moment of `time.monotonic` when the budget is spent.
        engine: what the patch is to be deployed with.
        as_json: print JSON instead of a table.
    """

    request: Request
    length: int
    end: float
    engine: str
    as_json: bool


def recommend(wish: Wish, out: Path, measurer: Measurer | None) -> int:
    """Search and print; returns the exit code.

    Raises:
        HarnessError: see `Search.run`.
        Unavailable: the model or the data is not there.
    """
    request = wish.request
    name = request.models[0]
    own = open_checkpoint(name).original_max_position_embeddings
    trained = request.trained_length or own
    if wish.length <= trained:
        _say_none_is_needed(wish, trained)
        return 0
    specs = request.patches or candidates(trained, wish.length)
    specs = tuple(dict.fromkeys(str(patches.parse(spec)) for spec in specs))
    request = replace(request, patches=tuple(x for x in specs if x not in references()))
    export = Exports(name, wish.length, request.trained_length, wish.engine)
    device = resolve_device(request.device)
    with Journal(out, asdict(request) | environment(device)) as journal:
        clock = Clock(wish.end)
        search = Search(
            *(request, device, journal, measurer or InProcess(), clock),
            is_deployable=lambda spec: not export.refused(spec),
        )
        outcome = search.run()
        write_table(journal)
    found = Standings(outcome, export.refused)
    if wish.as_json:
        print_json("recommend", _entry(found, wish, export))
    else:
        show_text(_render(found, wish, trained, export).removesuffix("\n"))
    return 0


def _say_none_is_needed(wish: Wish, trained: int) -> None:
    name, plain = wish.request.models[0], _plain()
    reason = (
        f"{name} was trained at {render_length(trained)} tokens and {render_length(wish.length)} "
        "is within that: no patch is needed"
    )
    if wish.as_json:
        print_json("recommend", {"recommended": plain, "deployable": plain, "reason": reason})
    else:
        print(reason)


def _plain() -> str:
    """The baseline that leaves the model as it is."""
    return next(name for name in references() if name != cut_reference())


def _render(found: Standings, wish: Wish, trained: int, export: Exports) -> str:
    """The table, what follows from it, what was left out, and the signature."""
    outcome, name = found.outcome, wish.request.models[0]
    row = outcome.last.records[cut_reference()].rows[0]
    head = (
        f"{name} at {render_length(wish.length)}, trained at {render_length(trained)}  n {row.n}  "
        f"data {row.data}  {row.dtype}  seed {row.seed}  [95 % bootstrap over documents]"
    )
    records = [*outcome.last.records.values(), *outcome.probe.records.values()]
    parts = [
        _fill(head),
        aligned(_table(found, export)),
        "".join(_verdicts(found, wish, trained, export)),
        "".join(map(_fill, _left_out(outcome))),
        signature_of_table(record.rows[0] for record in records),
    ]
    return "\n".join(parts)


def _table(found: Standings, export: Exports) -> list[list[str]]:
    probe = found.outcome.probe
    first = found.ordered[0].loss
    lines = [["patch", first.metric, f"minus {cut_reference()}", probe.task]]
    lines[0] += ["s/doc, GiB", f"in {export.engine}"]
    for one in found.ordered:
        cost = f"{one.loss.seconds / one.loss.n:.2f}, {one.loss.peak_memory_gib:.2f}"
        retrieved = _short(one.found) if one.found else "-"
        is_cut = one.spec == cut_reference()
        can = "" if is_cut else "no" if export.refused(one.spec) else "yes"
        change = "" if is_cut else _signed(one.change)
        lines.append([one.spec, f"{one.value:.3f}", change, retrieved, cost, can])
    return lines


def _short(row: Row) -> str:
    value = f"{row.value or 0.0:.2f}"
    if row.ci_low is None or row.ci_high is None:
        return value
    return f"{value} [{row.ci_low:.2f}, {row.ci_high:.2f}]"


def _signed(change: Difference | None) -> str:
    if change is None:
        return "-"
    return with_interval(change.value, change.low, change.high, "+") + "*" * change.is_told


def _verdicts(found: Standings, wish: Wish, trained: int, export: Exports) -> list[str]:
    """What is recommended, and what of it can be deployed."""
    cut = cut_reference()
    newest = f"give the model its newest {render_length(trained)} tokens alone"
    best, able = found.recommended, found.deployable
    if best is None:
        return [_fill(f"recommended: {cut}; nothing that was tried is better: {newest}")]
    lines = [
        _fill(f"recommended: {best.spec}, {_against(best)}"),
        "a patch that is best of many here leads by less on new documents\n",
    ]
    if able is None:
        lines.append(
            _fill(f"best in {wish.engine}: {cut}; nothing that it can take is better: {newest}")
        )
        return lines
    if able is not best:
        lines.append(_fill(f"best in {wish.engine}: {able.spec}, {_against(able)}"))
    if not export.setting(able.spec):
        lines.append(f"no setting is needed for {wish.length} tokens\n")
    else:
        lines.append(f"{export.command(able.spec)}\n{export.setting(able.spec)}\n")
    return lines


def _against(one: Standing) -> str:
    """How a patch stands beside the truncated input."""
    change, cut = one.change, cut_reference()
    if change is None or change.documents < FEWEST_DOCUMENTS:
        said = f"which n {change.documents if change else 0} is too few to tell"
    elif change.is_told:
        said = "told by documents"
    else:
        said = f"not told apart at n {change.documents}"
    value = abs(change.value) if change else 0.0
    text = f"{value:.3f} {one.loss.metric} below {cut}, {said}"
    if one.found is None or one.found_change is None:
        return text
    return f"{text}; {one.found.task} {_signed(one.found_change)} to {cut}"


def _left_out(outcome: Outcome) -> list[str]:
    """What the table lacks: failures, earlier rounds, what there was no time for, the probe."""
    lines = []
    for one in outcome.rounds:
        if one is not outcome.last and one.dropped:
            lines.append(f"dropped after n {one.n}: {', '.join(_with_change(one, one.dropped))}")
        failed = [x for x in one.records.values() if x.status != "ok"]
        lines += [
            f"failed: {x.rows[0].patch}: {x.rows[0].status}: {x.rows[0].error}" for x in failed
        ]
        if one.unmeasured:
            when = "not tried" if one is outcome.rounds[0] else f"not measured at n {one.n}"
            lines.append(f"{when}, for lack of time: {', '.join(one.unmeasured)}")
    if outcome.probe.verdict:
        lines.append(f"{outcome.probe.task} does not decide: {outcome.probe.verdict}")
    if outcome.seconds:
        lines.append(f"what was left out would take {_duration(outcome.seconds)} or more")
    return lines


def _with_change(one: Round, specs: Iterable[str]) -> list[str]:
    """Patches with their loss minus that of the truncated input."""
    texts = []
    for spec in specs:
        change = change_of(one, spec)
        texts.append(f"{spec} {change.value:+.3f}" if change else spec)
    return texts


def _duration(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds < 90 else f"{seconds / 60:.0f}m"


def _fill(text: str) -> str:
    return (
        textwrap.fill(
            text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        + "\n"
    )


def _entry(found: Standings, wish: Wish, export: Exports) -> dict[str, Any]:
    """What is printed, as an object of JSON."""
    outcome, best, able = found.outcome, found.recommended, found.deployable
    last = outcome.last
    return {
        "recommended": best.spec if best else cut_reference(),
        "deployable": able.spec if able else cut_reference(),
        "engine": wish.engine,
        "export": export.command(able.spec) if able and export.setting(able.spec) else None,
        "setting": export.setting(able.spec) if able else None,
        "ranking": [_standing(one, export) for one in found.ordered],
        "dropped": [
            {"patch": spec, "n": one.n, "change": change.value if change else None}
            for one in outcome.rounds
            if one is not last
            for spec in one.dropped
            for change in (change_of(one, spec),)
        ],
        "not_tried": list(outcome.rounds[0].unmeasured),
        "probe": {"task": outcome.probe.task, "verdict": outcome.probe.verdict or "decides"},
        "seconds_left_out": outcome.seconds,
    }


def _standing(one: Standing, export: Exports) -> dict[str, Any]:
    return {
        "patch": one.spec,
        "loss": one.loss.value,
        "metric": one.loss.metric,
        "n": one.loss.n,
        "change": asdict(one.change) if one.change else None,
        "retrieved": one.found.value if one.found else None,
        "retrieved_change": asdict(one.found_change) if one.found_change else None,
        "seconds": one.loss.seconds,
        "peak_memory_gib": one.loss.peak_memory_gib,
        "refused_by_engine": export.refused(one.spec),
        "signature": signature_of(one.loss),
    }
