"""Documents to measure on: the text every Python has, a file, a directory, or a hub data set."""

import importlib
import json
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.base import Document, Source, Table, TaskError
from tasks.files import digest_of, find, json_of, named, text_of
from tasks.hub import HUB_ID, hub_rows
from tasks.tables import rows_of

__all__ = ["Corpus", "load"]

SUFFIXES = (".txt", ".jsonl", ".json")
EXPECTED = "a .txt, .jsonl or .json file, a directory of them, or a data set id of the hub"


@dataclass(frozen=True)
class Corpus:
    """Documents, longest first, where they come from, and sha256 of their texts (12 hex digits)."""

    documents: tuple[Document, ...]
    name: str
    digest: str


def load(
    data: str | None,
    n: int,
    reads: str = "documents",
    sources: Mapping[str, Source] | None = None,
    tables: Mapping[str, Table] | None = None,
) -> Corpus:
    """Return what a task reads: n documents, the longest by characters; ties go by id.

    With `haystack` each holds the text of all documents in the order of their ids, with `nothing`
    no text. With `rows` they are the first n rows of each table, fewer where it has fewer.

    Args:
        data: FILE.txt (one document), FILE.jsonl (one a line, in the field `text`), FILE.json (one
            such object), a directory of such files (.json where there is nothing else),
            `owner/name` or `owner/name:config` of a hub data set (column `text`; split test,
            validation or train). None: the language reference in the installed Python, cut at line
            ends into n equal documents.
        n: number of documents, or of rows a table.
        reads: documents, haystack, rows or nothing, as a task has it.
        sources: files that the task takes from the data besides.
        tables: files of rows.

    Raises:
        TaskError: the source is missing, unreadable, malformed, or has fewer than n documents.
    """
    if n < 1:
        raise TaskError(f"--n {n}: expected an integer of at least 1")
    if reads == "nothing":
        return Corpus(tuple(Document(f"sample {index}", "") for index in range(n)), "", "")
    if reads == "rows":
        return Corpus(*rows_of(data, n, tables or {}, sources or {}))
    name = "pydoc" if data is None else data
    if reads == "haystack":
        return _haystack(data, name, n, sources or {})
    documents = _read(data) if data is not None else _pydoc(n)
    if len(documents) < n:
        raise TaskError(
            f"--n {n}: '{name}' has {len(documents)} documents; lower --n or give more with --data"
        )
    chosen = sorted(documents, key=lambda document: (-len(document.text), document.id))[:n]
    marked = [repr(document.keys) for document in chosen if document.keys is not None]
    return Corpus(
        tuple(chosen), name, digest_of([*(document.text for document in chosen), *marked])
    )


def _haystack(data: str | None, name: str, n: int, sources: Mapping[str, Source]) -> Corpus:
    """N samples of all text there is, or of the source called haystack, with the other sources."""
    files = find(data, {key: source.pattern for key, source in sources.items()})
    texts = {key: text_of(path) for key, path in files.items()}
    whole = _whole(data, files)
    given = tuple(Document(f"sample {index}", whole, sources=texts) for index in range(n))
    said = [name, *named(sources, files, texts)]
    return Corpus(
        given, "; ".join(said), digest_of([whole, *(texts[key] for key in sorted(texts))])
    )


def _whole(data: str | None, files: Mapping[str, Path]) -> str:
    if "haystack" in files:
        documents = [
            document for document, _ in _read_file(files["haystack"], files["haystack"].parent)
        ]
    elif data is None:
        documents = _pydoc(1)
    elif files and not _texts_of(Path(data).expanduser(), files):
        return ""  # sources alone
    else:
        documents = _read(data, files)
    return "\n\n".join(one.text for one in sorted(documents, key=lambda document: document.id))


