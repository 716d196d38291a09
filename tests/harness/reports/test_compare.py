import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.journal import Journal
from harness.results import Record, cell_id
from tests.harness.test_results import ROW

NLL = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def cell(patch: str, nll: list[float], length: int = 128, **changes: object) -> Record:
    key = {"model": "small", "task": "ppl", "patch": patch, "context_length": length, "n": 6}
    key |= {"seed": 0, "dtype": "float32", "data_digest": "2" * 12, "device": "cpu", **changes}
    row = dataclasses.replace(
        ROW, patch=patch, context_length=length, value=sum(nll) / len(nll), cell=cell_id(key)
    )
    samples = [
        {"id": f"{index}", "document": f"{index}", "scores": [["nll", "", [value, 1.0]]]}
        for index, value in enumerate(nll)
    ]
    return Record(key, (row,), tuple(samples))


def failed(record: Record) -> Record:
    row = dataclasses.replace(record.rows[0], metric="", value=None, status="oom")
    return Record(record.key, (row,), ())


def run(directory: Path, *records: Record) -> str:
    with Journal(directory) as journal:
        for record in records:
            journal.append(record)
    return str(directory)


def shifted(by: float, spread: float = 0.0) -> list[float]:
    return [value + by + spread * (-1) ** index for index, value in enumerate(NLL)]


def table_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.split("\n\n")[1].splitlines()


@pytest.mark.parametrize(
    ("nll", "verdict"),
    [
        (shifted(0.1), "worse"),
        (shifted(-0.1), "better"),
        (shifted(0.0), "no difference at n 6"),
        (shifted(0.1, spread=2.0), "no difference at n 6"),
        (shifted(0.1)[:5], "none below n 6"),
    ],
)
def test_a_lower_loss_of_b_is_better_where_documents_tell(
    nll: list[float], verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run(tmp_path / "a", cell("none", NLL[: len(nll)]))
    b = run(tmp_path / "b", cell("none", nll))
    assert main(["compare", a, b]) == 0
    assert table_of(capsys)[-1].endswith(f"  {verdict}")


def test_the_difference_is_b_minus_a_with_its_share_of_a(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run(tmp_path / "a", cell("none", NLL))
    b = run(tmp_path / "b", cell("none", shifted(0.35)))
    assert main(["compare", a, b]) == 0
    assert "+0.350 [+0.350, +0.350]  +10.00%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("worse>9.9%", 1),
        ("worse>10.1%", 0),
        ("worse > 0.34", 1),
        ("worse>0.36", 0),
        ("better>0", 0),
    ],
)
def test_fail_if_is_a_share_of_a_or_an_amount(condition: str, code: int, tmp_path: Path) -> None:
    a = run(tmp_path / "a", cell("none", NLL))
    b = run(tmp_path / "b", cell("none", shifted(0.35)))
    assert main(["compare", a, b, "--fail-if", condition]) == code


def test_a_difference_that_documents_do_not_tell_fails_nothing(tmp_path: Path) -> None:
    a = run(tmp_path / "a", cell("none", NLL))
    b = run(tmp_path / "b", cell("none", shifted(0.35, spread=3.0)))
    assert main(["compare", a, b, "--fail-if", "worse>0"]) == 0


def test_a_cell_that_fails_in_b_alone_is_worse(tmp_path: Path) -> None:
    a = run(tmp_path / "a", cell("none", NLL))
    b = run(tmp_path / "b", failed(cell("none", NLL)))
    assert main(["compare", a, b, "--fail-if", "worse>50%"]) == 1
    assert main(["compare", b, a, "--fail-if", "worse>50%"]) == 0


def test_patches_of_one_run_are_compared_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "r", cell("none", NLL), cell("ntk", shifted(-0.5)), cell("yarn(factor=4)", NLL))
    assert main(["compare", f"{tmp_path}/r:none", f"{tmp_path}/r:ntk"]) == 0
    assert table_of(capsys)[-1].endswith("better")
    assert main(["compare", f"{tmp_path}/r:none", f"{tmp_path}/r"]) == 0
    assert len(table_of(capsys)) == 3
    assert main(["compare", f"{tmp_path}/r:none", f"{tmp_path}/r:yarn(factor=4.0)"]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_digest": "9" * 12}, "data_digest (222222222222, 999999999999); run both sides"),
        ({"seed": 1}, "seed (0, 1)"),
        ({"n": 7}, "n (6, 7)"),
        ({"dtype": "bfloat16", "device": "cuda"}, "give --across device,dtype"),
        ({"batch": 4}, "batch (None, 4)"),
        ({"patch": "ntk"}, "no cell in common (patch: none in A, ntk in B)"),
    ],
)
def test_unlike_cells_are_refused_with_what_differs(
    change: dict[str, object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run(tmp_path / "a", cell("none", NLL))
    b = run(tmp_path / "b", cell(**{"patch": "none", "nll": NLL, **change}))
    assert main(["compare", a, b]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_across_lets_a_setting_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", cell("none", NLL))
    b = run(tmp_path / "b", cell("none", shifted(0.1), dtype="bfloat16"))
    assert main(["compare", a, b, "--across", "dtype"]) == 0
    assert table_of(capsys)[-1].endswith("worse")


def test_cells_without_a_partner_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run(tmp_path / "a", cell("none", NLL), cell("none", NLL, 256))
    b = run(tmp_path / "b", cell("none", NLL))
    assert main(["compare", a, b]) == 0
    assert "1 cells of A have no partner" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["A", "B", "--fail-if", "worse>x%"], 2, "--fail-if 'worse>x%': expected worse or better"),
        (["A", "B", "--fail-if", ""], 2, "--fail-if ''"),
        (["A", "B", "--metric", "bleu"], 2, "expected one of nll"),
        (["A", "B", "--across", "dtyp"], 2, "--across dtyp: expected settings of a cell"),
        (["A", "B", "--across", "seed"], 2, "--across seed: other samples cannot be paired"),
        (["A", "B:ntk"], 2, "no cell with patch 'ntk'; it has none"),
        (["A", "B:nntk"], 2, "unknown patch 'nntk'"),
        (["A", "A"], 2, "A and B are the same cells; give two runs, or two patches of one"),
        (["A:none", "A:none"], 2, "A and B are the same cells"),
        (["A", "nowhere"], 6, "no such directory"),
        (["A", "empty"], 6, "no journal"),
        (["A"], 2, "B"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run(Path("A"), cell("none", NLL))
    run(Path("B"), cell("none", shifted(0.1)))
    run(Path("empty"))
    assert main(["compare", *arguments]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_fail_if_needs_enough_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", cell("none", NLL[:3]))
    b = run(tmp_path / "b", cell("none", shifted(5.0)[:3]))
    assert main(["compare", a, b, "--fail-if", "worse>0"]) == 2
    assert "3 documents give no verdict" in capsys.readouterr().err


def test_compare_imports_no_torch(tmp_path: Path) -> None:
    a = run(tmp_path / "a", cell("none", NLL))
    b = run(tmp_path / "b", cell("none", NLL))
    code = (
        "import sys; from harness.cli import main; "
        "sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, "compare", a, b], capture_output=True)
    assert result.returncode == 0, result.stderr
