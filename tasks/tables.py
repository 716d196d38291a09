"""Rows of the files that a benchmark distributes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from tasks.base import Document, Source, Table, TaskError
from tasks.files import digest_of, find, named, text_of
from tasks.hub import HUB_ID, hub_rows
from tasks.rows import Row, each, few

__all__ = ["rows_of"]


def rows_of(
    data: str | None, n: int, tables: Mapping[str, Table], sources: Mapping[str, Source]
) -> tuple[tuple[Document, ...], str, str]:
    """Return the first n rows of each table, what they are called, and their digest.

    A row's id is its table and line. Rows that a table is without do not count as of the n, and the
    name says how many there are among them. The digest is of the rows taken and of all sources.

    Args:
        data: directory of the files, one of them, or `owner/name` of a hub data set that has a
            config for each table.
        n: rows a table.
        tables: by name.
        sources: files that go with every row.

    Raises:
        TaskError: a file is missing, unreadable or malformed up to row n, or has no row.
    """
    from_hub = data is not None and "/" in data and HUB_ID.fullmatch(data) is not None
    from_hub = from_hub and not Path(str(data)).exists()
    paths = {} if from_hub else _found(data, tables)
    files = find(data, {key: source.pattern for key, source in sources.items()})
    texts = {key: text_of(path) for key, path in files.items()}
    documents, said = [], [str(data), *named(sources, files, texts)]
    for name, table in tables.items():
        passed: list[Row] = []
        there = _hub(str(data), table) if from_hub else each(paths[name])
        rows = list(islice(_wanted(there, table, passed), n))
        if not rows:
            raise TaskError(
                f"{paths.get(name, data)}: no row for {name}; give the benchmark's file"
            )
        if passed:
            said.append(f"{name} without {len(passed)} rows")
        for row in rows:
            line = row.where.rpartition(":")[2]
            documents.append(Document(f"{name}:{line}", "", sources=texts, table=name, row=row))
    kept = [json.dumps(one.row.fields, ensure_ascii=True) for one in documents if one.row]
    digest = digest_of([*kept, *(texts[key] for key in sorted(texts))])
    return tuple(documents), "; ".join(said), digest


def _hub(data: str, table: Table) -> Iterator[Row]:
    config = f"{data}:{table.config}" if table.config and ":" not in data else data
    split, rows = hub_rows(config, "the benchmark's directory")
    return (Row(fields, f"{config}:{split}:{number}") for number, fields in enumerate(rows))


def _wanted(rows: Iterable[Row], table: Table, passed: list[Row]) -> Iterator[Row]:
    for row in rows:
        if any(row.fields.get(name) in values for name, values in table.without.items()):
            passed.append(row)
        else:
            yield row


def _found(data: str | None, tables: Mapping[str, Table]) -> dict[str, Path]:
    """The file of every table."""
    wanted = [table.patterns[0] for table in tables.values()]
    if data is None:
        raise TaskError(
            f"the benchmark's own rows are needed, such as {wanted[0]}; give the directory that "
            "holds them with --data"
        )
    if not Path(data).expanduser().exists():
        raise TaskError(f"--data {data}: no such file or directory; expected {few(wanted)} in it")
    found: dict[str, Path] = {}
    for rank in range(max(len(table.patterns) for table in tables.values())):
        patterns = {
            name: table.patterns[rank]
            for name, table in tables.items()
            if name not in found and rank < len(table.patterns)
        }
        found |= find(data, patterns)
    missing = [table.patterns[0] for name, table in tables.items() if name not in found]
    if missing:
        some = f", or leave the rest out with subset={'+'.join(found)}" if found else ""
        raise TaskError(f"--data {data}: no {few(missing)} in it; give the benchmark's files{some}")
    return {name: found[name] for name in tables}