def _pydoc(n: int) -> list[Document]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise TaskError(
            f"this Python lacks the default corpus pydoc_data.topics; give {EXPECTED} with --data"
        ) from None
    text = "\n".join(topics[key].strip("\n") + "\n" for key in sorted(topics))
    cuts = [0]
    for part in range(1, n):
        line_end = text.find("\n", part * len(text) // n)
        cuts.append(line_end + 1 if line_end >= 0 else len(text))
    pairs = zip(cuts, [*cuts[1:], len(text)], strict=True)
    return [Document(f"pydoc[{a}:{b}]", text[a:b]) for a, b in pairs if text[a:b].strip()]


def _read(data: str, besides: Mapping[str, Path] | None = None) -> list[Document]:
    path = Path(data).expanduser()
    if path.is_dir():
        files = _texts_of(path, besides or {})
        if not files:
            raise TaskError(
                f"--data {data}: no .txt, .jsonl or .json file in it; expected {EXPECTED}"
            )
        return _unique([pair for file in files for pair in _read_file(file, path)])
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise TaskError(f"--data {data}: suffix '{path.suffix}' unknown; expected {EXPECTED}")
        return _unique(list(_read_file(path, path.parent)))
    if path.suffix.lower() in SUFFIXES or HUB_ID.fullmatch(data) is None:
        raise TaskError(f"--data {data}: no such file or directory; expected {EXPECTED}")
    return _from_hub(data)


def _texts_of(path: Path, besides: Mapping[str, Path]) -> list[Path]:
    """The files of a directory that hold documents: .json, often settings, where nothing else."""
    there = (file for file in path.rglob("*") if _is_text(file.relative_to(path), file))
    files = sorted(file for file in there if file.absolute() not in besides.values())
    return [file for file in files if file.suffix.lower() != ".json"] or files


def _is_text(inside: Path, file: Path) -> bool:
    hidden = any(part.startswith(".") for part in inside.parts)
    return not hidden and file.is_file() and file.suffix.lower() in SUFFIXES


def _unique(pairs: Sequence[tuple[Document, str]]) -> list[Document]:
    """Keep ids that occur once; put the place in front of the others."""
    times = Counter(document.id for document, _ in pairs)
    return [
        document if times[document.id] == 1 else replace(document, id=f"{place}:{document.id}")
        for document, place in pairs
    ]


def _read_file(path: Path, root: Path) -> Iterator[tuple[Document, str]]:
    """Yield the documents of a file, each with its place: path from the root, and line."""
    text = text_of(path)
    place = path.relative_to(root).as_posix()
    if path.suffix.lower() == ".txt":
        yield Document(place, text), place
        return
    if path.suffix.lower() == ".json":
        yield _from_line(text, str(path), place), place
        return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold U+2028
        if line.strip():
            yield _from_line(line, f"{path}:{number}", f"{place}:{number}"), f"{place}:{number}"


def _from_line(line: str, where: str, place: str) -> Document:
    try:
        row = json_of(line)
    except json.JSONDecodeError as error:
        raise TaskError(f"{where}: not JSON ({error.msg}); expected one object a line") from None
    except ValueError as error:
        raise TaskError(f"{where}: not read ({error}); expected one object a line") from None
    if not isinstance(row, dict):
        raise TaskError(f"{where}: a JSON {type(row).__name__}; expected an object with a 'text'")
    text = _text(row, where)
    return Document(str(row.get("id", row.get("_id", place))), text, _keys(row, text, where))


def _text(row: dict[str, Any], where: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        problem = "field 'text' is no string" if "text" in row else "no field 'text'"
        raise TaskError(f"{where}: {problem}; fields: {', '.join(map(str, row)) or 'none'}")
    if not text.strip():
        raise TaskError(f"{where}: field 'text' is empty; expected text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise TaskError(
            f"{where}: field 'text' holds half a surrogate pair; expected valid Unicode"
        )
    return text


def _keys(row: dict[str, Any], text: str, where: str) -> tuple[tuple[int, int], ...] | None:
    """The character intervals of a row, if it has some: rising, within the text."""
    if "keys" not in row:
        return None
    try:
        keys = tuple((operator.index(start), operator.index(end)) for start, end in row["keys"])
    except (TypeError, ValueError):
        keys = ((0, 0),)
    edges = [0, *(edge for pair in keys for edge in pair), len(text)]
    if any(start >= end for start, end in keys) or edges != sorted(edges):
        raise TaskError(
            f"{where}: field 'keys' is no list of rising pairs [start, end) within the text's "
            f"{len(text)} characters"
        )
    return keys


def _from_hub(data: str) -> list[Document]:
    split, rows = hub_rows(data, EXPECTED)
    return [
        Document(f"{split}:{number}", _text(row, f"{data}:{split}:{number}"))
        for number, row in enumerate(rows)
    ]
