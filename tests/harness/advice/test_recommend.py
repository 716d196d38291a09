"""The search of `recommend` with a measurer that answers as it is told, and with a real model."""

import dataclasses
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import patches
import tasks
from harness.advice import clock
from harness.advice.clock import Clock
from harness.advice.recommend import parse_budget
from harness.advice.search import Outcome, Probe, Round, Search, sizes
from harness.advice.standings import Standings
from harness.cli import main
from harness.deploy.export import Exports
from harness.errors import HarnessError
from harness.journal import Journal
from harness.plan import Cell, Request
from harness.results import Record
from harness.run import Measurer
from harness.totals import total_rows
from patches.candidates import candidates
from tests.harness.reports.test_report import measured
from tests.harness.test_results import ROW
from tests.harness.test_run import request

Losses = Mapping[str, float]
LOSSES = {
    "none": 9.0,
    "truncate": 3.0,
    "ntk": 3.4,
    "yarn": 3.2,
    "rerope": 2.8,
    "rerope+logn": 2.5,
    "dca": 2.9,
    "pi": 8.0,
}
ENGINE = {"ntk", "yarn", "pi"}


class Told:
    """Measures what it was told, and lets a clock of its own run."""

    def __init__(self, losses: Losses, found: Losses | None = None, each: float = 0.0) -> None:
        self.losses, self.found, self.each = losses, found or {}, each
        self.now, self.cells = 0.0, []

    def measure(self, cell: Cell, device: torch.device, progress: Any) -> Record:
        row, spec = cell.template, str(cell.patch)
        self.cells.append((row.task, spec, row.context_length, row.n))
        seconds = self.each * len(cell.samples) * row.context_length / 1024
        self.now += seconds
        row = dataclasses.replace(row, status="ok", seconds=seconds)
        loss = row.task == tasks.in_role("loss")
        samples = [
            {
                "id": sample.id,
                "document": sample.document,
                "scores": [
                    ["nll", "", [self.losses[spec] + index / 100, 1.0]]
                    if loss
                    else ["string_match", "", [self.found.get(spec, 0.0), 1.0]]
                ],
            }
            for index, sample in enumerate(cell.samples)
        ]
        return Record(cell.key, tuple(total_rows(row, samples)), tuple(samples))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "eight"
    folder.mkdir()
    for number in range(8):
        words = (f"word{(number + step * step) % 7} of {step}." for step in range(300))
        (folder / f"{number}.txt").write_text(" ".join(words))
    return folder


Searching = Callable[..., Outcome]


@pytest.fixture
def search(
    checkpoint: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Searching:
    def searching(told: Told, budget: float = 1e6, **changes: object) -> Outcome:
        monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: told.now))
        specs = tuple(spec for spec in told.losses if spec not in ("none", "truncate"))
        asked = request(
            *(checkpoint, texts), n=8, patches=specs, lengths=(1024,), trained_length=512, **changes
        )
        with Journal(tmp_path / "out") as journal:
            given = (asked, torch.device("cpu"), journal, told, Clock(budget))
            return Search(*given, is_deployable=ENGINE.__contains__).run()

    return searching


def test_rounds_have_a_quarter_half_and_all_of_the_documents() -> None:
    assert [sizes(n) for n in (1, 3, 4, 10)] == [[1], [1, 3], [1, 2, 4], [2, 5, 10]]


def test_the_better_half_goes_on_and_the_best_that_can_be_deployed(search: Searching) -> None:
    outcome = search(Told(LOSSES))
    assert [one.n for one in outcome.rounds] == [2, 4, 8]
    assert [set(one.dropped) for one in outcome.rounds] == [{"ntk", "pi"}, {"dca"}, set()]
    assert set(outcome.last.records) == {"none", "truncate", "yarn", "rerope", "rerope+logn"}


def test_baselines_are_in_every_round_and_every_cell_is_stored(
    search: Searching, tmp_path: Path
) -> None:
    told = Told(LOSSES)
    search(told)
    for n in (2, 4, 8):
        there = {spec for task, spec, _, documents in told.cells if documents == n}
        assert {"none", "truncate"} <= there
    again = Told(LOSSES)
    assert search(again).last.records.keys() == {
        "none",
        "truncate",
        "yarn",
        "rerope",
        "rerope+logn",
    }
    assert again.cells == []
    assert (tmp_path / "out" / "results.csv").read_text().count("rerope+logn") == 3


def standings(outcome: Outcome) -> Standings:
    return Standings(outcome, lambda spec: "" if spec in ENGINE else "no setting")


def test_without_a_probe_the_lowest_loss_is_recommended(search: Searching) -> None:
    found = standings(search(Told(LOSSES)))
    assert found.outcome.probe.verdict.startswith(
        "none finds 0.00 of n 8 within the trained 512 already"
    )
    assert [one.spec for one in found.ordered] == [
        "rerope+logn",
        "rerope",
        "truncate",
        "yarn",
        "none",
    ]
    assert found.recommended is not None and found.recommended.spec == "rerope+logn"
    assert found.deployable is None  # yarn is worse than truncate
    assert all("string_match" not in str(one.records) for one in found.outcome.rounds)


