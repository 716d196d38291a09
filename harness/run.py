"""The loop: model x task x length x patch -> samples -> engine -> scores -> rows in the journal."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from tqdm import tqdm

from harness.decoding import decode
from harness.engine import Engine
from harness.errors import HarnessError, NonFinite
from harness.generate import Prompt, generate
from harness.lengths import render_length
from harness.memory import free, is_out_of_memory, peak_gib, reset_peak
from harness.plan import Cell
from harness.results import Journal, Record, Row, Scores
from patches import PatchError
from patches.apply import Applied, apply
from tasks import TaskError
from tasks.base import Output, Sample, Tokenizer
from tasks.metrics import METRICS, interval

__all__ = ["before_first", "run"]


def run(
    cells: Sequence[Cell],
    journal: Journal,
    device: torch.device,
    stored: Callable[[], None] = lambda: None,
) -> list[Record]:
    """Measure the cells that the journal lacks or has as failed; return the records of all.

    Args:
        cells: what to measure, in order; cells of one model stand together.
        journal: where each record goes as soon as its cell ends.
        device: where the models run.
        stored: called after each append.

    Raises:
        Unavailable: a checkpoint is damaged.
        DoesNotFit: the weights need more memory than the device has.
        ResultsError: a record cannot be stored.
    """
    missing = [cell for cell in cells if not _done(journal, cell)]
    _remark(cells, missing, journal)
    work = sum(_steps(sample) for cell in missing for sample in cell.samples)
    with tqdm(total=work, unit="pass", file=sys.stderr, disable=None) as bar:
        done = 0
        for _, group in groupby(missing, key=lambda cell: cell.checkpoint.name):
            batch = list(group)
            checkpoint, row = batch[0].checkpoint, batch[0].template
            model = checkpoint.load(getattr(torch, row.dtype), device)
            engine = Engine(model, row.chunk, device, checkpoint.tokenizer.bos_id)
            for cell in batch:
                bar.set_description(_label(cell))
                record = _Measurement(cell, engine, bar).record()
                journal.append(record)
                stored()
                done += 1
                _progress(bar, f"[{done}/{len(missing)}]", cell, record)
            del model, engine
            free(device)
    return [journal.records[cell.template.cell] for cell in cells]


@dataclass(frozen=True)
class _Measurement:
    """The measuring of one cell."""

    cell: Cell
    engine: Engine
    bar: Any

    def record(self) -> Record:
        """Run the cell; what can go wrong with a cell becomes the status of its row."""
        cell, device = self.cell, self.engine.device
        free(device)
        reset_peak(device)
        start, status, error, samples = time.perf_counter(), "ok", "", []
        row = cell.template
        try:
            with apply(
                self.engine.model, cell.patch, row.context_length, row.trained_length
            ) as applied:
                row = replace(row, attention=applied.attention)
                for note in applied.notes:
                    _say(self.bar, note)
                texts = self._texts(applied)
                samples = [
                    self._scores(sample, applied.keep, answer)
                    for sample, answer in zip(cell.samples, texts, strict=True)
                ]
        except NonFinite as problem:
            status, error = "nan", str(problem)
        except (PatchError, TaskError, HarnessError) as problem:
            status, error = "error", str(problem)
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            status, error = "oom", str(problem) or "out of memory"
        row = replace(
            row,
            status=status,
            error=" ".join(error.split())[:300],
            seconds=round(time.perf_counter() - start, 3),
            peak_memory_gib=round(peak_gib(device), 3),
        )
        if status != "ok":
            return Record(cell.key, (row,), ())
        return Record(cell.key, tuple(_rows(row, samples)), tuple(samples))

    def _texts(self, applied: Applied) -> Iterator[tuple[list[int], str]]:
        """Generated tokens and text of each sample, where it asks for some."""
        tokenizer, samples = self.cell.checkpoint.tokenizer, self.cell.samples
        asked = [_prompt(sample, tokenizer) for sample in samples if sample.max_new_tokens]
        decoding, row = self.cell.patch.decoding, self.cell.template
        if decoding is None:
            made = generate(self.engine, asked, applied.keep, row.batch)
        else:
            made = decode(self.engine, asked, decoding, row.trained_length, applied.readings)
        for sample in samples:
            if not sample.max_new_tokens:
                yield [], ""
                continue
            tokens = next(made)
            self.bar.update()
            yield tokens, before_first(tokenizer.decode(tokens), sample.until or ())

    def _scores(self, sample: Sample, keep: int | None, answer: tuple[list[int], str]) -> Scores:
        nll, hits = [], []
        for one in sample.passes:
            pass_nll, pass_hits = self.engine.score(one.tokens, one.score_from, keep)
            nll.append(pass_nll)
            hits.append(pass_hits)
            self.bar.update()
        tokens, text = answer
        output = Output(tuple(nll), tuple(hits), tuple(tokens), text)
        scores = [
            [score.metric, score.position, list(score.stats)]
            for score in self.cell.task.score(sample, output)
        ]
        return {
            "id": sample.id,
            "document": sample.document,
            "tokens": sample.tokens,
            "depth": sample.depth,
            "text": text,
            "scores": scores,
        }


def _prompt(sample: Sample, tokenizer: Tokenizer) -> Prompt:
    until = sample.until
    if until is None:
        return Prompt(sample.prompt, sample.max_new_tokens, None, sample.borders)

    def ended(tokens: list[int]) -> bool:
        return bool(until) and any(one in tokenizer.decode(tokens) for one in until)

    return Prompt(sample.prompt, sample.max_new_tokens, ended, sample.borders)


def before_first(text: str, ends: Sequence[str]) -> str:
    """The text before the first of some strings."""
    return text[: min((text.index(end) for end in ends if end in text), default=len(text))]


def _rows(row: Row, samples: Sequence[Scores]) -> Iterator[Row]:
    """One row a metric and position, with the interval over documents."""
    places = dict.fromkeys(
        (metric, position) for sample in samples for metric, position, _ in sample["scores"]
    )
    for metric, position in places:
        scored = [
            (stats, str(sample["document"]))
            for sample in samples
            for name, place, stats in sample["scores"]
            if (name, place) == (metric, position)
        ]
        stats, documents = zip(*scored, strict=True)
        value, low, high = interval(metric, stats, documents, row.seed)
        yield replace(
            row,
            metric=metric,
            position=position,
            n=len(set(documents)),
            value=value,
            ci_low=None if math.isnan(low) else low,
            ci_high=None if math.isnan(high) else high,
            better=METRICS[metric].better,
            metric_detail=METRICS[metric].detail,
        )


def _done(journal: Journal, cell: Cell) -> bool:
    record = journal.records.get(cell.template.cell)
    return record is not None and record.status == "ok"


def _remark(cells: Sequence[Cell], missing: Sequence[Cell], journal: Journal) -> None:
    """Say how much is taken from the journal, and whether other code measured it."""
    reused = [journal.records[cell.template.cell] for cell in cells if _done(journal, cell)]
    if not reused:
        return
    row = cells[0].template
    others = sum(
        (one.rows[0].code, one.rows[0].versions) != (row.code, row.versions) for one in reused
    )
    note = f", {others} of them measured by other versions of code or libraries" if others else ""
    print(
        f"{len(reused)} of {len(cells)} cells are in {journal.path}{note}; {len(missing)} to run",
        file=sys.stderr,
    )


def _label(cell: Cell) -> str:
    row = cell.template
    return f"{row.model} {row.task} {render_length(row.context_length)} {row.patch}"


def _progress(bar: Any, count: str, cell: Cell, record: Record) -> None:
    row = record.rows[0]
    if row.status != "ok":
        _say(bar, f"{_label(cell)}: {row.status}: {row.error}")
    if bar.disable:
        print(
            f"{count} {_label(cell)} {row.status} {row.seconds:.1f} s", file=sys.stderr, flush=True
        )


def _say(bar: Any, text: str) -> None:
    bar.write(text, file=sys.stderr)


def _steps(sample: Sample) -> int:
    return len(sample.passes) + (sample.max_new_tokens > 0)
