"""Where a model's attention goes under some patches, by layer: one document, tables and CSV."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import torch

import patches
from harness.checkpoint import Checkpoint, open_causal
from harness.engine import Engine
from harness.errors import HarnessError, Unavailable
from harness.generate import Prompt, generate
from harness.lengths import render_length
from harness.memory import fitting
from harness.plan import resolve_device
from harness.results import utf8
from patches.apply import apply, watched
from patches.base import Patch
from patches.shares import Shares
from tasks import TaskError
from tasks.corpus import Corpus, load
from tasks.fit import encode, prefix

__all__ = ["LayerRow", "Reading", "means", "read_shares", "render_shares", "render_shares_csv"]

QUERIES = 256  # newest positions that the means are over


@dataclass(frozen=True)
class Reading:
    """What `show attention` asks for.

    Attributes:
        model: name of a model.
        patches: specs.
        length: tokens of the document to read, BOS included.
        sinks: number of first tokens that are counted together.
        window: newest keys, counting the current token; None for min(trained length, length / 4).
        data: where the document is; None for the default corpus.
        dtype: name of a torch dtype, or auto.
        device: name of a torch device, or auto.
        chunk: tokens a forward; None for one forward.
        trained_length: tokens the model was trained at; None for what its config says.
    """

    model: str
    patches: tuple[str, ...]
    length: int
    sinks: int
    window: int | None
    data: str | None
    dtype: str
    device: str
    chunk: int | None
    trained_length: int | None


@dataclass(frozen=True)
class LayerRow:
    """One layer under one patch; the field order is the header of the CSV.

    sinks_share + far_share + window_share = 1, means over heads and over the newest `queries`
    positions; first_share is a part of sinks_share.
    """

    model: str
    patch: str
    layer: int
    first_share: float
    sinks_share: float
    far_share: float
    window_share: float
    context_length: int
    trained_length: int
    sinks: int
    window: int
    queries: int
    dtype: str
    attention: str
    chunk: int | None
    data: str
    data_digest: str
    weights: str
    tokenizer: str


def read_shares(reading: Reading) -> list[list[LayerRow]]:
    """Read the document under each patch; a list of rows a patch, a row a layer.

    Raises:
        PatchError: a patch or model that does not go.
        HarnessError: a window that the length does not leave, or a patch that reads less of it.
        TaskError: a document too short.
        Unavailable: a model or the data is not there.
        NonFinite: the model gives no numbers.
        DoesNotFit: memory runs out.
    """
    chosen = [patches.parse(spec) for spec in reading.patches]
    for patch in chosen:
        if patch.keep:
            raise HarnessError(
                f"'{patch}' does not read all of the document; leave it out and give a lower --len"
            )
        if patch.decoding:
            raise HarnessError(
                f"'{patch}' chooses between several readings and this is one; leave it out"
            )
    device = resolve_device(reading.device)
    corpus = _corpus(reading.data)
    checkpoint = open_causal(reading.model)
    document = _Document(reading, device, checkpoint, corpus)
    tokens = document.tokens()
    print(f"device: {device}", file=sys.stderr)
    model = checkpoint.load(checkpoint.dtype(reading.dtype, device), device)
    with fitting(reading.length):
        return [list(document.rows(model, tokens, patch)) for patch in chosen]


def _corpus(data: str | None) -> Corpus:
    try:
        return load(data, 1)
    except TaskError as error:
        raise Unavailable(str(error)) from None


@dataclass(frozen=True)
class _Document:
    """The document and what it is read with."""

    reading: Reading
    device: torch.device
    checkpoint: Checkpoint
    corpus: Corpus

    @property
    def trained_length(self) -> int:
        return self.reading.trained_length or self.checkpoint.original_max_position_embeddings

    @property
    def window(self) -> int:
        return self.reading.window or max(1, min(self.trained_length, self.reading.length // 4))

    def tokens(self) -> list[int]:
        """The first tokens of the document, BOS included.

        Raises:
            HarnessError: no position sees anything beyond the window and the first tokens.
            TaskError: the document is too short.
        """
        length, sinks = self.reading.length, self.reading.sinks
        if length <= self.window + sinks:
            raise HarnessError(
                f"--len {length}: nothing lies between a window of {self.window} and {sinks} first "
                f"tokens; raise --len to more than {self.window + sinks} or lower --window"
            )
        bos = prefix(self.checkpoint.tokenizer)
        need = length - len(bos)
        document = self.corpus.documents[0]
        text = encode(document, self.checkpoint.tokenizer, need, f"a length of {length}")
        return [*bos, *text[:need]]

    def rows(self, model: Any, tokens: Sequence[int], patch: Patch) -> Iterator[LayerRow]:
        """Read the document under a patch; one row a layer."""
        reading, checkpoint = self.reading, self.checkpoint
        queries = min(QUERIES, len(tokens) - self.window - reading.sinks)
        shares = Shares(reading.sinks, self.window, len(tokens) - queries)
        engine = Engine(model, reading.chunk, self.device, checkpoint.tokenizer.bos_id)
        engine.measure()
        with apply(model, patch, len(tokens), self.trained_length) as applied:
            for note in applied.notes:
                print(note, file=sys.stderr)
            with watched(model, applied, shares.watch):
                list(generate(engine, [Prompt(tokens, 1)]))
        found = shares.means()
        if not found:
            raise HarnessError(
                f"--model {checkpoint.name}: its layers do not call the attention interface of "
                "transformers; not supported here"
            )
        for share in found:
            yield LayerRow(
                model=checkpoint.name,
                patch=str(patch),
                layer=share.layer,
                first_share=share.first,
                sinks_share=share.sinks,
                far_share=share.far,
                window_share=share.window,
                context_length=len(tokens),
                trained_length=self.trained_length,
                sinks=reading.sinks,
                window=self.window,
                queries=queries,
                dtype=str(model.dtype).removeprefix("torch."),
                attention=applied.attention,
                chunk=reading.chunk,
                data=self.corpus.name,
                data_digest=self.corpus.digest,
                weights=checkpoint.weights,
                tokenizer=checkpoint.tokenizer.digest,
            )


def means(rows: Sequence[LayerRow]) -> list[float]:
    """Shares of the first token, the first ones, the far ones and the window, over all layers."""
    columns = zip(*map(_shares, rows), strict=True)
    return [sum(column) / len(rows) for column in columns]


def render_shares(rows: Sequence[LayerRow]) -> str:
    """The table of one patch: percent by layer, and their means."""
    one = rows[0]
    head = (
        f"{one.model}  {one.patch}  {render_length(one.context_length)} of {one.data}  trained at "
        f"{one.trained_length}  {one.dtype}  [mean over heads and the newest {one.queries} queries]"
    )
    table: list[tuple[str, ...]] = [
        ("layer", "first token", f"first {one.sinks}", "far", f"newest {one.window}")
    ]
    for name, shares in [*((row.layer, _shares(row)) for row in rows), ("mean", means(rows))]:
        table.append((str(name), *(f"{100 * share:.1f} %" for share in shares)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    ]
    return "\n".join([head, "", *lines])


def render_shares_csv(rows: Iterable[LayerRow]) -> bytes:
    """All rows as CSV, in order; LF ends lines."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(LayerRow))
    writer.writerows(map(astuple, rows))
    return utf8(out.getvalue())


def _shares(row: LayerRow) -> tuple[float, ...]:
    return row.first_share, row.sinks_share, row.far_share, row.window_share
