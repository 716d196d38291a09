"""How a cell is run again: its command line, and the signature that its numbers are quoted with."""

import shlex

from harness.lengths import render_length
from harness.results import Record, Row

__all__ = ["command_of", "signature_of"]

DEFAULT_DATA = ("", "pydoc")


def command_of(record: Record) -> str:
    """The command line that measures a cell anew."""
    row, key = record.rows[0], record.key
    options: dict[str, object] = {
        "--model": row.model,
        "--patch": row.patch,
        "--task": row.task,
        "--len": render_length(row.context_length),
        "--n": key.get("n", row.n),
        "--seed": row.seed,
        "--dtype": row.dtype,
        "--device": key.get("device", "auto"),
        "--trained-length": render_length(row.trained_length),
    }
    source = row.data.partition("; ")[0]
    more = {
        "--data": None if source in DEFAULT_DATA else source,
        "--chunk": row.chunk,
        "--batch": row.batch if row.batch > 1 else None,
    }
    options |= {name: value for name, value in more.items() if value is not None}
    words = (f"{name} {shlex.quote(str(value))}" for name, value in options.items())
    return f"python -m harness {' '.join(words)}"


def signature_of(row: Row) -> str:
    """All that a value depends on, in one line, as sacrebleu has it."""
    parts = {
        "model": f"{row.model}@{row.weights}",
        "tok": row.tokenizer,
        "patch": row.patch,
        "task": row.task,
        "len": row.context_length,
        "trained": row.trained_length,
        "n": row.n,
        "seed": row.seed,
        "data": f"{row.data}@{row.data_digest}",
        "dtype": row.dtype,
        "attn": row.attention,
        "chunk": row.chunk or "all",
        "batch": row.batch,
        "device": row.device,
        "versions": row.versions,
        "code": row.code,
        "cell": row.cell,
    }
    return "|".join(f"{name}:{value}" for name, value in parts.items())
