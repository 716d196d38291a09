import dataclasses
from pathlib import Path

import pytest

from harness.lengths import render_length
from harness.reports.figure import draw
from harness.reports.report import render_tables
from harness.reports.series import series
from harness.results import Record
from tests.harness.test_results import ROW


def measured(patch: str, length: int, nll: list[float], status: str = "ok") -> Record:
    row = dataclasses.replace(ROW, patch=patch, context_length=length, value=sum(nll) / len(nll))
    key = {"model": "small", "task": "ppl", "patch": patch, "context_length": length}
    if status != "ok":
        failed = dataclasses.replace(row, metric="", value=None, status=status)
        return Record(key, (failed,), ())
    samples = [
        {"id": f"{index}", "document": f"{index}", "scores": [["nll", "", [value, 1.0]]]}
        for index, value in enumerate(nll)
    ]
    return Record(key, (row,), tuple(samples))


RECORDS = [
    measured("none", 64, [1.0, 2.0, 3.0]),
    measured("ntk", 64, [1.5, 2.5, 3.5]),
    measured("none", 128, [9.0, 9.0, 9.0]),
    measured("ntk", 128, [0.0], status="oom"),
]


def line(text: str, title: str, start: str) -> str:
    return next(one for one in text[text.index(title) :].splitlines() if one.startswith(start))


def test_differences_are_paired_and_against_the_same_length() -> None:
    text = render_tables(RECORDS)
    assert "+0.500 [+0.500, +0.500]" in line(text, "difference to none", "ntk")


@pytest.mark.parametrize(("documents", "marked"), [(5, False), (6, True)])
def test_a_difference_is_marked_from_six_documents_on(documents: int, marked: bool) -> None:
    nll = [float(index) for index in range(documents)]
    pair = [measured("none", 64, nll), measured("ntk", 64, [value + 1 for value in nll])]
    text = render_tables(pair)
    assert line(text, "difference to none", "ntk").endswith("*") is marked
    equal = [pair[0], measured("ntk", 64, nll)]
    assert not line(render_tables(equal), "difference to none", "ntk").endswith("*")


def test_growth_is_paired_with_the_same_patch_at_the_trained_length_and_has_a_verdict() -> None:
    trained = ROW.trained_length
    nll = [float(index * index) for index in range(8)]
    shifted = {"none": 0.5, "ntk": -0.25, "yarn": 0.0}
    records = []
    for patch, shift in shifted.items():
        records.append(measured(patch, trained, nll))
        records.append(measured(patch, 2 * trained, [9.0] * 8))
        records.append(measured(patch, 4 * trained, [value + shift for value in nll]))
    records.append(measured("pi", 4 * trained, nll))
    title = f"nll: difference to the same patch at {render_length(trained)}"
    text = render_tables(records)
    table = text[text.index(title) :].split("\n\n")[0]
    longest = render_length(4 * trained)
    assert line(table, title, "none").endswith(f"+0.500 [+0.500, +0.500]*  rises to {longest}")
    assert line(table, title, "ntk").endswith(f"-0.250 [-0.250, -0.250]*  falls to {longest}")
    assert line(table, title, "yarn").endswith("not told apart")
    assert "\npi" not in table


def test_growth_needs_as_many_scored_tokens_at_both_lengths() -> None:
    short = measured("none", ROW.trained_length, [1.0] * 8)
    long = measured("none", 2 * ROW.trained_length, [1.0] * 8)
    assert "same patch" in render_tables([short, long])
    for sample in long.samples:
        sample["scores"][0][2] = [2.0, 2.0]
    assert "same patch" not in render_tables([short, long])


def test_growth_needs_the_same_samples_at_both_lengths() -> None:
    trained = ROW.trained_length
    fewer = measured("none", 2 * trained, [1.0] * 7)
    assert "same patch" not in render_tables([measured("none", trained, [1.0] * 8), fewer])


def test_positions_are_left_out_where_there_is_a_value_of_all_and_shown_where_there_is_none() -> (
    None
):
    (both,) = [measured("none", 64, [1.0, 2.0])]
    half = dataclasses.replace(both.rows[0], position="0:32")
    with_all = Record(both.key, (both.rows[0], half), both.samples)
    assert "at 0:32" not in render_tables([with_all])
    assert "nll at 0:32" in render_tables([Record(both.key, (half,), ())])


