"""What a model answered: the cells of a run, and the samples of one of them. Imports no torch."""

import math
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.journal import Stored, read_journal
from harness.lengths import render_length
from harness.results import Record, Scores
from harness.terminal import printable
from patches.spec import did_you_mean

__all__ = ["is_run", "render_run", "values_of"]


def is_run(name: str) -> bool:
    """Whether a name is a run directory, or a cell in one."""
    path = Path(name)
    return path.is_dir() or ("/" in name and bool(Stored(path.parent).paths()))


def values_of(sample: Scores, everywhere: bool = False) -> dict[str, float | None]:
    """What the sample alone makes of each metric, None where that is no finite number.

    Args:
        sample: as a record holds it.
        everywhere: at every position too, called `METRIC POSITION`.
    """
    from tasks.metrics import METRICS  # numpy is not needed to list cells

    found = {
        f"{metric} {position}".strip(): METRICS[metric].finish(stats)
        for metric, position, stats in sample["scores"]
        if metric in METRICS and (everywhere or not position)
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def render_run(name: str) -> str:
    """The cells of the run directory `DIR`, or all samples of the cell `DIR/CELL`.

    The beginning of a cell's name is enough where no other begins so.

    Raises:
        HarnessError: no such cell, or several.
        ResultsError: no journal there, or a corrupt one.
    """
    path = Path(name)
    if path.is_dir():
        return "\n".join(_cell_line(record) for record in read_journal(path))
    records = {record.rows[0].cell: record for record in read_journal(path.parent)}
    fitting = [cell for cell in records if cell.startswith(path.name)]
    if len(fitting) != 1:
        what = f"{len(fitting)} cells begin with" if fitting else "no cell"
        raise HarnessError(
            f"{name}: {what} '{path.name}' in {path.parent}{did_you_mean(path.name, records)} "
            f"(python -m harness show {path.parent})"
        )
    record = records[fitting[0]]
    return "\n\n".join([_cell_line(record), *(_sample(one) for one in record.samples)])


def _cell_line(record: Record) -> str:
    row = record.rows[0]
    value = f"{row.metric} {row.value:.3f}" if row.value is not None else row.error
    length = render_length(row.context_length)
    return f"{row.cell}  {row.model}  {row.task}  {length}  {row.patch}  {row.status}  {value}"


def _sample(sample: Scores) -> str:
    return "\n".join(_sample_lines(sample))


def _sample_lines(sample: Scores) -> Iterator[str]:
    tokens, depth = sample.get("tokens"), sample.get("depth")
    known = [f"{tokens} tokens"] if tokens else []
    known += [f"answer behind {depth:.1%} of the prompt"] if depth is not None else []
    yield "  ".join([f"== {sample['id']}", *known])
    if sample.get("tail"):
        yield f"prompt     ...{_shown(sample['tail'])}"
    for reference in sample.get("references", ()):
        yield f"reference  {_shown(reference)}"
    if sample.get("text") or sample.get("references"):
        yield f"answer     {_shown(sample.get('text', '')) or '(nothing)'}"
    for metric, value in values_of(sample).items():
        yield f"{metric:10} {'-' if value is None else f'{value:.3f}'}"


def _shown(text: str) -> str:
    """A text on lines below each other, without what steers a terminal."""
    return printable(text.replace("\t", " ")).replace("\n", "\n           ")
