"""`--json` of run, report and compare, and the signature that every table ends with."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.reports.as_json import of_records, print_json
from harness.reports.report import aligned, render_tables
from harness.reports.rerun import WIDTH, signature_of_table
from harness.results import Record
from tests.harness.conftest import command
from tests.harness.reports.test_report import RECORDS, measured
from tests.harness.test_results import ROW

SIX = [float(index) for index in range(6)]


def test_run_report_and_compare_print_one_object_of_the_same_schema(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(checkpoint, data, tmp_path, "--json")) == 0
    ran = json.loads(capsys.readouterr().out)
    assert main(["report", str(tmp_path), "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (ran["schema"], ran["command"]) == (1, "run")
    assert {**reported, "command": "run"} == ran
    nll = [row for row in ran["rows"] if row["metric"] == "nll"]
    assert [(row["patch"], row["context_length"]) for row in nll] == [
        ("none", 64),
        ("truncate", 64),
        ("none", 128),
        ("truncate", 128),
    ]
    assert nll[0]["signature"].endswith(f"cell:{nll[0]['cell']}")
    assert "--len 64 --n 3" in nll[0]["again"]
    found = [
        one
        for one in ran["differences"]
        if (one["context_length"], one["metric"]) == (128, "nll")
        and one["baseline_patch"] == "none"
    ]
    (one,) = found
    assert one["value"] == pytest.approx(nll[3]["value"] - nll[2]["value"])
    assert one["low"] < one["value"] < one["high"] and one["documents"] == 3
    sides = f"{tmp_path}:none", f"{tmp_path}:truncate"
    assert main(["compare", *sides, "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["comparisons"]
    (there,) = [entry for entry in compared if entry["context_length"] == 128]
    assert there["difference"] == pytest.approx(one["value"])
    assert there["a"]["cell"] == nll[2]["cell"] and there["verdict"] == "none below n 6"


def test_report_imports_no_torch(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    assert main(command(checkpoint, data, tmp_path)) == 0
    code = (
        "import sys; from harness.cli import main; "
        "sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, "report", str(tmp_path), "--json"]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json("run", {"values": [math.inf, (math.nan, 1.5)], "text": "a\udc80"})
    printed = capsys.readouterr().out
    assert json.loads(printed)["values"] == [None, [None, 1.5]]
    assert printed.isascii() and printed.count("\n") == 1


def test_cells_that_failed_are_rows_without_differences() -> None:
    body = of_records(RECORDS)
    assert [row["status"] for row in body["rows"]] == ["ok", "ok", "ok", "oom"]
    assert [one["context_length"] for one in body["differences"]] == [64]


def test_every_table_ends_with_its_signature() -> None:
    versions = "torch 2.13.0 transformers 5.23.0 python 3.12.1"
    row = dataclasses.replace(ROW, versions=versions, code="c" * 12)
    records = [
        Record(one.key, tuple(dataclasses.replace(row, patch=one.rows[0].patch) for _ in "a"), ())
        for one in RECORDS[:2]
    ]
    scaled = dataclasses.replace(records[1].rows[0], attention="sdpa+scale")
    records[1] = dataclasses.replace(records[1], rows=(scaled,))
    end = render_tables(records).split("\n\n")[-1].replace("\n", "")
    assert end == (
        f"version:{'c' * 12}|model:small@{'0' * 12}|tok:{'1' * 12}|task:ppl|trained:64|n:3|seed:0"
        f"|data:pydoc@{'2' * 12}|dtype:float32|attn:sdpa,sdpa+scale|chunk:all|batch:1|device:cpu"
        "|torch:2.13.0|transformers:5.23.0|python:3.12.1"
    )


def test_the_two_sides_of_a_comparison_have_their_signatures(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in ("0", "1"):
        more = ["--in-process", "--dtype", "fp32" if seed == "0" else "bf16"]
        assert main(command(checkpoint, data, tmp_path / seed, *more)) == 0
    capsys.readouterr()
    a, b = str(tmp_path / "0"), str(tmp_path / "1")
    assert main(["compare", a, b, "--across", "dtype"]) == 0
    printed = capsys.readouterr().out
    signatures = printed.split("\n\n")[-1]
    assert signatures.startswith("A version:") and "\nB version:" in signatures
    assert "dtype:float32" in signatures and "dtype:bfloat16" in signatures


def test_tables_of_many_lengths_fit_the_width() -> None:
    lengths = [64 << index for index in range(7)]
    records = [
        measured(patch, length, SIX)
        for length in lengths
        for patch in ("none", "truncate", "leaky-rerope(window=128,k=16)+logn")
    ]
    text = render_tables(records)
    assert max(map(len, text.splitlines())) <= WIDTH
    start = text.index("nll: difference to none\n")
    table = text[start : text.index("nll: difference to truncate")]
    parts = [part.splitlines() for part in table.strip().split("\n\n")]
    heads = [parts[0][1].split(), *(part[0].split() for part in parts[1:])]
    assert heads == [["64", "128"], ["256", "512"], ["1k", "2k"], ["4k"]]
    assert all(any(line.startswith("leaky-rerope(") for line in part) for part in parts)


def test_columns_that_do_not_fit_follow_below_with_their_names() -> None:
    lines = [["name", "a" * 6, "b" * 6], ["x", "1", "2"]]
    assert aligned(lines, 20) == "name  aaaaaa  bbbbbb\nx     1       2\n"
    assert aligned(lines, 19) == "name  aaaaaa\nx     1\n\nname  bbbbbb\nx     2\n"


def test_signatures_are_broken_before_a_bar() -> None:
    rows = [dataclasses.replace(ROW, data="d" * 60, model="m" * 30)]
    text = signature_of_table(rows, "A ")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("A version:?") and text.count("\n|") == text.count("\n") - 1
