"""The option `--json` of the commands that print tables: one object on stdout instead.

Its `schema` rises when a field changes its meaning. Numbers that JSON has no word for (inf, nan)
are null. Imports no torch.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.reports.pairs import difference
from harness.reports.report import baselines
from harness.reports.rerun import command_of, signature_of
from harness.reports.series import series
from harness.results import Record

__all__ = ["of_records", "print_json"]

SCHEMA = 1


def print_json(command: str, body: Mapping[str, Any]) -> None:
    """Print what a command found as one object on one line."""
    content = _plain({"schema": SCHEMA, "command": command, **body})
    print(json.dumps(content, allow_nan=False))


def of_records(records: Sequence[Record]) -> dict[str, Any]:
    """Rows as in the CSV, each with its signature and command, and differences to the baselines."""
    rows = [
        {**asdict(row), "signature": signature_of(row), "again": command_of(record)}
        for record in records
        for row in record.rows
    ]
    return {"rows": rows, "differences": list(_differences(records))}


def _differences(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Each metric of each cell against each baseline at the same length."""
    for group in series(records).values():
        cells = {(one.rows[0].patch, one.rows[0].context_length): one for one in group}
        for name in baselines(group):
            for (patch, length), record in cells.items():
                reference = cells.get((name, length))
                if reference is None or patch == name:
                    continue
                for row in record.rows:
                    found = difference(record, reference, row.metric, row.position)
                    if found is not None:
                        yield {
                            "cell": row.cell,
                            "baseline": reference.rows[0].cell,
                            "patch": patch,
                            "baseline_patch": name,
                            "context_length": length,
                            "metric": row.metric,
                            "position": row.position,
                            **asdict(found),
                            "is_told": found.is_told,
                        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
