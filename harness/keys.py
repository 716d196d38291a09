"""Key tokens of documents, found with a model: those that need the long context (LongPPL)."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from harness.engine import Engine
from harness.errors import HarnessError
from harness.memory import fitting
from harness.plan import Cell, Request, plan
from harness.results import utf8, write_atomically
from patches.apply import apply
from tasks.base import Document, Output
from tasks.corpus import load
from tasks.longppl import found_keys, intervals

__all__ = ["write_keys"]


def write_keys(request: Request, device: torch.device, out: Path) -> None:
    """Write the documents with the character intervals of their key tokens, as JSON lines.

    Args:
        request: one model, one patch, one task with a long and a short context, one length.
        device: where the model runs.
        out: file of one object a document, with id, text and keys; --data takes it.

    Raises:
        HarnessError: documents that have keys already, no key token in any document.
        PatchError: a patch or model that does not go.
        TaskError: a document too short.
        Unavailable: a model or the data is not there.
        NonFinite: the model gives no numbers.
        DoesNotFit: memory runs out.
        ResultsError: the file cannot be written.
    """
    (cell,) = plan(request, device)
    documents = load(request.data, request.n).documents
    if any(document.keys is not None for document in documents):
        raise HarnessError(f"--data {request.data}: has keys already; give documents without")
    print(f"device: {device}", file=sys.stderr)
    with fitting(cell.template.context_length):
        marked = _marked(cell, documents, device)
    if not any(document.keys for document in marked):
        raise HarnessError(
            f"no key token in {len(marked)} documents of {cell.template.context_length} tokens; "
            "give a longer --len, other documents or another model"
        )
    lines = (
        json.dumps({"id": one.id, "text": one.text, "keys": one.keys}, ensure_ascii=False) + "\n"
        for one in marked
    )
    write_atomically(out, utf8("".join(lines)))


def _marked(cell: Cell, documents: tuple[Document, ...], device: torch.device) -> list[Document]:
    checkpoint, row = cell.checkpoint, cell.template
    bos = 0 if checkpoint.tokenizer.bos_id is None else 1
    model = checkpoint.load(getattr(torch, row.dtype), device)
    engine = Engine(model, row.chunk, device, checkpoint.tokenizer.bos_id)
    engine.measure()
    marked = []
    with apply(model, cell.patch, row.context_length, row.trained_length) as applied:
        for document, sample in zip(documents, cell.samples, strict=True):
            spans = checkpoint.tokenizer.offsets(document.text)
            pairs = [
                engine.score(one.tokens, one.score_from, applied.keep) for one in sample.passes
            ]
            nll, hits = zip(*pairs, strict=True)
            keys = found_keys(sample, Output(nll, hits))
            marked.append(replace(document, keys=intervals(spans[key - bos] for key in keys)))
            print(
                f"{document.id}: {len(keys)} of {row.context_length - sample.score_from} tokens",
                file=sys.stderr,
            )
    return marked
