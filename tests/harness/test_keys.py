"""Key tokens found with a model, written as documents that ppl(protocol=longppl) reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.checkpoint import open_checkpoint
from harness.cli import main
from tasks.corpus import load
from tests.harness.conftest import journals

LENGTH = ["--len", "1k", "--n", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("keys") / "deep" / "keys.jsonl"
    assert main(["keys", "--patch", "rerope+logn", *LENGTH, "--out", str(out)]) == 0
    return out


def test_every_document_is_written_whole_with_rising_intervals(keys: Path) -> None:
    rows = [json.loads(line) for line in keys.read_text().splitlines()]
    texts = {document.id: document.text for document in load(None, 2).documents}
    assert {row["id"]: row["text"] for row in rows} == texts
    assert any(row["keys"] for row in rows)
    assert load(str(keys), 2).documents[0].keys is not None


def test_the_same_model_finds_its_keys_cheap_and_cut_off_from_them_dear(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ["--task", "ppl(protocol=longppl)", "--patch", "rerope+logn,streaming"]
    options = [*spec, *LENGTH, "--data", str(keys), "--out", str(tmp_path)]
    assert main(options) == 0
    table = capsys.readouterr().out.partition("longppl, lower is better")[2].splitlines()
    values = {line.split()[0]: float(line.split()[1]) for line in table[1:3]}
    assert values["rerope+logn"] < 7.39 < 3 * 7.39 < values["streaming"]


def test_the_own_keys_are_those_that_the_command_writes(keys: Path, tmp_path: Path) -> None:
    spec = ["--task", "ppl(protocol=longppl)", "--patch", "rerope+logn", *LENGTH]
    for name, data in (("own", []), ("given", ["--data", str(keys)])):
        assert main([*spec, *data, "--in-process", "--out", str(tmp_path / name)]) == 0
    own, given = (
        {
            metric: tuple(stats)
            for line in journals(tmp_path / name)[0].read_text().splitlines()[-1:]
            for sample in json.loads(line[line.index("{") :])["samples"][:1]
            for metric, _, stats in sample["scores"]
        }
        for name in ("own", "given")
    )
    assert own["longppl-self"] == pytest.approx(given["longppl"])
    assert own["key_share"] == given["key_share"] and own["nll"] == pytest.approx(given["nll"])


def test_offsets_of_a_tokenizer_cover_the_text() -> None:
    text = "The café costs 5 €, naïve 😀 friend.\n  Next line"
    spans = open_checkpoint("tiny").tokenizer.offsets(text)
    assert len(spans) == len(open_checkpoint("tiny").tokenizer.encode(text))
    assert {place for start, end in spans for place in range(start, end)} >= {
        place for place, character in enumerate(text) if not character.isspace()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch", "none,ntk"], "--patch none,ntk: keys are found with one patch"),
        (["--short", "2k"], "protocol=longppl compares with 2048 tokens"),
        (["--data", "KEYS"], "has keys already"),
    ],
)
def test_what_does_not_go_is_one_line(
    options: list[str],
    message: str,
    keys: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(keys) if word == "KEYS" else word for word in options]
    out = tmp_path / "out.jsonl"
    assert main(["keys", *LENGTH, *given, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()