def test_a_difference_that_is_printed_as_zero_is_not_marked() -> None:
    nll = [float(index) for index in range(8)]
    pair = [measured("none", 64, nll), measured("ntk", 64, [value + 1e-5 for value in nll])]
    assert "+0.000 [+0.000, +0.000]\n" in render_tables(pair)


def test_a_failed_cell_shows_its_status_in_its_place() -> None:
    assert line(render_tables(RECORDS), "nll, lower", "ntk").split()[-1] == "oom"


def scored(patch: str, length: int, parts: dict[str, float]) -> Record:
    mean = sum(parts.values()) / len(parts)
    rows = [
        dataclasses.replace(
            ROW,
            patch=patch,
            context_length=length,
            metric="ruler",
            better="higher",
            position=name,
            value=value,
        )
        for name, value in {"": mean, **parts}.items()
    ]
    key = {"model": "small", "task": "ruler", "patch": patch, "context_length": length}
    return Record(key, tuple(rows), ())


BENCHMARK = [
    scored("none", 64, {"vt": 80.0, "fwe": 100.0}),
    scored("none", 128, {"vt": 71.2, "fwe": 100.0}),
    scored("none", 256, {"vt": 10.0, "fwe": 50.0}),
    scored("ntk", 64, {"vt": 71.0, "fwe": 100.0}),
]


def test_the_effective_length_is_the_longest_that_reaches_the_threshold() -> None:
    text = render_tables(BENCHMARK)
    assert line(text, "ruler, higher", "none").endswith("effective length 128 (>= 85.6)")
    assert line(text, "ruler, higher", "ntk").endswith("none >= 85.6")
    text = render_tables(BENCHMARK, threshold=30)
    assert line(text, "ruler, higher", "none").endswith("effective length 256 (>= 30)")


def test_a_threshold_of_a_loss_is_reached_from_above() -> None:
    text = render_tables(RECORDS, threshold=2.1)
    assert line(text, "nll, lower", "none").endswith("effective length 64 (<= 2.1)")
    assert "effective" not in render_tables(RECORDS)


def test_the_parts_of_a_benchmark_have_a_table_for_each_patch() -> None:
    text = render_tables(BENCHMARK)
    assert line(text, "ruler of none, by task", "vt").split()[1:] == [
        "80.000",
        "71.200",
        "10.000",
    ]
    assert line(text, "ruler of ntk, by task", "fwe").split()[1] == "100.000"


def test_depths_and_ranges_of_tokens_are_no_parts() -> None:
    for name in ("depth 0.5", "0:64"):
        assert "by task" not in render_tables([scored("none", 64, {name: 80.0})])


def test_samples_that_differ_are_never_paired() -> None:
    other = measured("ntk", 64, [1.5, 2.5])
    assert "difference" not in render_tables([RECORDS[0], other])


@pytest.mark.parametrize(
    ("name", "begin"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")]
)
def test_a_figure_is_drawn_as_its_name_ends_with_holes_where_cells_failed(
    name: str, begin: bytes, tmp_path: Path
) -> None:
    draw(RECORDS, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_no_figure_is_drawn_of_nothing(tmp_path: Path) -> None:
    draw(RECORDS[3:], tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("count", [1, 20])
def test_any_number_of_patches_has_a_style(count: int, tmp_path: Path) -> None:
    draw([measured(f"p{index}", 64, [1.0]) for index in range(count)], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_patches_that_ignore_the_batch_stand_beside_any_batch() -> None:
    def of(patch: str, batch: int | None, nll: float) -> Record:
        made = measured(patch, ROW.context_length, [nll] * 3)
        return dataclasses.replace(made, key=made.key | ({"batch": batch} if batch else {}))

    both = [of("none", 8, 3.0), of("nbce(pooling=average)+logn", None, 2.0)]
    assert "difference to none" in render_tables(both)
    groups = series([*both, of("none", None, 4.0), of("ntk", None, 5.0), of("ntk", 8, 6.0)])
    tables = [
        [(one.rows[0].patch, one.rows[0].value) for one in group] for group in groups.values()
    ]
    mixed = ("nbce(pooling=average)+logn", 2.0)
    assert tables == [
        [("none", 3.0), mixed, ("ntk", 6.0)],
        [mixed, ("none", 4.0), ("ntk", 5.0)],
    ]
    assert len(series(both[1:])) == 1
