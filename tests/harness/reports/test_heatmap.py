from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.reports import figure as figure_module
from harness.reports.heatmap import draw_heatmaps, has_depths
from harness.results import Record
from tests.harness.test_results import ROW

figure = pytest.importorskip("matplotlib.figure")


def measured(patch: str, length: int, values: dict[float, float], status: str = "ok") -> Record:
    row = dataclasses.replace(
        ROW, patch=patch, context_length=length, metric="string_match", better="higher"
    )
    if status != "ok":
        return Record({}, (dataclasses.replace(row, value=None, metric="", status=status),), ())
    rows = [dataclasses.replace(row, value=0.125)]
    rows += [
        dataclasses.replace(row, position=f"depth {depth:g}", value=value)
        for depth, value in values.items()
    ]
    return Record({}, tuple(rows), ())


GROUP = [
    measured("none", 64, {0.0: 1.0, 1.0: 0.5, 0.5: 0.0}),
    measured("none", 256, {0.0: 0.1, 1.0: 0.2, 0.5: 0.3}),
    measured("none", 512, {}, status="oom"),
    measured("dca", 64, {}, status="nan"),
]


def drawn():
    page = figure.Figure()
    draw_heatmaps(page, GROUP)
    return page


def test_values_stand_by_depth_and_length() -> None:
    grid = np.asarray(drawn().axes[0].images[0].get_array().filled(np.nan))
    expected = [[1.0, 0.1, np.nan], [0.0, 0.3, np.nan], [0.5, 0.2, np.nan]]
    np.testing.assert_array_equal(grid, expected)


def test_every_value_and_every_failure_is_written_in_its_place() -> None:
    first, second = drawn().axes
    texts = {(one.get_text(), one.xy) for one in first.texts}
    assert {("1", (0, 0)), ("0.5", (0, 2)), ("0.1", (1, 0)), ("oom", (2, 1.0))} <= texts
    assert len(texts) == 7
    assert [(one.get_text(), one.xy) for one in second.texts] == [("nan", (0, 1.0))]
    assert first.get_title() == "none\nmean 0.12" and second.get_title() == "dca\n"
    assert [one.get_text() for one in first.get_xticklabels()] == ["64", "256", "512"]


def test_only_series_with_depths_have_a_map() -> None:
    assert has_depths(GROUP)
    assert not has_depths(GROUP[2:])


def test_the_figure_has_the_maps_of_every_series_with_depths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []
    monkeypatch.setattr(figure_module, "draw_heatmaps", lambda _, group: seen.append(len(group)))
    keyed = [dataclasses.replace(one, key={"patch": str(index)}) for index, one in enumerate(GROUP)]
    figure_module.draw(keyed, tmp_path / "f.png")
    assert seen == [4]


def test_long_names_stay_within_the_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = f"ruler(tasks={'+'.join(f'niah_multikey_{index}' for index in range(12))})"
    names = ["rerope(window=256)+logn+native-window", "window(layers=0:8,size=2048)+sinks(keep=4)"]
    group = [
        dataclasses.replace(
            one, rows=tuple(dataclasses.replace(row, task=task) for row in one.rows)
        )
        for name in names
        for one in (measured(name, length, {0.0: 0.1, 1.0: 0.2}) for length in (64, 256))
    ]
    boxes: list[tuple[str, bool]] = []
    save = figure.Figure.savefig

    def kept(page, *args, **kwargs) -> None:
        save(page, *args, **kwargs)
        for panel in page.axes:
            room = panel.bbox.width if panel.images else page.bbox.width
            boxes.append((panel.get_title(), panel.title.get_window_extent().width <= room))
        title = page.subfigs[1].texts[0]
        boxes.append((title.get_text(), title.get_window_extent().width <= page.bbox.width))

    monkeypatch.setattr(figure.Figure, "savefig", kept)
    figure_module.draw(group, tmp_path / "f.png")
    assert len(boxes) == 4
    assert all(fits for _, fits in boxes), boxes
