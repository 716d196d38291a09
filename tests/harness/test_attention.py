import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.attention import LayerRow, means, render_shares
from harness.cli import main
from harness.continued import Faults
from harness.engine import Engine
from harness.reports import figure as figure_module
from harness.reports.bars import conclusion, draw_bars
from tests.harness.test_cli import one_line

ROW = LayerRow(
    model="small",
    patch="none",
    layer=0,
    first_share=0.25,
    sinks_share=0.5,
    far_share=0.125,
    window_share=0.375,
    context_length=2048,
    trained_length=64,
    sinks=4,
    window=16,
    queries=256,
    dtype="float32",
    attention="sdpa",
    chunk=None,
    data="texts",
    data_digest="d",
    weights="w",
    tokenizer="t",
)
OTHER = replace(ROW, layer=1, first_share=0.0, sinks_share=0.0, far_share=0.5, window_share=0.5)


def show(model: Path, data: Path, *more: str) -> list[str]:
    fixed = ["--model", str(model), "--data", str(data), "--device", "cpu"]
    return ["show", "attention", *fixed, *more]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_a_patch_and_a_row_a_layer(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shares.csv"
    patches = "none,rerope(window=8)+logn,window(size=32)"
    arguments = show(checkpoint, data, "--len", "128", "--patch", patches, "--csv", str(out))
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("mean over heads and the newest 92 queries") == 3
    assert printed.count("layer  first token  first 4") == 3
    rows = rows_of(out)
    assert [(row["patch"], row["layer"]) for row in rows] == [
        (patch, layer)
        for patch in ("none", "rerope(window=8)+logn", "window(size=32)")
        for layer in ("0", "1")
    ]
    for row in rows:
        parts = [float(row[name]) for name in ("sinks_share", "far_share", "window_share")]
        assert sum(parts) == pytest.approx(1, abs=1e-6)
        assert 0 <= float(row["first_share"]) <= parts[0]
        assert (row["window"], row["queries"], row["context_length"]) == ("32", "92", "128")
        assert (parts[:2] == [0, 0]) == row["patch"].startswith("window")
    assert {row["attention"] for row in rows} == {"sdpa", "blockwise"}


def test_chunks_change_nothing(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, read = [], []
    forward = Engine.forward

    def spy(self, tokens, *more):
        read.append(len(tokens))
        return forward(self, tokens, *more)

    monkeypatch.setattr(Engine, "forward", spy)
    for chunk in ([], ["--chunk", "48"]):
        out = tmp_path / f"{len(chunk)}.csv"
        more = ["--len", "128", "--patch", "none,dca", *chunk, "--csv", str(out)]
        assert main(show(checkpoint, data, *more)) == 0
        tables.append(rows_of(out))
    assert read == [128, 128, 48, 48, 32, 48, 48, 32]
    for one, other in zip(*tables, strict=True):
        for name in ("first_share", "sinks_share", "far_share", "window_share"):
            assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-6)


def test_what_is_measured_of_the_model_first_is_not_counted(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for name in ("measured", "not"):
        out = tmp_path / f"{name}.csv"
        more = ["--len", "48", "--window", "4", "--sinks", "1", "--csv", str(out)]
        assert main(show(checkpoint, data, *more, "--patch", "none,rerope(window=8)")) == 0
        tables.append(rows_of(out))
        monkeypatch.setattr("harness.engine.faults_of", lambda model: Faults())
    assert tables[0] == tables[1]


def test_memory_that_runs_out_is_one_line(
    checkpoint: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("out\nof memory")

    monkeypatch.setattr(Engine, "forward", full)
    assert main(show(checkpoint, data, "--len", "128")) == 5
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: --len 128: out of memory")


def test_the_window_is_the_trained_length_at_most(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shares.csv"
    main(show(checkpoint, data, "--len", "400", "--sinks", "1", "--csv", str(out)))
    assert {(row["window"], row["sinks"], row["queries"]) for row in rows_of(out)} == {
        ("64", "1", "256")
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--patch", "nnone", "--len", "128"], 2, "unknown patch 'nnone'"),
        (["--patch", "none"], 2, "--len"),
        (["--len", "128,256"], 2, "--len 128,256: expected a positive integer"),
        (["--len", "128", "--window", "x"], 2, "--window x: expected a positive integer"),
        (["--len", "128", "--sinks", "0"], 2, "--sinks 0: expected a positive integer"),
        (["--len", "100", "--window", "96"], 2, "raise --len to more than 100 or lower --window"),
        (["--len", "4"], 2, "--len 4: nothing lies between a window of 1 and 4 first tokens"),
        (["--len", "64k"], 2, "a length of 65536 needs"),
        (["--len", "128", "--patch", "none,truncate"], 2, "'truncate' does not read all"),
        (["--len", "128", "--patch", "nbce"], 2, "'nbce' chooses between several readings"),
        (["--len", "128", "--model", "./nowhere"], 4, "no such directory"),
        (["--len", "128", "--data", "nowhere.txt"], 4, "nowhere.txt"),
        (["--len", "128", "--device", "tpu"], 2, "--device tpu"),
        (["--len", "128", "--dtype", "int3"], 2, "--dtype int3"),
        (["--len", "128", "--csv", "file/below"], 6, "cannot be written"),
        (["--len", "128", "--figure", "file/below"], 6, "cannot be written"),
        (["again", "--len", "128"], 2, "unrecognized arguments: again"),
    ],
)
def test_a_mistake_is_one_line_before_weights_load(
    arguments: list[str],
    code: int,
    words: str,
    own_checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (own_checkpoint / "model.safetensors").write_bytes(b"not weights")
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    capsys.readouterr()
    assert main(show(own_checkpoint, data, *arguments)) == code
    line = one_line(capsys)
    assert line.startswith("error: ") and words in line


def test_a_figure_without_matplotlib_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(figure_module, "find_spec", lambda name: None)
    arguments = ["--model", "./nowhere", "--len", "2k", "--figure", str(tmp_path / "a.png")]
    assert main(["show", "attention", *arguments]) == 2
    assert "need matplotlib" in one_line(capsys)


def test_the_last_line_of_a_table_is_the_mean() -> None:
    assert means([ROW, OTHER]) == [0.125, 0.25, 0.3125, 0.4375]
    lines = render_shares([ROW, OTHER]).splitlines()
    assert lines[0].startswith("small  none  2k of texts")
    assert lines[2].split() == ["layer", "first", "token", "first", "4", "far", "newest", "16"]
    assert lines[3].split() == ["0", "25.0", "%", "50.0", "%", "12.5", "%", "37.5", "%"]
    assert lines[-1].split() == ["mean", "12.5", "%", "25.0", "%", "31.2", "%", "43.8", "%"]


def test_the_title_says_what_the_first_tokens_are_worth() -> None:
    assert "get 25.0 % of the attention,\nwhich a window that hides them" in conclusion(
        [ROW, OTHER]
    )
    assert "get 0.0 %" not in conclusion([OTHER]) and "are hidden" in conclusion([OTHER])
    weak = replace(ROW, first_share=0.01, sinks_share=0.01)
    assert "1.0 % of the attention,\nso a window has little to lose" in conclusion([weak])


def test_bars_stack_to_one_in_the_order_of_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = module.Figure.savefig

    def savefig(self, *args, **kwargs):
        drawn.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(module.Figure, "savefig", savefig)
    tables = [[replace(row, patch=f"p{n}") for row in (ROW, OTHER)] for n in range(5)]
    draw_bars(tables, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    panels = drawn[0].axes
    assert [panel.get_title().splitlines()[0] for panel in panels] == ["p0", "p1", "p2", "p3", "p4"]
    bars = [[(bar.get_y(), bar.get_height()) for bar in group] for group in panels[0].containers]
    assert bars == [
        [(0, 0.25), (0, 0)],
        [(0.25, 0.25), (0, 0)],
        [(0.5, 0.125), (0, 0.5)],
        [(0.625, 0.375), (0.5, 0.5)],
    ]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [
        "first token",
        "first 4 without it",
        "far",
        "newest 16",
    ]
