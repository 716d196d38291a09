"""Greedy continuation of many prompts: read one by one, continued together.

A prompt that begins like the one before it is read from where they part. Rows of unequal length
stand flush right, so that prompts are never padded; only the shared steps are masked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.cache import RowCache, cached, padded
from harness.engine import Engine, pieces
from harness.errors import HarnessError, NonFinite

__all__ = ["Batch", "Prompt", "Row", "generate", "known_of", "shortened"]

Tokens = Sequence[int]


@dataclass(frozen=True)
class Prompt:
    """What is to be continued.

    Attributes:
        tokens: the prompt.
        max_new_tokens: tokens to generate, at most or exactly.
        ended: tells from the generated tokens whether they are enough; None to generate exactly
            `max_new_tokens`, whatever they are.
        borders: of its contexts, as in a sample of a task; none if they cannot be read apart.
        ends: tokens that end it as the model's end-of-sequence tokens do.
        min_new_tokens: tokens that no end is chosen among.
    """

    tokens: Tokens
    max_new_tokens: int
    ended: Callable[[list[int]], bool] | None = None
    borders: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    min_new_tokens: int = 0


@torch.inference_mode()
def generate(
    engine: Engine,
    prompts: Sequence[Prompt],
    keep: int | None = None,
    batch: int = 1,
    cuts_middle: bool = False,
) -> Iterator[list[int]]:
    """Continue prompts greedily; yield the generated tokens of each, in order.

    Where a prompt says when it is ended, the model's end-of-sequence tokens end it too, and are not
    among its tokens.

    Args:
        engine: the model.
        prompts: what to continue.
        keep: if given, only the newest keep - max_new_tokens tokens of each prompt are read, BOS
            among them.
        cuts_middle: as many are read, but half from the beginning and half from the end.
        batch: prompts that are continued together, if the model reads them so.

    Raises:
        NonFinite: a logit is not a number, or infinite where the largest is looked for.
        HarnessError: `keep` leaves no room for a prompt, or the model cannot generate.
    """
    batch = batch if batch > 1 and engine.reads_together else 1
    rows = [Row(prompt, shortened(engine, prompt, keep, cuts_middle)) for prompt in prompts]
    last: Batch | None = None
    for start in range(0, len(rows), batch):
        last = Batch(engine, rows[start : start + batch], last, rows[start + batch :])
        yield from last.run()


def shortened(
    engine: Engine, prompt: Prompt, keep: int | None, cuts_middle: bool = False
) -> Tokens:
    """What is read of a prompt."""
    if keep is None:
        return prompt.tokens
    head = engine.head(prompt.tokens)
    room = keep - prompt.max_new_tokens - len(head)
    if room < 1:
        raise HarnessError(
            f"{prompt.max_new_tokens} new tokens leave no prompt in a window of {keep}; generate "
            "fewer"
        )
    rest = prompt.tokens[len(head) :]
    first = room // 2 if cuts_middle and len(rest) > room else 0
    return [*head, *rest[:first], *rest[first:][first - room :]]


class Row:
    """One prompt, what is read of it, and what has been generated."""

    def __init__(self, prompt: Prompt, tokens: Tokens) -> None:
        """Nothing is read or generated yet."""
        self.prompt = prompt
        self.tokens = list(tokens)
        self.new: list[int] = []
        self.is_done = False

    def bar(self, scores: Tensor, ends: frozenset[int]) -> None:
        """Take the ends out of the scores of the next token [vocabulary], where none may come."""
        if len(self.new) < self.prompt.min_new_tokens:
            known = [end for end in {*ends, *self.prompt.ends} if end < len(scores)]
            scores[known] = -torch.inf

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Note the next token."""
        if self.is_done:
            return
        ended = self.prompt.ended
        if ended is not None and (token in ends or token in self.prompt.ends):
            self.is_done = True
            return
        self.new.append(token)
        is_full = len(self.new) == self.prompt.max_new_tokens
        self.is_done = is_full or (ended is not None and ended(self.new))


@dataclass(frozen=True)
class Beginning:
    """Tokens that a later prompt may begin with, and what has been read of them.

    Attributes:
        tokens: these.
        cache: holds their keys and values.
        place: row and first column there.
        states: behind all of them; empty for a model that keeps none.
    """

    tokens: Tokens
    cache: RowCache
    place: tuple[int, int]
    states: dict[int, Any]


