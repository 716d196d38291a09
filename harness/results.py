"""`Row`, the one schema; the journal that survives kill -9; CSV tables derived from it."""

import csv
import fcntl
import hashlib
import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import ResultsError

__all__ = [
    "Journal",
    "Record",
    "Row",
    "cell_id",
    "csv_cell",
    "read_journal",
    "render_csv",
    "rows_of",
    "write_atomically",
]

SCHEMA = 1
JOURNAL = "journal.jsonl"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
Scores = dict[
    str, Any
]  # one sample: id, document, tokens, depth, text, scores = [[metric, position, stats], …]


@dataclass(frozen=True)
class Row:
    """One metric of one cell; the field order is the header of every CSV table.

    `cell` is the digest of all settings that the value depends on. `peak_memory_gib` is allocated
    memory on CUDA and the resident size of the process on CPU, in GiB. Failed cells have one row:
    `status` oom, nan or error, no metric, and the reason in `error`. `n_cut` counts the prompts
    that lost a part because they were longer than the context length.
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


@dataclass(frozen=True)
class Record:
    """One finished cell: its key, its rows, and what each sample scored, for paired differences."""

    key: dict[str, Any]
    rows: tuple[Row, ...]
    samples: tuple[Scores, ...]

    @property
    def status(self) -> str:
        """ok, oom, nan or error."""
        return self.rows[0].status


def cell_id(key: dict[str, Any]) -> str:
    """sha256 of the canonical form of a cell's settings, 16 hex digits."""
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _encode(record: Record) -> bytes:
    body = {"schema": SCHEMA, **asdict(record)}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes, where: str) -> Record:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise ResultsError(
            f"{where}: the line does not match its checksum; restore the file from a copy, or "
            "choose another --out"
        )
    body = json.loads(text)
    if body["schema"] != SCHEMA:
        raise ResultsError(
            f"{where}: written by another version (schema {body['schema']}, this one reads "
            f"{SCHEMA}); use that version or choose another --out"
        )
    rows = tuple(Row(**row) for row in body["rows"])
    return Record(body["key"], rows, tuple(body["samples"]))


def _parse(content: bytes, path: Path) -> tuple[dict[str, Record], int]:
    """Return the records by cell, the newest of each, and how many bytes are whole lines."""
    whole = content.rfind(b"\n") + 1
    records: dict[str, Record] = {}
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        record = _decode(line, f"{path}:{number}")
        records[cell_id(record.key)] = record
    return records, whole


def read_journal(directory: Path) -> list[Record]:
    """Read all finished cells of a directory; a torn last line is left out.

    Raises:
        ResultsError: no journal there, or a line that does not match its checksum.
    """
    path = directory / JOURNAL
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultsError(
            f"{path}: cannot be read ({error.strerror}); expected the --out of a run"
        ) from None
    return list(_parse(content, path)[0].values())


class Journal:
    """Append-only store of finished cells, locked while open.

    A line is `crc32 json`, written by one `write` and synced before the cell counts as finished.
    """

    def __init__(self, directory: Path) -> None:
        """Open or create the journal of a directory, waiting for another run to leave it.

        Raises:
            ResultsError: the directory cannot be written, or its journal is corrupt.
        """
        self.path = directory / JOURNAL
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._lock()
            sync_directory(directory)
            content = self.path.read_bytes()
        except OSError as error:
            raise ResultsError(
                f"--out {directory}: cannot be written ({error.strerror}); give another directory"
            ) from None
        try:
            self.records, self._size = _parse(content, self.path)
            self.torn = len(content) - self._size
            if self.torn:
                os.ftruncate(self._file, self._size)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file, which also unlocks it."""
        os.close(self._file)

    def append(self, record: Record) -> None:
        """Store a finished cell for good.

        Raises:
            ResultsError: the line was not written as a whole; what was is taken off again.
        """
        line = _encode(record)
        try:
            written = os.write(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            self._undo(error.strerror or type(error).__name__)
        if written != len(line):
            self._undo(f"{written} of {len(line)} bytes written")
        self._size += len(line)
        self.records[cell_id(record.key)] = record

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another run writes to {self.path}", file=sys.stderr, flush=True)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def _undo(self, reason: str) -> None:
        os.ftruncate(self._file, self._size)
        raise ResultsError(
            f"{self.path}: cannot be written ({reason}); finished cells are safe, make room and "
            "run the same command again"
        ) from None


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
    return out.getvalue().encode()


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
