"""Answers as prediction files, and what the benchmarks' rules make of these."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

import tasks
from harness.cli import main
from harness.journal import Journal
from harness.results import Record, cell_id
from harness.totals import total_rows
from tasks.base import Output, Sample
from tasks.corpus import load
from tests.harness.test_results import ROW
from tests.tasks.benchmarks import documents_of
from tests.tasks.toy import SOURCES, Bytes, story

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")
PLACES = ("value", "ci_low", "ci_high")


def said(sample: Sample, index: int) -> str:
    """Right, half right, wrong, empty and many-lined answers by turns."""
    reference = sample.references[-1]
    half = reference[: 1 + len(reference) // 2]
    kinds = [reference, f"{half} and more", "x", "", f"\n{reference}\nDialogue: 7\u2028“no”", " \n"]
    return kinds[index % len(kinds)]


def record_of(task: tasks.base.Task, samples: list[Sample], shift: int, **key: Any) -> Record:
    """A finished cell with these answers, scored as a measured one is."""
    stored = []
    for index, sample in enumerate(samples):
        text = said(sample, index + shift)
        scores = task.score(sample, Output((), (), (), text))
        stored.append(
            {
                **{name: getattr(sample, name) for name in ("id", "document", "references")},
                **{name: getattr(sample, name) for name in ("classes", "position", "tokens")},
                "fields": dict(sample.fields),
                "tail": "the end",
                "text": text,
                "scores": [[one.metric, one.position, list(one.stats)] for one in scores],
            }
        )
    settings = {"task": task.spec, "shift": shift, **key}
    row = dataclasses.replace(ROW, task=task.spec, cell=cell_id(settings), **key)
    return Record(settings, tuple(total_rows(row, stored)), tuple(stored))


def run_of(folder: Path, *records: Record) -> Path:
    with Journal(folder) as journal:
        for record in records:
            journal.append(record)
    return folder


def made(spec: str) -> tuple[tasks.base.Task, list[Sample]]:
    task = tasks.parse(spec)
    if task.reads == "rows":
        documents = documents_of(task)
    else:
        documents = [
            dataclasses.replace(story(f"sample {index}", 900), sources=SOURCES)
            for index in range(3)
        ]
    return task, task.samples(documents, Bytes(), 6000, 512, 0)


def rescored(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    capsys.readouterr()
    assert main(["rescore", "--format", name, str(folder)]) == 0
    lines = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return {line["dataset"]: float(line["score"]) for line in lines if line["n"] != "0"}


def own(record: Record) -> dict[str, float]:
    """Values of the benchmark's metric by position."""
    metrics = [record.rows[0].metric, "leval-f1", "leval-rouge"]
    return {row.position: row.value for row in record.rows if row.metric in metrics}


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("longbench", 21),
        ("longbench-e", 39),
        ("leval", 20),
        ("ruler(tasks=niah+vt+qa_1+qa_2)", 11),
    ],
)
def test_files_score_as_the_rows_of_their_run(
    spec: str, count: int, shift: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, samples = made(spec)
    record = record_of(task, samples, shift)
    run, folder = run_of(tmp_path / "run", record), tmp_path / "files"
    assert main(["report", str(run), "--format", task.name, str(folder)]) == 0
    scores = rescored(task.name, folder, capsys)
    rows = own(record)
    assert len(scores) == count and len(set(scores.values())) > 2
    for place, score in scores.items():
        assert score == pytest.approx(rows[place], abs=0.00501), place


def test_files_of_multiple_choice_are_one_a_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, samples = made("longbench-v2")
    records = [record_of(task, samples, shift) for shift in range(2)]
    run, folder = run_of(tmp_path / "run", *records), tmp_path / "files"
    assert main(["report", str(run), "--format", "longbench-v2", str(folder)]) == 0
    scores = rescored("longbench-v2", folder, capsys)
    for record in records:
        (file,) = folder.glob(f"*{record.rows[0].cell}.jsonl")
        for place, value in own(record).items():
            group = f"{file.stem} {place or 'overall'}"
            assert scores[group] == pytest.approx(value, abs=0.0501)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows[0].keys() >= {"_id", "question", "choice_D", "answer", "response", "pred", "judge"}
    assert [row["judge"] for row in rows] == [row["pred"] == row["answer"] for row in rows]


def test_rows_are_those_that_the_benchmarks_write(tmp_path: Path) -> None:
    wanted = {
        "longbench(subset=trec)": ("trec.jsonl", "pred answers all_classes length"),
        "leval(subset=sci_fi)": ("sci_fi.pred.jsonl", "query gt evaluation"),
        "ruler(tasks=vt)": ("vt.jsonl", "index pred input outputs length"),
    }
    for number, (spec, (name, fields)) in enumerate(wanted.items()):
        task, samples = made(spec)
        run = run_of(tmp_path / f"run{number}", record_of(task, samples, 0))
        folder = tmp_path / f"files{number}"
        assert main(["report", str(run), "--format", task.name, str(folder)]) == 0
        assert [path.name for path in folder.iterdir()] == [name]
        rows = [json.loads(line) for line in (folder / name).read_text().split("\n")[:-1]]
        mine = {key for key in rows[0] if not key.endswith("_pred")}
        assert mine == set(fields.split())
    assert len(rows) == 3 and [row["index"] for row in rows] == [0, 1, 2]


def test_a_statement_is_one_row_of_two_answers(tmp_path: Path) -> None:
    task, samples = made("leval(subset=sci_fi)")
    run = run_of(tmp_path / "run", record_of(task, samples, 0))
    assert main(["report", str(run), "--format", "leval", str(tmp_path / "files")]) == 0
    lines = (tmp_path / "files" / "sci_fi.pred.jsonl").read_text().split("\n")[:-1]
    first = json.loads(lines[0])
    (name,) = [key for key in first if key.endswith("_pred")]
    by_story = [place for place, sample in enumerate(samples) if sample.position == "sci_fi 0"]
    in_world = [place for place, sample in enumerate(samples) if sample.position == "sci_fi 1"]
    assert len(lines) == len(by_story) == len(in_world)
    assert [json.loads(line)[name] for line in lines] == [
        f"{said(samples[one], one)} [fact: {said(samples[other], other)}]"
        for one, other in zip(by_story, in_world, strict=True)
    ]
    assert first["gt"] == "True [fact: False]" and first["evaluation"] == "exam"


def test_several_cells_have_a_folder_each(tmp_path: Path) -> None:
    task, samples = made("longbench(subset=trec+hotpotqa)")
    cells = [("none", 64), ("rerope(window=8)+logn", 64)]
    records = [
        record_of(task, samples, 0, patch=patch, context_length=length) for patch, length in cells
    ]
    run, folder = run_of(tmp_path / "run", *records), tmp_path / "files"
    assert main(["report", str(run), "--format", "longbench", str(folder)]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert [name.rpartition("-")[0] for name in names] == [
        "small-64-none",
        "small-64-rerope_window=8_+logn",
    ]
    for name in names:
        found = sorted(path.name for path in (folder / name).iterdir())
        assert found == ["hotpotqa.jsonl", "trec.jsonl"]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("longbnch", 2, "unknown format 'longbnch'"),
        ("ruler", 2, "no finished cell of task ruler; it has longbench"),
        ("longbench", 6, "not an empty directory; give a new one"),
    ],
)
def test_a_mistake_is_one_line(
    name: str, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, samples = made("longbench(subset=trec)")
    run = run_of(tmp_path / "run", record_of(task, samples, 0))
    capsys.readouterr()
    assert main(["report", str(run), "--format", name, str(run)]) == code
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_a_run_of_an_earlier_version_lacks_what_files_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, samples = made("longbench(subset=trec)")
    record = record_of(task, samples, 0)
    for sample in record.samples:
        del sample["fields"]
    run = run_of(tmp_path / "run", record)
    assert main(["report", str(run), "--format", "longbench", str(tmp_path / "files")]) == 2
    assert "stored by an earlier version" in capsys.readouterr().err
    assert not (tmp_path / "files").exists()


@needs_shared
@pytest.mark.parametrize(
    ("spec", "folder"),
    [("longbench", "longbench_v1"), ("leval(subset=tpo+sci_fi+gov_report_summ)", "leval")],
)
def test_files_of_real_rows_score_as_the_rows_of_their_run(
    spec: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tasks.parse(spec)
    corpus = load(str(SHARED / folder), 4, task.reads, task.sources, task.tables)
    record = record_of(task, task.samples(corpus.documents, Bytes(), 8000, 512, 0), 0)
    run, files = run_of(tmp_path / "run", record), tmp_path / "files"
    assert main(["report", str(run), "--format", task.name, str(files)]) == 0
    rows = own(record)
    scores = rescored(task.name, files, capsys)
    assert len(scores) == len(task.tables)
    for place, score in scores.items():
        assert score == pytest.approx(rows[place], abs=0.00501), place