class Batch:
    """Rows that are continued together; the prompts end at one column."""

    def __init__(
        self,
        engine: Engine,
        rows: Sequence[Row],
        before: "Batch | None" = None,
        after: Sequence[Row] = (),
    ) -> None:
        """Make room for the rows; what they share with those before is not read again.

        What they share with those after is known beforehand, for the states behind it to be kept.
        """
        self.engine = engine
        self.rows = rows
        self.after = after
        self.columns = max(len(row.tokens) for row in rows)
        new = max(row.prompt.max_new_tokens for row in rows)
        self.pads = [self.columns - len(row.tokens) for row in rows]
        self.begun: Beginning | None = before.begun if before else None
        if not self._known(0):
            self.begun = None  # its memory is free from here on
        parts = pieces(self.columns, self.columns - 1, engine.chunk)
        self.cache = engine.cache(self.columns + new, len(rows), len(list(parts)) > 1)

    def run(self) -> Iterator[list[int]]:
        """Read all prompts, then generate step by step until every row is done."""
        logits = self.read()
        while True:
            chosen = self._take(logits)
            if all(row.is_done for row in self.rows):
                break
            logits = self.step(chosen)
        yield from (row.new for row in self.rows)

    def read(self) -> Tensor:
        """Read all prompts; return the logits of their last tokens [rows, vocabulary]."""
        logits = torch.stack([self._read(index) for index in range(len(self.rows))])
        for index, pad in enumerate(self.pads):
            self.cache.blank(index, pad)
        self.cache.open(slice(0, len(self.rows)), 0, self.columns)
        return logits

    def _known(self, index: int) -> int:
        """Tokens at the start of a prompt that have been read: states are those behind all."""
        if self.begun is None:
            return 0
        known = known_of(self.engine, self.rows[index].tokens, self.begun.tokens)
        is_part = bool(self.begun.states) and known < len(self.begun.tokens)
        return 0 if is_part else known

    def _read(self, index: int) -> Tensor:
        """Read one prompt; return the logits of its last token [vocabulary]."""
        tokens, place = self.rows[index].tokens, (index, self.pads[index])
        known, states = self._known(index), dict[int, Any]()
        if self.begun and known:
            self.cache.copy(*place, self.begun.cache, self.begun.place, known)
            states = self.begun.states
            self.cache.go_on_from(states)
        else:
            self.cache.open(slice(index, index + 1), place[1])
        shared = tokens
        if self.engine.keeps_states:
            mark = known or beginning(
                self.engine, self.rows[index], [*self.rows[index + 1 :], *self.after]
            )
            if known < mark:
                self._forward(tokens[:mark])
                states, known = self.cache.states(), mark
            shared = tokens[:mark]
        if shared:
            self.begun = Beginning(shared, self.cache, place, states)
        return self._forward(tokens[known:])

    def _forward(self, tokens: Tokens) -> Tensor:
        """Read some tokens; return the logits of the last [vocabulary]."""
        for start, end in pieces(len(tokens), len(tokens) - 1, self.engine.chunk):
            logits = self.engine.forward(tokens[start:end], 1, self.cache)
        return logits[-1]

    def _take(self, logits: Tensor) -> Tensor:
        """Choose the likeliest token of each row [rows] by the logits [rows, vocabulary]."""
        for row, scores in zip(self.rows, logits, strict=True):
            row.bar(scores, self.engine.end_ids)
        best, chosen = logits.float().max(dim=-1)
        for row, finite, token in zip(
            self.rows, torch.isfinite(best).tolist(), chosen.tolist(), strict=True
        ):
            if not finite and not row.is_done:
                position = len(row.tokens) + len(row.new)
                raise NonFinite(f"logits are not finite at generated position {position}")
            row.take(token, self.engine.end_ids)
        return chosen

    def step(self, chosen: Tensor) -> Tensor:
        """Read the tokens chosen [rows], or [1] for all; return the logits [rows, vocabulary]."""
        device = self.engine.device
        self.engine.tokens_read += sum(not row.is_done for row in self.rows)
        output = self.engine.model(
            input_ids=chosen[:, None].expand(len(self.rows), 1).to(device),
            logits_to_keep=1,
            **cached(self.engine.model, self.cache),
            **padded(self.pads, self.columns, device),
        )
        self.columns += 1
        logits: Tensor = output.logits[:, -1]
        return logits


def known_of(engine: Engine, tokens: Tokens, other: Tokens) -> int:
    """Tokens at the start of a prompt that another has too, where it saves work to copy them.

    What stands behind others is read with a mask, and not as a causal square of half the work, so
    they must be half of the prompt. Its last token is read in any case.
    """
    if engine.faults.pieces:
        return 0
    pairs = enumerate(zip(tokens[:-1], other, strict=False))
    different = next((index for index, (a, b) in pairs if a != b), None)
    same = min(len(tokens) - 1, len(other)) if different is None else different
    return same if 2 * same >= len(tokens) else 0


def beginning(engine: Engine, row: Row, after: Sequence[Row]) -> int:
    """Tokens at the start of a prompt that all of those after it have too, up to one that has not.

    States are those behind all tokens, and no part of them is that behind some, so that they are
    kept at one place.
    """
    shared = 0
    for other in after:
        known = known_of(engine, other.tokens, row.tokens)
        if not known:
            break
        shared = min(shared or known, known, len(row.tokens) - 1)
    return shared
