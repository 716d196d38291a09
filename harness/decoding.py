"""Answers that several readings of one prompt choose together, token by token."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from harness.engine import Engine, pieces
from harness.errors import HarnessError, NonFinite
from harness.generate import Batch, Prompt, Row
from patches.base import Patch, PatchError
from patches.decoding import Decoding
from tasks.base import Sample, Task

__all__ = ["check_decoding", "cuts_middle", "decode", "reader", "unbatched"]

Reading = Callable[[], AbstractContextManager[None]]


def check_decoding(patch: Patch, task: Task, samples: Sequence[Sample], trained: int) -> None:
    """Refuse a patch that chooses tokens, or cuts prompts, on a task that it cannot act on.

    Raises:
        HarnessError: the task scores given tokens, or its prompts have no separable contexts.
        PatchError: the contexts are fewer than the windows asked for.
    """
    decoding, both = patch.decoding, f"--patch {patch} --task {task.spec}"
    if patch.cuts_middle and any(sample.passes for sample in samples):
        raise HarnessError(
            f"{both}: the task scores given tokens, and what they follow is cut at its beginning; "
            "leave cut=middle out"
        )
    if decoding is None:
        return
    for sample in samples:
        if not sample.max_new_tokens or sample.passes:
            raise HarnessError(
                f"{both}: the patch chooses generated tokens and the task scores given ones; leave "
                "one of them out"
            )
        if decoding.windows is None:
            continue
        if not sample.borders:
            raise HarnessError(
                f"{both}: the patch reads contexts apart and the task has none to separate in "
                f"sample '{sample.id}'; leave one of them out"
            )
        try:
            prompt = Prompt(sample.prompt, sample.max_new_tokens, None, sample.borders)
            windows_of(prompt, decoding, trained)
        except PatchError as error:
            raise PatchError(f"{both}: {error}") from None


def cuts_middle(patch: Patch, samples: Sequence[Sample]) -> bool:
    """Whether prompts too long for the patch lose their middle, and not their beginning."""
    if patch.cuts_middle is None:
        return not any(sample.passes for sample in samples)
    return patch.cuts_middle


def unbatched(patches: Sequence[Patch], batch: int) -> list[str]:
    """A line if answers of some patches are not generated together although that is asked for."""
    names = list(dict.fromkeys(str(patch) for patch in patches if patch.decoding is not None))
    if batch == 1 or not names:
        return []
    return [f"--batch {batch} does not act on {', '.join(names)}: answers are generated singly"]


@torch.inference_mode()
def decode(
    engine: Engine,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    trained: int,
    readings: Sequence[Reading] = (),
) -> Iterator[list[int]]:
    """Continue prompts greedily, one after the other; yield the generated tokens of each.

    Args:
        engine: the model.
        prompts: what to continue; they end as in `generate`.
        decoding: how the readings of a prompt choose a token.
        trained: tokens the model was trained at.
        readings: contexts that each read the whole prompt, as `patches.apply` gives them.

    Raises:
        NonFinite: a logit is not a number, or infinite where the largest is looked for.
    """
    for prompt in prompts:
        row, memory = Row(prompt, prompt.tokens), None
        batches = [
            (reading, reader(engine, prompt, decoding, trained))
            for reading in readings or (nullcontext,)
        ]
        chosen = None
        while not row.is_done:
            logits = torch.cat([_logits(*one, chosen) for one in batches])
            given = _finite(logits, row)
            given = given if decoding.takes_logits else given.log_softmax(dim=-1)
            scores, memory = decoding.combine(given, memory)
            row.bar(scores, engine.end_ids)
            chosen = scores.argmax()[None]
            row.take(int(chosen), engine.end_ids)
        yield row.new


def reader(
    engine: Engine, prompt: Prompt, decoding: Decoding, trained: int
) -> "Batch | _SideBySide":
    """What reads a prompt the way that a method asks for."""
    if decoding.windows is None:
        return Batch(engine, [Row(prompt, prompt.tokens)])
    in_one_row = decoding.question_position is not None
    if engine.keeps_states and (in_one_row or not engine.reads_together):
        raise HarnessError(
            f"{engine.model.config.model_type} keeps states, not keys alone, so that contexts "
            "cannot be read apart; choose another patch"
        )
    if not engine.reads_together:
        raise HarnessError(
            f"{engine.model.config.model_type} takes a token's column for its position, so that "
            "contexts read apart cannot go on together; choose another patch"
        )
    borders = windows_of(prompt, decoding, trained)
    if decoding.question_position is None:
        return Batch(engine, list(_apart(prompt, borders)))
    lengths = [stop - start for start, stop in itertools.pairwise(borders)]
    return _SideBySide(engine, prompt, borders, decoding.question_position(borders[0], lengths))


class _SideBySide:
    """Windows that are read apart, then stand in one row of keys before the question."""

    def __init__(
        self, engine: Engine, prompt: Prompt, borders: Sequence[int], position: int
    ) -> None:
        """Make room; `position` is that of the question's first token."""
        self.engine = engine
        self.prompt = prompt
        self.borders = borders
        self.position = position
        self.cache = engine.cache(len(prompt.tokens) + prompt.max_new_tokens, in_pieces=True)

    def read(self) -> Tensor:
        """Read the prompt; return the logits of its last token [1, vocabulary]."""
        tokens, head, last = self.prompt.tokens, self.borders[0], self.borders[-1]
        most = max(stop - start for start, stop in itertools.pairwise(self.borders))
        one = self.engine.cache(head + most)  # what a window sees: the head and itself
        for start, stop in itertools.pairwise(self.borders):
            begin, known = (0, 0) if start == head else (start, head)
            one.open(slice(0, 1), 0, known)
            for first, end in pieces(stop - begin, stop - begin - 1, self.engine.chunk):
                self.engine.forward(tokens[begin + first : begin + end], 1, one)
            self.cache.copy(0, begin, one, (0, known), stop - begin)
        self.cache.open(slice(0, 1), 0, last)
        for first, end in pieces(len(tokens) - last, len(tokens) - last - 1, self.engine.chunk):
            logits = self._forward(tokens[last + first : last + end])
        return logits

    def step(self, chosen: Tensor) -> Tensor:
        """Read the token chosen [1]; return the logits [1, vocabulary]."""
        return self._forward(chosen.tolist())

    def _forward(self, tokens: Sequence[int]) -> Tensor:
        logits = self.engine.forward(tokens, 1, self.cache, self.position)
        self.position += len(tokens)
        return logits


