"""`Row`, the one schema; its line in a journal, with a checksum; CSV tables derived from it."""

import csv
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import ResultsError

__all__ = [
    "FAILED",
    "Record",
    "Row",
    "cell_id",
    "csv_cell",
    "decode",
    "encode",
    "is_whole",
    "render_csv",
    "rows_of",
    "sync_directory",
    "utf8",
    "write_atomically",
]

SCHEMA = 1
FAILED = ("oom", "killed", "timeout", "nan", "error")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
Scores = dict[str, Any]  # a sample: see harness.measure; scores are [[metric, position, stats], …]


@dataclass(frozen=True)
class Row:
    """One metric of one cell; the field order is the header of every CSV table.

    `cell` is the digest of all settings that the value depends on. `peak_memory_gib` is allocated
    memory on CUDA and the resident size of the process on CPU, in GiB. Failed cells have one row:
    `status` is one of FAILED, no metric, and the reason in `error`. The peak of a cell whose
    process ended is the last that was seen on CPU, and 0 on CUDA. `n_cut` counts the prompts that
    lost a part because they were longer than the context length.

    `seconds` are those of the cell with its model loaded: patch put on, inputs read, answers
    generated, all scored. `tokens_per_second` divides by them the tokens that went through the
    model: of an input what the patch reads of it, a beginning shared with the sample before once,
    every reading where a method takes several, and the answers but for their last tokens.
    `seconds_per_sample` divides them by the samples. Both are missing where a cell failed.
    """

    model: str
    patch: str
    task: str
    context_length: int
    metric: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    status: str
    seed: int
    dtype: str
    attention: str
    seconds: float
    peak_memory_gib: float
    position: str
    better: str
    weights: str
    tokenizer: str
    data: str
    data_digest: str
    trained_length: int
    chunk: int | None
    n_scored_tokens: int
    metric_detail: str
    error: str
    device: str
    versions: str
    code: str
    cell: str
    batch: int = 1
    n_cut: int = 0
    tokens_per_second: float | None = None
    seconds_per_sample: float | None = None


@dataclass(frozen=True)
class Record:
    """One finished cell: its key, its rows, and what each sample scored, for paired differences."""

    key: dict[str, Any]
    rows: tuple[Row, ...]
    samples: tuple[Scores, ...]

    @property
    def status(self) -> str:
        """ok, or one of FAILED."""
        return self.rows[0].status


def cell_id(key: dict[str, Any]) -> str:
    """sha256 of the canonical form of a cell's settings, 16 hex digits."""
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def utf8(text: str) -> bytes:
    """UTF-8; bytes of file names that are none are escaped, so that JSON gives them back."""
    return text.encode(errors="backslashreplace")


def encode(body: dict[str, Any]) -> bytes:
    """A line of a journal: `crc32 json`."""
    body = {"schema": SCHEMA, **body}
    text = utf8(json.dumps(body, ensure_ascii=False, separators=(",", ":")))
    return b"%08x %s\n" % (zlib.crc32(text), text)


def is_whole(line: bytes) -> bool:
    """Whether a line without its end matches its checksum."""
    checksum, _, text = line.partition(b" ")
    return checksum == b"%08x" % zlib.crc32(text)


def decode(line: bytes, where: str) -> Record | None:
    """Read a line of a journal; None for one that describes a run.

    Raises:
        ResultsError: the line was altered, or written by another version.
    """
    if not is_whole(line):
        raise ResultsError(
            f"{where}: the line does not match its checksum; restore the file from a copy, or "
            "delete that line, and its cell is measured again"
        )
    body: Any = {}
    try:
        body = json.loads(line[9:])
        if body["schema"] != SCHEMA:
            raise KeyError("schema")
        if "run" in body:
            return None
        record = Record(body["key"], tuple(Row(**row) for row in body["rows"]), (*body["samples"],))
        names = {row.cell for row in record.rows}
        if names != {cell_id(record.key)}:  # files are called by it
            raise ValueError(f"cell {', '.join(names)}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        schema = body.get("schema") if isinstance(body, dict) else None
        what = f"schema {schema}" if schema != SCHEMA else f"{error}"[:80]
        raise ResultsError(
            f"{where}: written by another version ({what}; this one reads schema {SCHEMA}); use "
            "that version or choose another --out"
        ) from None
    return record


def csv_cell(value: object) -> str:
    """Text of a CSV cell; one that a spreadsheet would take for a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text


def render_csv(rows: Iterable[Row]) -> bytes:
    """Write rows as CSV: the same rows in any order give the same bytes.

    Sorted by the columns from left to right, floats by `repr`, LF ends lines.
    """
    header = [field.name for field in fields(Row)]
    table = sorted(rows, key=_order)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([csv_cell(getattr(row, name)) for name in header] for row in table)
    return utf8(out.getvalue())


def _order(row: Row) -> tuple[Any, ...]:
    first, _, last = row.position.partition(":")
    position = (int(first), int(last)) if first.isdigit() and last.isdigit() else (-1, -1)
    setting = (row.model, row.task, row.data, row.context_length, row.patch, row.metric)
    return (*setting, *position, row.position, row.cell)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader sees the old or the new content, never a part.

    Raises:
        ResultsError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise ResultsError(
            f"{path}: cannot be written ({error.strerror}); finished cells are in the journal, "
            "run the same command again"
        ) from None


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rows_of(records: Sequence[Record]) -> list[Row]:
    """All rows of some cells."""
    return [row for record in records for row in record.rows]
