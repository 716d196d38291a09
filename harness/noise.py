"""`doctor --noise`: how far the loss of the same tokens moves where only the arithmetic differs."""

from collections.abc import Iterator

import numpy as np
import torch

from harness.checkpoint import open_causal
from harness.engine import Engine
from harness.errors import HarnessError
from harness.lengths import render_length
from harness.memory import fitting, free
from harness.reports.report import aligned
from patches.apply import apply
from patches.base import Band, Patch
from tasks.corpus import load

__all__ = ["render_noise"]

AT_ONCE = "at once"
PARTS = 4  # chunks that the input is read in
DTYPES = (torch.float32, torch.bfloat16)
HOOKED = Patch(bands=lambda extent: (Band(),))  # blockwise attention that computes the usual


def render_noise(name: str, length: int | None, device: torch.device) -> str:
    """A line a way of reading: how far it is from reading at once, and bfloat16 from float32.

    One document of the default corpus is read, and its second half scored.

    Args:
        name: of a causal model.
        length: tokens to read; the trained length if None.
        device: where the model runs.

    Raises:
        HarnessError: a model of another kind, or a document too short.
        Unavailable: the model is not there, or damaged.
        DoesNotFit: memory runs out.
    """
    checkpoint = open_causal(name)
    length = length or checkpoint.original_max_position_embeddings
    tokenizer = checkpoint.tokenizer
    before = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    text = tokenizer.encode(load(None, 1).documents[0].text)
    if len(before) + len(text) < length or length < 2 * PARTS:
        raise HarnessError(
            f"--len {length}: expected {2 * PARTS} to {len(before) + len(text)} tokens, which the "
            "default corpus has"
        )
    tokens = [*before, *text[: length - len(before)]]
    nll: dict[str, dict[str, np.ndarray]] = {}
    with fitting(length):
        for dtype in DTYPES:
            engine = Engine(checkpoint.load(dtype, device), None, device, tokenizer.bos_id)
            nll[str(dtype).removeprefix("torch.")] = dict(_readings(engine, tokens))
            del engine
            free(device)
    head = (
        f"nll of {length - length // 2} tokens at {render_length(length)} of {name} on {device}: "
        "absolute differences to the same at once, nats\n\n"
    )
    return head + _table(nll)


def _table(nll: dict[str, dict[str, np.ndarray]]) -> str:
    """Differences within each dtype, then between them, and the largest of the mean."""
    table = [["", "largest of a token", "mean of tokens", "of their mean"]]
    worst: dict[str, float] = {}

    def add(what: str, name: str, apart: np.ndarray) -> None:
        sizes = (np.abs(apart).max(), np.abs(apart).mean(), abs(apart.mean()))
        table.append([name, *(f"{size:.1e}" for size in sizes)])
        worst[what] = max(worst.get(what, 0.0), float(sizes[2]))

    for dtype, readings in nll.items():
        for way in [*readings][1:]:
            add(f"within {dtype}", f"{dtype}, {way}", readings[way] - readings[AT_ONCE])
    first, second = nll
    add(
        f"between {first} and {second}",
        f"{second} to {first}",
        nll[second][AT_ONCE] - nll[first][AT_ONCE],
    )
    noise = "\n".join(f"    {size:.1e} {what}" for what, size in worst.items())
    return f"{aligned(table)}\nnoise of the mean, for compare A B --noise X:\n{noise}"


def _readings(engine: Engine, tokens: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """The same tokens at once, in chunks, and through the hook."""
    length, start = len(tokens), len(tokens) // 2
    for way, chunk, patch in (
        (AT_ONCE, None, Patch()),
        (f"chunks of {length // PARTS}", length // PARTS, Patch()),
        ("blockwise attention", None, HOOKED),
    ):
        engine.chunk = chunk
        with apply(engine.model, patch, length):
            yield way, engine.score(tokens, start)[0]
