"""Rows of JSON files, each with its place for errors: data of benchmarks, predictions of others."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.files import json_of
from tasks.spec import RowError, TaskError

__all__ = ["Row", "each", "few", "find", "read"]


@dataclass(frozen=True)
class Row:
    """One JSON object of a file: its fields, and `file:line`."""

    fields: dict[str, Any]
    where: str

    def field(self, *names: str) -> Any:
        """Value of the first of these fields that is there.

        Raises:
            RowError: none of them is.
        """
        for name in names:
            if name in self.fields:
                return self.fields[name]
        found = ", ".join(map(str, self.fields)) or "none"
        raise self.error(f"no field {' or '.join(map(repr, names))}; fields: {found}")

    def text(self, *names: str) -> str:
        """The same, a text.

        Raises:
            RowError: none of the fields is there, or it is no text.
        """
        value = self.field(*names)
        if not isinstance(value, str):
            raise self.error(f"field {' or '.join(map(repr, names))} is {_kind(value)}, not a text")
        return value

    def texts(self, *names: str) -> list[str]:
        """The same, a list of texts that is not empty.

        Raises:
            RowError: none of the fields is there, or it is something else.
        """
        value = self.field(*names)
        if not (isinstance(value, list) and value and all(isinstance(one, str) for one in value)):
            raise self.error(
                f"field {' or '.join(map(repr, names))} is {_kind(value)}; expected a list of "
                "texts with at least one"
            )
        return value

    def number(self, name: str) -> float:
        """The same, a number of at least 0.

        Raises:
            RowError: the field is not there, or it is something else.
        """
        value = self.field(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise self.error(f"field '{name}' is {_kind(value)}; expected a number of at least 0")
        return value

    def word(self, name: str, accepted: Collection[str]) -> str:
        """The same, one of some words.

        Raises:
            RowError: the field is not there, or it is something else.
        """
        value = self.text(name)
        if value not in accepted:
            raise self.error(f"field '{name}' is '{value[:40]}'; expected {', '.join(accepted)}")
        return value

    def error(self, problem: str) -> RowError:
        """Put the place in front of what is wrong."""
        return RowError(f"{self.where}: {problem}")


def _kind(value: object) -> str:
    if value == []:
        return "an empty list"
    return {"NoneType": "null", "str": "a text", "dict": "an object", "list": "a list"}.get(
        type(value).__name__, json.dumps(value)[:40]
    )


def few(names: Sequence[str]) -> str:
    """Join names by comma, the first five and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def find(directory: Path, suffix: str) -> tuple[list[Path], list[str]]:
    """Return the files with a suffix, by name, and the names of all else in a directory.

    Raises:
        TaskError: no such directory, or no such file in it.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise TaskError(
            f"{directory}: {error.strerror}; expected a directory of *{suffix} files"
        ) from None
    files = [path for path in entries if path.name.endswith(suffix) and path.is_file()]
    others = [path.name for path in entries if path not in files]
    if not files:
        raise TaskError(f"{directory}: no *{suffix} file in it; found: {few(others) or 'nothing'}")
    return files, others


def read(path: Path) -> list[Row]:
    """Return the objects of a JSON-lines file; lines without a character are none.

    Raises:
        TaskError: the file cannot be read, is not UTF-8 or has no object, or a line is none.
    """
    return list(each(path))


def each(path: Path) -> Iterator[Row]:
    """Yield them one after the other; of a .json file the objects of its list, numbered as lines.

    Raises:
        TaskError: as `read`, when the fault is reached.
    """
    text = _decode(path)
    if path.suffix.lower() == ".json":
        listed = _loads(text, str(path))
        if not isinstance(listed, list):
            raise TaskError(f"{path}: {_kind(listed)}; expected a list of objects")
        for number, fields in enumerate(listed, 1):
            yield _row(fields, f"{path}:{number}")
        return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold U+2028
        if line.strip():
            yield _row(_loads(line, f"{path}:{number}"), f"{path}:{number}")


def _decode(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 at byte {error.start}; convert it") from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); check its rights") from None
    if not text.strip():
        raise TaskError(f"{path}: empty; expected one JSON object a line")
    return text


def _loads(text: str, where: str) -> Any:
    try:
        return json_of(text)
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{where}: not JSON ({error.msg}, column {error.colno}); expected one object a line"
        ) from None
    except ValueError as error:
        raise TaskError(f"{where}: not read ({error}); expected one object a line") from None


def _row(fields: Any, where: str) -> Row:
    if not isinstance(fields, dict):
        raise TaskError(f"{where}: {_kind(fields)}; expected an object of a row's fields")
    return Row(fields, where)
