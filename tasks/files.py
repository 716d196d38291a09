"""Files of the data: found by the end of their path, read, and named by their digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.base import Source, TaskError
from tasks.pinned import is_official

__all__ = ["digest_of", "find", "json_of", "named", "text_of"]


def find(data: str | None, patterns: Mapping[str, str]) -> dict[str, Path]:
    """Return the one file of a directory, or the file itself, that ends as each pattern says.

    Raises:
        TaskError: several files fit one pattern.
    """
    path = Path(data).expanduser() if data is not None else None
    if path is None or not path.exists() or not patterns:
        return {}
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    found = {}
    for key, pattern in patterns.items():
        fitting = [file.absolute() for file in files if file.absolute().match(pattern)]
        if len(fitting) > 1:
            raise TaskError(
                f"--data {data}: {len(fitting)} files called {pattern}, such as {fitting[0]} and "
                f"{fitting[1]}; give a directory with one of them"
            )
        if fitting:
            found[key] = fitting[0]
    return found


def text_of(path: Path) -> str:
    """Return the text of a UTF-8 file, its line ends as newlines.

    Raises:
        TaskError: it cannot be read, is not UTF-8, or is empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise TaskError(
            f"{path}: not UTF-8, byte {error.object[error.start]:#04x} at {error.start}; convert it"
        ) from None
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); check its rights") from None
    if not text.strip():
        raise TaskError(f"{path}: empty; expected text")
    return text


def named(
    sources: Mapping[str, Source], files: Mapping[str, Path], texts: Mapping[str, str]
) -> list[str]:
    """Say of each source which file it is, with its digest, or what stands in.

    A file whose bytes are those that `fetch` brings is called official.
    """
    return [
        f"{key} {'official ' if is_official(files[key]) else ''}"
        f"{files[key].name}@{digest_of([texts[key]])}"
        if key in files
        else f"{key} {source.otherwise}"
        for key, source in sources.items()
    ]


def json_of(text: str) -> Any:
    """Read JSON that came from elsewhere.

    Raises:
        ValueError: it is none, it is too deep, a number is too long, or half a surrogate pair
            stands in it, which no tokenizer and no file takes.
    """
    try:
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("brackets too deep") from None
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair; expected valid Unicode") from None
    return found


def digest_of(texts: Sequence[str]) -> str:
    """sha256 of texts, 12 hex digits; where one ends and the next begins counts too."""
    digest = hashlib.sha256()
    for text in texts:
        body = text.encode()
        digest.update(len(body).to_bytes(8, "big") + body)  # the length keeps borders apart
    return digest.hexdigest()[:12]