def _logits(reading: Reading, batch: "Batch | _SideBySide", chosen: Tensor | None) -> Tensor:
    """Logits behind the prompt, or behind the token chosen last [rows, vocabulary]."""
    with reading():
        return batch.read() if chosen is None else batch.step(chosen)


def windows_of(prompt: Prompt, decoding: Decoding, trained: int) -> Sequence[int]:
    """Borders of the windows of a prompt."""
    first, last = prompt.borders[0], prompt.borders[-1]
    most = trained - first - (len(prompt.tokens) - last) - prompt.max_new_tokens
    return decoding.windows(prompt.borders, most) if decoding.windows else ()


def _apart(prompt: Prompt, borders: Sequence[int]) -> Iterator[Row]:
    """Head and question without a context, then with each window between them."""
    head, question = prompt.tokens[: borders[0]], prompt.tokens[borders[-1] :]
    for start, stop in [(0, 0), *itertools.pairwise(borders)]:
        yield Row(prompt, [*head, *prompt.tokens[start:stop], *question])


def _finite(logits: Tensor, row: Row) -> Tensor:
    """Logits in float32 [readings, vocabulary], checked."""
    if not torch.isfinite(logits.amax(dim=-1)).all():
        position = len(row.tokens) + len(row.new)
        raise NonFinite(f"logits are not finite at generated position {position}")
    return logits.float()
