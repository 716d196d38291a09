"""Which stored cells stand in one table."""

import json
from collections.abc import Sequence

from harness.results import Record
from patches import PATCHES, PatchError
from patches.spec import parse_call, split_top_level

__all__ = ["series"]

VARYING = ("patch", "context_length")


def series(records: Sequence[Record]) -> dict[tuple[str, ...], list[Record]]:
    """Group records that differ in patch and length alone; the order of the records is kept.

    `--batch` does not act on patches that choose tokens between readings, so that their cells stand
    beside the others' whatever the batch of these.
    """
    batches: dict[tuple[str, ...], dict[object, None]] = {}
    for record in records:
        if not _ignores_batch(record):
            batches.setdefault(_setting(record), {})[record.key.get("batch")] = None
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        setting, own = _setting(record), record.key.get("batch")
        found = batches.get(setting, {own: None}) if _ignores_batch(record) else {own: None}
        for batch in found:
            groups.setdefault((*setting, json.dumps(batch)), []).append(record)
    return groups


def _setting(record: Record) -> tuple[str, ...]:
    """Model, task and all else that is one within a table, but for the batch."""
    rest = {name: value for name, value in record.key.items() if name not in (*VARYING, "batch")}
    row = record.rows[0]
    return row.model, row.task, json.dumps(rest, sort_keys=True)


def _ignores_batch(record: Record) -> bool:
    try:
        names = [parse_call(part)[0] for part in split_top_level(record.rows[0].patch, "+")]
    except PatchError:  # of a version that writes patches otherwise
        return False
    return any(name in PATCHES and PATCHES[name].seam == "decoding" for name in names)
