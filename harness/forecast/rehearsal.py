"""The forwards of a cell on a model without values, under a tracker.

Of many forwards of one shape, one in their middle counts for the work, which is linear in what
stands before it, and the last one, before which most stands, for the memory.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from harness.cache import RowCache
from harness.decoding import cuts_middle, reader
from harness.engine import Engine, losses, pieces
from harness.forecast.tracker import Tracker, Work
from harness.generate import Batch, Prompt, Row, known_of, shortened
from harness.plan import Cell
from patches.apply import Applied

__all__ = ["META", "Group", "Rehearsal", "groups_of", "times"]

META = torch.device("meta")
STEPS = 8  # lengths an octave that are told apart for the work


@dataclass
class Group:
    """Inputs of nearly one length, which are run as the longest of them.

    Attributes:
        length: tokens of the longest, without what is generated.
        rows: scored positions, or answers generated together.
        inputs: tokens of all of them that are read.
        new: tokens to generate; 0 for a pass.
        is_masked: the scored positions are hidden ones.
        answers: batches of answers.
        is_shared: some begin like the one before.
    """

    length: int = 0
    rows: int = 0
    inputs: int = 0
    new: int = 0
    answers: int = 0
    is_shared: bool = False
    is_masked: bool = False

    def add(self, length: int, rows: int, inputs: int, new: int = 0) -> None:
        """Take one more."""
        self.length, self.rows = max(self.length, length), max(self.rows, rows)
        self.inputs += inputs
        self.new = new
        self.answers += new > 0


def groups_of(cell: Cell, engine: Engine, keep: int | None) -> Iterable[Group]:
    """What a cell reads, by kind and length."""
    groups: dict[tuple[int, ...], Group] = defaultdict(Group)
    for sample in cell.samples:
        for one in sample.passes:
            if one.hidden:
                length, rows = min(len(one.tokens), keep or len(one.tokens)), len(one.hidden)
                group = groups[0, _place(length), _place(rows)]
                group.add(length, rows, length)
                group.is_masked = True
                continue
            for tokens, score_from, _ in engine.windows(one.tokens, one.score_from, keep):
                length, rows = len(tokens) - 1, len(tokens) - score_from
                groups[0, _place(length), _place(rows)].add(length, rows, length)
    asked = [
        Prompt(sample.prompt, sample.max_new_tokens)
        for sample in cell.samples
        if sample.max_new_tokens
    ]
    is_middle = cuts_middle(cell.patch, cell.samples)
    prompts = [shortened(engine, prompt, keep, is_middle) for prompt in asked]
    before = ((), *prompts)
    known = [known_of(engine, *pair) for pair in zip(prompts, before, strict=False)]
    size = cell.template.batch if engine.reads_together else 1
    for start in range(0, len(prompts), size):
        here = slice(start, start + size)
        longest = max(map(len, prompts[here]))
        new = max(one.max_new_tokens for one in asked[here])
        group = groups[new, _place(longest), len(prompts[here])]
        group.add(longest, len(prompts[here]), sum(map(len, prompts[here])) - sum(known[here]), new)
        group.is_shared |= known[start] > 0
    return groups.values()


def _place(length: int) -> int:
    return math.floor(STEPS * math.log2(max(1, length)))


class Rehearsal:
    """The forwards of one cell, under a tracker."""

    def __init__(self, tracker: Tracker, engine: Engine) -> None:
        """Bind a tracker that is on, and an engine on the device meta."""
        self.tracker = tracker
        self.engine = engine

    def group(self, group: Group) -> Work:
        """Work of all inputs of a group."""
        if group.is_masked:
            self.tracker.take_work()
            logits = self.engine.masked_logits([0] * group.length, range(group.rows))
            losses(logits, [0] * group.rows)
            return times(self.tracker.take_work(), group.inputs / group.length)
        if not group.new:
            parts = list(pieces(group.length, group.length - group.rows, self.engine.chunk))
            cache = self.engine.cache(group.length) if len(parts) > 1 else None
            first_row = group.length - group.rows
            return times(self._read(parts, first_row, cache, 0), group.inputs / group.length)
        batch = self.batch(group.length, group.rows, group.new)
        before = batch.cache if group.is_shared else None
        reading = self.read(batch)
        if before is not None:  # the answers before wait until what they share is copied
            batch = self.batch(group.length, group.rows, group.new)
            reading = self.read(batch)
            del before
        steps = times(self.step(batch), group.answers * (group.new - 1))
        return times(reading, group.inputs / group.length) + steps

    def decoded(self, cell: Cell, applied: Applied) -> Work:
        """Work of answers that several readings choose: that of the longest prompt, for all."""
        decoding, trained = cell.patch.decoding, cell.template.trained_length
        assert decoding is not None
        longest = max(cell.samples, key=lambda sample: sample.tokens)
        prompt = Prompt(longest.prompt, longest.max_new_tokens, None, longest.borders)
        work: Work = Counter()
        alive = []
        for reading in applied.readings or (nullcontext,):
            with reading():
                found = reader(self.engine, prompt, decoding, trained)
                if isinstance(found, Batch):
                    lengths = [len(row.tokens) for row in found.rows]
                    batch = self.batch(max(lengths), len(lengths), prompt.max_new_tokens)
                    work += times(self.read(batch), sum(lengths) / max(lengths))
                    work += times(self.step(batch), prompt.max_new_tokens - 1)
                    alive.append(batch.cache)
                else:
                    self.tracker.take_work()
                    found.read()
                    work += self.tracker.take_work()
                    self.engine.forward([0], 1, found.cache, found.position)
                    work += times(self.tracker.take_work(), prompt.max_new_tokens - 1)
                    alive.append(found.cache)
        tokens = sum(sample.tokens for sample in cell.samples)
        return times(work, tokens / longest.tokens)

    def batch(self, length: int, rows: int, new: int) -> Batch:
        """Equal prompts that are continued together."""
        row = Row(Prompt([0] * length, new), [0] * length)
        return Batch(self.engine, [row] * rows)

    def read(self, batch: Batch) -> Work:
        """Read the last prompt of a batch."""
        parts = list(pieces(batch.columns, batch.columns - 1, self.engine.chunk))
        return self._read(parts, batch.columns, batch.cache, len(batch.rows) - 1)

    def step(self, batch: Batch) -> Work:
        """The last step of an answer; the one before keeps what all later ones need."""
        rows, new = len(batch.rows), batch.rows[0].prompt.max_new_tokens
        chosen = torch.zeros(rows, dtype=torch.long, device=META)
        batch.columns += max(0, new - 2)
        states = batch.cache.states()  # of the row that was read
        for row in range(rows):
            batch.cache.open(slice(row, row + 1), 0)
            batch.cache.go_on_from(states)
        batch.cache.open(slice(0, rows), 0, batch.columns)
        if new > 1:
            batch.step(chosen)
            self.tracker.take_work()
            batch.step(chosen)
        return self.tracker.take_work()

    def _read(
        self, parts: Sequence[tuple[int, int]], first_row: int, cache: RowCache | None, row: int
    ) -> Work:
        """Work of forwards; those from `first_row` on are scored."""
        shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for start, end in parts:
            shapes[end - start, max(0, end - max(start, first_row))].append(start)
        work: Work = Counter()
        if cache is not None:
            self.engine.forward([0], 1, cache)  # its buffers come with the first tokens
        for (length, rows), starts in shapes.items():
            middle = (starts[0] + starts[-1]) // 2
            for start in dict.fromkeys((middle, starts[-1])):
                self.tracker.take_work()
                if cache is not None:
                    cache.open(slice(row, row + 1), 0, start)
                logits = self.engine.forward([0] * length, max(rows, 1), cache)
                if rows:
                    losses(logits, [0] * rows)
                if start == middle:
                    work += times(self.tracker.take_work(), len(starts))
        return work


def times(work: Work, factor: float) -> Work:
    """So much work again and again."""
    return Counter({step: count * factor for step, count in work.items()})