def test_the_probe_decides_among_patches_that_documents_do_not_tell_apart(
    search: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = LOSSES | {"rerope": 2.5004, "yarn": 2.9}
    every = dict.fromkeys(close, 1.0)
    found = standings(search(Told(close, every | {"rerope+logn": 0.5, "truncate": 0.25})))
    assert found.outcome.probe.verdict == ""
    assert [one.spec for one in found.ordered][:3] == ["rerope", "rerope+logn", "yarn"]
    assert found.recommended is not None and found.recommended.spec == "rerope"
    assert found.deployable is not None and found.deployable.spec == "yarn"


def test_a_patch_that_retrieves_less_than_truncate_is_not_recommended(search: Searching) -> None:
    every = dict.fromkeys(LOSSES, 0.5)
    found = standings(search(Told(LOSSES, every | {"rerope+logn": 0.25})))
    assert found.ordered[0].spec == "rerope+logn"
    assert found.recommended is not None and found.recommended.spec == "rerope"


def test_nothing_is_recommended_where_nothing_beats_truncate(search: Searching) -> None:
    found = standings(search(Told(LOSSES | {"truncate": 2.5})))  # as good is not better
    assert found.recommended is None and found.deployable is None


def outcome_of(losses: Losses, spread: Mapping[str, list[float]], found: Losses) -> Outcome:
    def probed(spec: str) -> Record:
        row = dataclasses.replace(
            ROW, patch=spec, metric="string_match", better="higher", value=found[spec]
        )
        samples = [
            {"id": f"{i}", "document": f"{i}", "scores": [["string_match", "", [found[spec], 1.0]]]}
            for i in range(8)
        ]
        return Record({"patch": spec}, (row,), tuple(samples))

    records = {
        spec: measured(spec, 128, [loss + one for one in spread[spec]])
        for spec, loss in losses.items()
    }
    probes = {spec: probed(spec) for spec in found}
    return Outcome((Round(8, records, ()),), Probe("needle", probes, ""), 0.0)


def test_no_recommendation_is_ever_worse_than_truncate() -> None:
    draw, specs = random.Random(0), ("none", "truncate", "ntk", "rerope")
    seen = {True: 0, False: 0}
    for _ in range(20):
        losses = {spec: draw.uniform(2, 3) for spec in specs}
        spread = {spec: [draw.uniform(-0.5, 0.5) for _ in range(8)] for spec in specs}
        found = {spec: draw.choice([0.0, 0.5, 1.0]) for spec in specs if draw.random() < 0.8}
        found["truncate"] = draw.choice([0.0, 0.5])
        mean = {spec: losses[spec] + sum(spread[spec]) / 8 for spec in specs}
        good = {
            spec
            for spec in found
            if mean[spec] < mean["truncate"] and found[spec] >= found["truncate"]
        }
        standing = standings(outcome_of(losses, spread, found))
        best, able = standing.recommended, standing.deployable
        assert best.spec in good if best else not good
        assert able.spec in good & ENGINE if able else not good & ENGINE
        seen[best is not None] += 1
    assert min(seen.values()) >= 4


def test_the_budget_holds_and_what_it_leaves_out_is_named(search: Searching) -> None:
    told = Told(LOSSES, each=1.0)
    outcome = search(told, budget=20.0)
    assert told.now <= 20.0
    assert outcome.rounds[0].unmeasured == ("rerope+logn", "dca", "pi")
    tried = {spec for _, spec, _, n in told.cells if n == 2}
    assert tried | set(outcome.rounds[0].unmeasured) == set(LOSSES)
    assert outcome.seconds >= 2.0 * len(outcome.rounds[0].unmeasured)
    assert outcome.probe.verdict


def test_a_budget_of_nothing_measures_the_two_baselines_and_recommends_truncate(
    search: Searching,
) -> None:
    told = Told(LOSSES, each=1.0)
    outcome = search(told, budget=0.5)
    assert {spec for _, spec, _, _ in told.cells} == {"none", "truncate"}
    assert len(told.cells) == 2
    assert standings(outcome).recommended is None


def test_a_patch_that_fails_is_out_and_truncate_must_not_fail(
    search: Searching, tmp_path: Path
) -> None:
    class Failing(Told):
        bad = "rerope+logn"

        def measure(self, cell: Cell, device: torch.device, progress: Any) -> Record:
            record = super().measure(cell, device, progress)
            if str(cell.patch) != self.bad:
                return record
            row = dataclasses.replace(cell.template, status="oom", error="too big")
            return Record(cell.key, (row,), ())

    found = standings(search(Failing(LOSSES)))
    assert found.recommended is not None and found.recommended.spec == "rerope"
    told = Failing(LOSSES)
    told.bad = "truncate"
    with pytest.raises(HarnessError, match=r"truncate failed \(too big\)"):
        search(told, seed=1)


def test_what_a_cell_takes_is_told_by_the_same_patch_else_by_the_slowest() -> None:
    one = Clock(100.0)

    def cell(patch: str, task: str = "ppl", length: int = 128) -> Any:
        row = dataclasses.replace(ROW, patch=patch, task=task, context_length=length)
        return SimpleNamespace(template=row, samples=(1, 2))

    assert one.predicted(cell("ntk")) == 0.0
    for patch, seconds in (("truncate", 2.0), ("none", 6.0)):
        row = dataclasses.replace(ROW, patch=patch, seconds=seconds)
        one.learn(Record({}, (row,), ({}, {}, {}, {})))
    assert one.predicted(cell("truncate")) == one.predicted(cell("truncate", "needle")) == 1.0
    assert one.predicted(cell("ntk")) == 3.0
    assert one.predicted(cell("ntk", length=256)) == 2 * one.predicted(cell("ntk"))
    assert one.predicted(cell("truncate", length=64)) == 0.5


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_budgets_are_read(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--len", "4k", "--budget", "10"], "--budget 10: expected a number above 0 and s, m or h"),
        (["--len", "4k", "--budget", "0m"], "--budget 0m"),
        (["--len", "4k", "--engine", "vlm"], "did you mean 'vllm'?"),
        (["--len", "4k", "--patch", "yran"], "unknown patch 'yran'"),
        (["--len", "4k", "--n", "0"], "--n 0"),
        (["--budget", "10m"], "--len"),
    ],
)
def test_a_mistake_is_one_line_before_torch_is_imported(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    assert main(["recommend", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert time.monotonic() - start < 5


def arguments(checkpoint: Path, texts: Path, out: Path, *more: str) -> list[str]:
    fixed = ["recommend", "--model", str(checkpoint), "--data", str(texts), "--out", str(out)]
    return [*fixed, "--device", "cpu", "--in-process", "--len", "256", *more]


def test_no_patch_is_needed_within_the_trained_length(
    checkpoint: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(checkpoint, texts, tmp_path / "r", "--len", "64")) == 0
    assert "64 is within that: no patch is needed" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()


def test_a_real_model_is_searched_and_the_table_agrees_with_json(
    checkpoint: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--patch", "ntk,none,yarn(ramp=code),rerope", "--n", "2"]
    command = arguments(checkpoint, texts, tmp_path / "r", *more)
    assert main(command) == 0
    printed = capsys.readouterr()
    assert main([*command, "--json"]) == 0
    again = capsys.readouterr()
    found = json.loads(again.out)
    assert again.err.count("0 to run") >= 2 and "[1/" not in again.err
    rows = [line.split() for line in printed.out.split("\n\n")[1].splitlines()]
    assert [row[0] for row in rows] == ["patch", *(one["patch"] for one in found["ranking"])]
    assert f"recommended: {found['recommended']}" in printed.out
    assert printed.out.rstrip().split("\n\n")[-1].startswith("version:")
    assert max(map(len, printed.out.split("\n\n")[1].splitlines())) <= 100
    losses = {one["patch"]: one["loss"] for one in found["ranking"]}
    assert {"none", "truncate"} < set(losses)
    assert losses[found["recommended"]] <= losses["truncate"]
    assert losses[found["deployable"]] <= losses["truncate"]
    dropped = {one["patch"] for one in found["dropped"]}
    assert losses.keys() | dropped == {"none", "truncate", "ntk", "yarn(ramp=code)", "rerope"}


def test_the_export_line_is_a_command_that_prints_the_setting(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = Exports(str(checkpoint), 256, None, "vllm")
    assert export.refused("ntk") == "" and "kernels" in export.refused("rerope+logn")
    assert export.refused("none") == export.setting("none") == ""
    words = export.command("ntk").removeprefix("python -m harness ").split()
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == export.setting("ntk")
    assert export.setting("ntk").startswith("vllm serve")


@pytest.mark.parametrize(("trained", "length"), [(512, 4096), (333, 1000), (8192, 16384)])
def test_candidates_are_different_patches_that_can_be_scored(trained: int, length: int) -> None:
    specs = candidates(trained, length)
    read = [patches.parse(spec) for spec in specs]
    assert len({str(one) for one in read}) == len(specs)
    assert all(one.decoding is None and one.keep is None and one.parts for one in read)
    firsts = [bool(one.bands) for one in read if not one.visible]
    assert firsts.index(True) > 5  # frequencies come before bands


def test_one_task_stands_for_each_role() -> None:
    roles = [entry.role for entry in tasks.TASKS.values() if entry.role]
    assert sorted(roles) == ["loss", "retrieval"]


def test_the_measurer_told_is_one() -> None:
    one: Measurer = Told(LOSSES)
    assert one and Request
