"""What each sample of a cell was asked, answered and scored, as JSON lines. Imports no torch."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.answers.samples import values_of
from harness.results import Record, utf8, write_atomically

__all__ = ["SAMPLES", "save_samples"]

SAMPLES = "samples"
CELL = ("model", "patch", "task", "context_length", "cell")


def save_samples(directory: Path, records: Iterable[Record]) -> None:
    """Write samples/CELL.jsonl for each finished cell that has none yet, a line a sample.

    Raises:
        ResultsError: a file cannot be written.
    """
    for record in records:
        path = directory / SAMPLES / f"{record.rows[0].cell}.jsonl"
        if record.samples and not path.exists():
            lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in _lines(record))
            write_atomically(path, utf8("".join(lines)))


def _lines(record: Record) -> Iterator[dict[str, Any]]:
    row = record.rows[0]
    for sample in record.samples:
        yield {
            **{name: getattr(row, name) for name in CELL},
            **{name: sample.get(name) for name in ("id", "document", "tokens", "depth")},
            "prompt_tail": sample.get("tail", ""),
            "prediction": sample.get("text", ""),
            "references": sample.get("references", []),
            "scores": values_of(sample, everywhere=True),
        }
