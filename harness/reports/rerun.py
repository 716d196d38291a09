"""How a cell is run again: its command line, and the signature that its numbers are quoted with."""

import shlex
from collections.abc import Iterable

from harness.lengths import render_length
from harness.results import Record, Row

__all__ = ["WIDTH", "command_of", "signature_of", "signature_of_table"]

WIDTH = 100  # characters that a line of a table may have
DEFAULT_DATA = ("", "pydoc")
IN_TABLE = ("patch", "len", "cell")


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
    return _joined(_parts(row))


def signature_of_table(rows: Iterable[Row], before: str = "") -> str:
    """What the cells of a table have in common, with the values by comma where they differ.

    Patch and length, which stand in the table, and the names of single cells are left out. It is
    broken before a `|` where it would be longer than WIDTH, and ends its line. `before` is put in
    front of it.
    """
    shared: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in _parts(row).items():
            if name not in IN_TABLE:
                shared.setdefault(name, {})[value] = None
    lines = [before]
    for index, (name, values) in enumerate(shared.items()):
        part = f"{'|' if index else ''}{name}:{','.join(values)}"
        if lines[-1] != before and len(lines[-1]) + len(part) > WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines) + "\n"


def _parts(row: Row) -> dict[str, str]:
    parts = {
        "version": row.code or "?",
        "model": f"{row.model}@{row.weights}",
        "tok": row.tokenizer,
        "patch": row.patch,
        "task": row.task,
        "len": row.context_length,
        "trained": row.trained_length,
        "n": row.n,
        "seed": row.seed,
        "data": f"{row.data}@{row.data_digest}" if row.data else "built-in",
        "dtype": row.dtype,
        "attn": row.attention,
        "chunk": row.chunk or "all",
        "batch": row.batch,
        "device": row.device,
        **_versions(row),
        "cell": row.cell,
    }
    return {name: str(value) for name, value in parts.items()}


def _versions(row: Row) -> dict[str, str]:
    """`torch 2.13 python 3.11` by name."""
    words = row.versions.split()
    return dict(zip(words[::2], words[1::2], strict=False))


def _joined(parts: dict[str, str]) -> str:
    return "|".join(f"{name}:{value}" for name, value in parts.items())
