"""The run directory: append-only journals, one a process, and locks on the cells under way."""

import fcntl
import os
import platform
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import ResultsError
from harness.results import Record, cell_id, decode, encode, is_whole, sync_directory

__all__ = ["Journal", "Stored", "open_stored", "read_journal"]

JOURNALS = "journal"
FIRST_FORM = "journal.jsonl"  # where one process at a time wrote, before there were several
LOCKS = "locks"
TABLE_LOCK = 1 << 61  # beyond the bytes that stand for cells


class Stored:
    """What the journals of a directory hold: the records by cell, and what is wrong with lines.

    An ok record of a cell wins over a failed one, else the later one.
    """

    def __init__(self, directory: Path) -> None:
        """Read all journals.

        Raises:
            ResultsError: a journal cannot be read.
        """
        self.directory = directory
        self.records: dict[str, Record] = {}
        self.damage: list[str] = []
        self.torn: dict[Path, int] = {}
        self._read: dict[Path, tuple[int, int]] = {}
        self.refresh()

    def paths(self) -> list[Path]:
        """The journals, oldest first."""
        first = self.directory / FIRST_FORM
        return [*([first] if first.exists() else []), *sorted(self._own_form())]

    def refresh(self) -> None:
        """Read what was appended since.

        Raises:
            ResultsError: a journal cannot be read.
        """
        for path in self.paths():
            start, count = self._read.get(path, (0, 0))
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    content = file.read()
            except FileNotFoundError:  # its process stored nothing, and took it away
                continue
            except OSError as error:
                raise ResultsError(f"{path}: cannot be read ({error.strerror})") from None
            whole = content.rfind(b"\n") + 1
            lines = content[:whole].split(b"\n")[:-1]
            for number, line in enumerate(lines, count + 1):
                self._take(line, f"{path}:{number}")
            self._read[path] = start + whole, count + len(lines)
            self._look_at_tail(content[whole:], path)

    def check(self) -> None:
        """Refuse damaged journals.

        Raises:
            ResultsError: a line does not match its checksum, or is of another version.
        """
        if self.damage:
            more = f" (and {len(self.damage) - 1} more lines)" if len(self.damage) > 1 else ""
            raise ResultsError(self.damage[0] + more)

    def _own_form(self) -> Iterator[Path]:
        return (self.directory / JOURNALS).glob("*.jsonl")

    def _take(self, line: bytes, where: str) -> None:
        try:
            record = decode(line, where)
        except ResultsError as error:
            self.damage.append(str(error))
        else:
            if record is None:
                return
            cell = cell_id(record.key)
            known = self.records.get(cell)
            if record.status == "ok" or known is None or known.status != "ok":
                self.records[cell] = record

    def _look_at_tail(self, tail: bytes, path: Path) -> None:
        self.torn.pop(path, None)
        if is_whole(tail[:-1]):  # more than a whole line: its end was altered, not torn off
            self._take(tail, f"{path}: last line")
        elif tail:
            self.torn[path] = len(tail)


def read_journal(directory: Path) -> list[Record]:
    """Read all finished cells of a directory; a torn last line is left out.

    Raises:
        ResultsError: no journal there, or a damaged one.
    """
    stored = open_stored(directory)
    stored.check()
    return list(stored.records.values())


def open_stored(directory: Path) -> Stored:
    """Read a directory that must hold journals; damaged lines are left to the caller.

    Raises:
        ResultsError: no journal there.
    """
    stored = Stored(directory)
    if not stored.paths():
        why = "no journal in it" if directory.is_dir() else "no such directory"
        raise ResultsError(f"{directory}: {why}; expected the --out of a run")
    return stored


class Journal:
    """One process in a run directory: its own journal, what all hold, and locks on cells.

    A line is `crc32 json`, written by one `write` and synced before the cell counts as finished;
    the first one says what was asked for, with which software. A lock is a byte of the lock file
    that belongs to a cell: it ends with the process, however that ends.
    """

    def __init__(self, directory: Path, run: dict[str, Any] | None = None) -> None:
        """Open a directory and begin a journal there.

        Args:
            directory: made if it is not there.
            run: settings and software of this process.

        Raises:
            ResultsError: the directory cannot be written, or a journal of it is corrupt.
        """
        self.directory = directory
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        host = re.sub(r"[^A-Za-z0-9.-]+", "-", platform.node())[:60]
        self.path = directory / JOURNALS / f"{started}-{host}-{os.getpid()}.jsonl"
        self._size = self._header = 0
        try:
            with ExitStack() as files:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._locks = self._open(LOCKS, os.O_RDWR, files)
                self.stored = Stored(directory)
                self.stored.check()
                self._file = self._open(self.path.name, os.O_RDWR | os.O_EXCL | os.O_APPEND, files)
                files.callback(self._tidy)
                self._write(encode({"run": {"started": started, "host": host, **(run or {})}}))
                self._header = self._size
                sync_directory(self.path.parent)
                sync_directory(directory)
                self._files = files.pop_all()
        except OSError as error:
            raise ResultsError(
                f"--out {directory}: cannot be written ({error.strerror}); give another directory"
            ) from None

    @property
    def records(self) -> dict[str, Record]:
        """All records of the directory by cell, as of the last `refresh`."""
        return self.stored.records

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the files, which also ends the locks; a journal without a cell is taken away."""
        self._files.close()

    def append(self, record: Record) -> None:
        """Store a finished cell for good.

        Raises:
            ResultsError: the line was not written as a whole; what was is taken off again.
        """
        self._write(encode(asdict(record)))
        self.stored.refresh()

    def refresh(self) -> None:
        """Read what other processes stored since.

        Raises:
            ResultsError: a journal cannot be read, or is corrupt.
        """
        self.stored.refresh()
        self.stored.check()

    def claim(self, cell: str) -> bool:
        """Lock a cell, unless another process has."""
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(cell))
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise ResultsError(
                f"--out {self.directory}: files cannot be locked there ({error.strerror}); give a "
                "directory on another file system"
            ) from None
        return True

    def release(self, cell: str) -> None:
        """Unlock a cell."""
        fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, _byte(cell))

    @contextmanager
    def table_lock(self) -> Iterator[None]:
        """Keep other processes from deriving files until this one has; what they stored is read."""
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, TABLE_LOCK)
        try:
            self.refresh()
            yield
        finally:
            fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, TABLE_LOCK)

    def _tidy(self) -> None:
        if self._size == self._header:
            self.path.unlink()

    def _open(self, name: str, flags: int, files: ExitStack) -> int:
        file = os.open(self.path.parent / name, flags | os.O_CREAT, 0o644)
        files.callback(os.close, file)
        return file

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            self._undo(error.strerror or type(error).__name__)
        if written != len(line):
            self._undo(f"{written} of {len(line)} bytes written")
        self._size += len(line)

    def _undo(self, reason: str) -> None:
        os.ftruncate(self._file, self._size)
        raise ResultsError(
            f"{self.path}: cannot be written ({reason}); finished cells are safe, make room and "
            "run the same command again"
        ) from None


def _byte(cell: str) -> int:
    return int(cell[:15], 16)
