"""One cell measured: model and patch on samples, scores, rows; what fails becomes a status."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from harness.decoding import cuts_middle, decode
from harness.engine import Engine
from harness.errors import OF_MODELS, HarnessError, NonFinite, one_line
from harness.forecast.predict import Predictor
from harness.generate import Prompt, generate
from harness.memory import GIB, free, is_out_of_memory, peak_gib, reset_peak
from harness.plan import Cell
from harness.results import Record, Scores
from harness.totals import total_rows
from patches import PatchError
from patches.apply import Applied, apply
from tasks import TaskError
from tasks.base import Output, Sample, Tokenizer

__all__ = ["InProcess", "Progress", "before_first"]


class Progress(Protocol):
    """Who hears how far a cell is."""

    def step(self) -> None:
        """One pass over a sample is done."""

    def say(self, text: str) -> None:
        """Show a note."""


class InProcess:
    """Measures cells in this process; the model of the last one stays loaded."""

    def __init__(self) -> None:
        """Begin without a model."""
        self._engine: Engine | None = None
        self._loaded: tuple[object, ...] = ()

    def measure(self, cell: Cell, device: torch.device, progress: Progress) -> Record:
        """Run a cell; what can go wrong with a cell becomes the status of its row.

        Raises:
            Unavailable: the checkpoint is damaged.
            DoesNotFit: the weights need more memory than the device has.
        """
        return _Measurement(cell, self.load(cell, device), progress).record()

    def load(self, cell: Cell, device: torch.device) -> Engine:
        """Return an engine with the cell's model, loaded unless the last cell had the same.

        Raises:
            Unavailable: the checkpoint is damaged.
            DoesNotFit: the weights need more memory than the device has.
        """
        checkpoint, row = cell.checkpoint, cell.template
        wanted = (checkpoint.directory, row.weights, row.dtype, row.chunk, device)
        if self._engine is None or self._loaded != wanted:
            self._engine = None
            free(device)
            model = checkpoint.load(getattr(torch, row.dtype), device)
            tokenizer = checkpoint.tokenizer
            mask_id = tokenizer.mask_id if checkpoint.is_masked else None
            self._engine = Engine(model, row.chunk, device, tokenizer.bos_id, mask_id)
            self._loaded = wanted
        return self._engine


TAIL = 64  # tokens of a prompt's end that a record keeps


@dataclass(frozen=True)
class _Measurement:
    """The measuring of one cell."""

    cell: Cell
    engine: Engine
    progress: Progress

    def record(self) -> Record:
        """Run the cell; what can go wrong with it becomes the status of its row."""
        cell, device = self.cell, self.engine.device
        free(device)
        reset_peak(device)
        start, status, error, samples = time.perf_counter(), "ok", "", []
        before, row = self.engine.tokens_read, cell.template
        try:
            self.engine.measure(_together(cell))
            start = time.perf_counter()
            with apply(
                self.engine.model, cell.patch, row.context_length, row.trained_length
            ) as applied:
                row = replace(row, attention=applied.attention)
                for note in applied.notes:
                    self.progress.say(note)
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
            status, error = "oom", f"{self._ran_out()}: {str(problem) or 'out of memory'}"
        seconds = time.perf_counter() - start
        row = replace(
            row,
            status=status,
            error=one_line(error)[:300],
            seconds=round(seconds, 3),
            peak_memory_gib=round(peak_gib(device), 3),
        )
        if status != "ok":
            return Record(cell.key, (row,), ())
        row = replace(
            row,
            tokens_per_second=round((self.engine.tokens_read - before) / seconds, 1),
            seconds_per_sample=round(seconds / len(samples), 4),
        )
        return Record(cell.key, tuple(total_rows(row, samples)), tuple(samples))

    def _ran_out(self) -> str:
        """Where memory ran out, and what was predicted, as far as that can still be told."""
        measured = f"ran out at {peak_gib(self.engine.device):.2f} GiB"
        try:
            need = Predictor().forecast(self.cell).tensors
        except (*OF_MODELS, MemoryError):
            return measured
        return f"{measured}, weights and tensors need {need / GIB:.2f} GiB by prediction"

    def _texts(self, applied: Applied) -> Iterator[tuple[list[int], str]]:
        """Generated tokens and text of each sample, where it asks for some."""
        tokenizer, samples = self.cell.checkpoint.tokenizer, self.cell.samples
        asked = [_prompt(sample, tokenizer) for sample in samples if sample.max_new_tokens]
        decoding, row = self.cell.patch.decoding, self.cell.template
        if decoding is None:
            if row.batch > 1 and asked and not self.engine.reads_together:
                kind = self.cell.checkpoint.config.model_type
                self.progress.say(f"{kind}: answers are generated singly, not {row.batch} together")
            is_middle = cuts_middle(self.cell.patch, samples)
            made = generate(self.engine, asked, applied.keep, row.batch, is_middle)
        else:
            made = decode(self.engine, asked, decoding, row.trained_length, applied.readings)
        for sample in samples:
            if not sample.max_new_tokens:
                yield [], ""
                continue
            tokens = next(made)
            self.progress.step()
            yield tokens, before_first(tokenizer.decode(tokens), sample.until or ())

    def _scores(self, sample: Sample, keep: int | None, answer: tuple[list[int], str]) -> Scores:
        nll, hits = [], []
        for one in sample.passes:
            pass_nll, pass_hits = self.engine.read(one, keep)
            nll.append(pass_nll)
            hits.append(pass_hits)
            self.progress.step()
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
            "tail": self.cell.checkpoint.tokenizer.decode(sample.prompt[-TAIL:], special=True),
            "references": sample.references or [sample.reference] if sample.reference else [],
            "classes": sample.classes,
            "position": sample.position,
            "fields": dict(sample.fields),
            "text": text,
            "scores": scores,
        }


def _together(cell: Cell) -> int:
    """Rows that go on together: answers, or the readings of a prompt whose contexts are apart."""
    decoding = cell.patch.decoding
    return 2 if decoding is not None and decoding.windows is not None else cell.template.batch


def _prompt(sample: Sample, tokenizer: Tokenizer) -> Prompt:
    until = sample.until
    if until is None:
        return Prompt(sample.prompt, sample.max_new_tokens, None, sample.borders)
    ends = (sample.ends, sample.min_new_tokens)

    def ended(tokens: list[int]) -> bool:
        return bool(until) and any(one in tokenizer.decode(tokens) for one in until)

    return Prompt(sample.prompt, sample.max_new_tokens, ended, sample.borders, *ends)


def before_first(text: str, ends: Sequence[str]) -> str:
    """The text before the first of some strings."""
    return text[: min((text.index(end) for end in ends if end in text), default=len(text))]
