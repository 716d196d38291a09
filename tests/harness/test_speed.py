"""How many tokens a cell reads, and how fast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import patches
from harness.cli import main
from harness.decoding import decode
from harness.engine import Engine
from harness.generate import Prompt, generate
from patches.apply import apply
from tests.harness.conftest import TRAINED_LENGTH, command, make_model, table

TOKENS = [(7 * index * index + 3 * index) % 256 for index in range(120)]
OTHERS = [(5 * index * index + 11 * index) % 256 for index in range(120)]
CPU = torch.device("cpu")
BORDERS = (4, 20, 41, 50)


@pytest.mark.parametrize("chunk", [None, 16])
def test_given_tokens_are_read_but_for_the_last(chunk: int | None) -> None:
    engine = Engine(make_model(), chunk, CPU)
    engine.score(TOKENS, 20)
    assert engine.tokens_read == 119
    engine.score(TOKENS, 100, keep=64)  # one window of 64 tokens holds the last 32 scored ones
    assert engine.tokens_read == 119 + 63


@pytest.mark.parametrize("batch", [1, 2])
def test_answers_count_but_for_their_last_tokens_and_shared_beginnings_once(batch: int) -> None:
    engine = Engine(make_model(), None, CPU)
    prompts = [Prompt(TOKENS[:50], 7), Prompt([*TOKENS[:40], *OTHERS[:5]], 3), Prompt(OTHERS, 1)]
    assert list(map(len, generate(engine, prompts, batch=batch))) == [7, 3, 1]
    assert engine.tokens_read == 50 + 6 + 5 + 2 + 120


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("attention-buckets(bases=1e4+2e4+3e4)", 3 * (57 + 4)),
        ("pcw(windows=3)", 57 + 4),
        ("nbce", 4 * (4 + 7) + 46 + 4 * 4),
    ],
)
def test_every_reading_counts(spec: str, count: int) -> None:
    model, patch = make_model(), patches.parse(spec)
    with apply(model, patch, 160, TRAINED_LENGTH) as applied:
        engine = Engine(model, None, CPU)
        prompt = Prompt(TOKENS[:57], 5, None, BORDERS)
        list(decode(engine, [prompt], patch.decoding, TRAINED_LENGTH, applied.readings))
    assert engine.tokens_read == count


def test_a_row_has_its_speed_and_a_failed_one_has_none(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*command(checkpoint, data, tmp_path / "out"), "--patch", "none"]
    arguments += ["--task", "ppl", "--len", "128", "--n", "2"]
    assert main(arguments) == 0
    row = next(row for row in table(tmp_path / "out") if row["metric"] == "nll")
    seconds = float(row["seconds"])
    assert float(row["seconds_per_sample"]) == pytest.approx(seconds / 2, abs=6e-4)
    assert float(row["tokens_per_second"]) * seconds == pytest.approx(2 * 127, rel=1e-3 / seconds)
    bad = torch.full((1,), torch.nan)
    monkeypatch.setattr(Engine, "forward", lambda self, tokens, rows, *more: bad.expand(rows, 257))
    assert main([*arguments, "--seed", "1"]) == 3
    (row,) = [row for row in table(tmp_path / "out") if row["seed"] == "1"]
    assert row["status"] == "nan"
    assert row["tokens_per_second"] == row["seconds_per_sample"] == ""
