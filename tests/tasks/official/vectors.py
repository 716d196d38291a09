"""What the benchmarks' own code returned, where the files are there."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[4] / "shared/data/metric_vectors"
needs_vectors = pytest.mark.skipif(not FOLDER.exists(), reason="no ../shared/data/metric_vectors")


def vectors(name):
    """Objects one after the other; some hold raw line ends, which a split at lines would cut."""
    text, place = (FOLDER / f"{name}.jsonl").read_bytes().decode(), 0
    decoder = json.JSONDecoder(strict=False)
    while place < len(text):
        row, place = decoder.raw_decode(text, place)
        yield row
        place += len(text) - place - len(text[place:].lstrip("\n"))
