import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import caret
from harness.journal import read_journal

HEAVY = ("torch", "numpy", "transformers")


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "patches"],
        *(
            [command, "--help"]
            for command in (
                "run",
                "rescore",
                "export",
                "doctor",
                "report",
                "recommend",
                "completion",
            )
        ),
    ],
)
def test_help_and_lists_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from harness.cli import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_help_takes_less_than_300_ms_of_processor() -> None:
    times = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "harness", "--help"], check=True, capture_output=True)
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))  # of children, user and system
    assert min(times) <= 0.3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--len", "32kb"], 2, "--len 32kb: expected a positive integer"),
        (["--patch", "nnone"], 2, "unknown patch 'nnone'; expected one of"),
        (["--task", "pppl"], 2, "did you mean 'ppl'?"),
        (["--model", "tinny"], 2, "did you mean 'tiny'?"),
        (["--model", ""], 2, "--model ''"),
        (["--model", "./nowhere"], 4, "no such directory"),
        (["--model", "nowhere.gguf"], 4, "no such file"),
        (["--data", "nowhere.txt"], 4, "nowhere.txt"),
        (["--n", "0"], 2, "--n 0"),
        (["--n", "x"], 2, "--n"),
        (["--seed", "-1"], 2, "--seed -1"),
        (["--chunk", "0"], 2, "--chunk 0"),
        (["--dtype", "int3"], 2, "--dtype int3: expected auto, fp32, bf16 or fp16"),
        (["--device", "tpu"], 2, "--device tpu: expected auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], 2, "CUDA devices"),
        (["--unknown"], 2, "--unknown"),
        (["--pach", "ntk"], 2, "--pach ntk; did you mean '--patch'? (python -m harness --help)"),
        (["--dtype", "bf61"], 2, "did you mean 'bf16'?"),
        (["list", "pachtes"], 2, "did you mean 'patches'? (python -m harness list --help)"),
        (["plot"], 2, "unknown command 'plot'"),
        (["compar", "a", "b"], 2, "did you mean 'compare'?"),
        (["list", "things"], 2, "things"),
        (["show", "pppl"], 2, "did you mean 'ppl'?"),
        (["--figure", "x.doc"], 2, "--figure x.doc: drawn as its name ends, which is one of .png"),
        (["report", "x", "--figure", "x"], 2, "--figure x: drawn as its name ends"),
        (
            ["report", "x", "--html", "p", "--json"],
            2,
            "--html writes files instead of tables",
        ),
        (["report", "x", "--format", "leval", "d", "--csv", "c"], 2, "leave out --csv"),
        (["show", "ntk+yarn"], 2, "both set the RoPE frequencies"),
        (["report", "nowhere"], 6, "no such directory"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    ("option", "text", "shown", "marked"),
    [
        ("--patch", "none,ntk(factor=8+logn", "none,ntk(factor=8+logn", "(factor=8+logn"),
        ("--patch", "ntk+rerope)", "ntk+rerope)", ")"),
        ("--patch", "none,ntk + yran(factor=8)", "ntk + yran(factor=8)", "yran(factor=8)"),
        ("--patch", "logn+rerope( windw=4)", "logn+rerope( windw=4)", "windw=4)"),
        ("--patch", "logn+yarn(ramp=code,factor=x)", "logn+yarn(ramp=code,factor=x)", "factor=x)"),
        ("--patch", "yarn(factor={2,x})", "yarn(factor=x)", "factor=x)"),
        (
            "--patch",
            "pi+yarn(ramp=code,ramp=paper)",
            "pi+yarn(ramp=code,ramp=paper)",
            "ramp=paper)",
        ),
        ("--patch", "pi+ntk(factor)", "pi+ntk(factor)", "factor)"),
        ("--patch", "ntk factor=8", "ntk factor=8", "factor=8"),
        ("--patch", "ntk,,yarn", "ntk,,yarn", ",yarn"),
        ("--task", "ppl,", "ppl,", ""),
        ("--task", "ppl,ppl(protocol=slidng)", "ppl(protocol=slidng)", "protocol=slidng)"),
        ("--task", "needle(keys=2, kees=3)", "needle(keys=2, kees=3)", "kees=3)"),
        ("--task", "needle(keys=2,keys=3)", "needle(keys=2,keys=3)", "keys=3)"),
        ("--task", "ppl protocol", "ppl protocol", "protocol"),
        ("--len", "4k, 8kk,2k", "4k, 8kk,2k", "8kk,2k"),
        ("--len", "1k,4k:2k:x2", "1k,4k:2k:x2", "4k:2k:x2"),
    ],
)
def test_a_caret_points_to_what_cannot_be_read(
    option: str, text: str, shown: str, marked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([option, text]) == 2
    error, spec, pointer = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and spec == f"  {shown}"
    assert spec[pointer.index("^") :] == marked
    assert pointer.strip() == "^"


@pytest.mark.parametrize("command", ["run", "recommend"])
def test_one_of_several_ranks_is_told_how_to_share_cells(
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert main([command, "--len", "1k", "--out", str(tmp_path / "out")]) == 2
    assert "started as one of 2 ranks" in one_line(capsys)
    assert not [*tmp_path.iterdir()]


def test_a_caret_in_a_long_text_has_what_stands_around_it() -> None:
    text = f"{'a' * 200}\t!{'b' * 200}"
    line, pointer, *rest = caret(text, 201).splitlines()
    assert line[len(pointer) - 1] == "!" and len(line) <= 100 and rest == []
    assert line.startswith("  ...aaa") and line.endswith("bbb...") and "a !b" in line
    assert caret(text, 0) == caret("", 3) == ""


@pytest.mark.parametrize("option", ["--out", "--csv", "--figure"])
def test_places_that_cannot_be_written_are_refused_before_anything_is_read(
    option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["--model", "./nowhere", option, "file/below"]) == 6
    assert "cannot be written" in one_line(capsys)


def test_data_too_short_for_a_length_is_refused_before_weights_load(
    capsys: pytest.CaptureFixture[str],
    own_checkpoint: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    (own_checkpoint / "model.safetensors").write_bytes(b"not weights")
    capsys.readouterr()
    arguments = ["--model", str(own_checkpoint), "--data", str(data), "--len", "64k"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "length of 65536" in one_line(capsys)


def test_a_model_that_is_not_here_is_told_how_to_get(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nmore text")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    arguments = ["--model", "llama", "--patch", "ntk", "--len", "32k"]
    assert main([*arguments, "--out", str(tmp_path)]) == 4
    line = one_line(capsys)
    assert "huggingface-cli download meta-llama/Llama-2-7b-hf" in line
    assert "--model tiny" in line
    assert "local path" in line


@pytest.mark.parametrize("arguments", [["show", "ppl"], ["list"], ["doctor"]])
def test_a_reader_who_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    command = [sys.executable, "-u", "-m", "harness", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_on_a_full_disk_is_one_line(unbuffered: str) -> None:
    command = [sys.executable, "-m", "harness", "show", "ppl"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False
        )
    assert done.returncode == 6
    assert done.stderr.startswith("error: the output cannot be written (No space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_cost_no_cell_and_no_file_gets_their_number(
    closed: str, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m harness --len 512 --n 1 --out {tmp_path}/run"
    done = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = read_journal(tmp_path / "run")
    assert record.rows[0].status == "ok"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("logn+ntk", ["ntk+logn", "ntk  (frequencies)", "logn  (query scale)"]),
        ("rerope(window=1k)", ["rerope(window=1024)", "rerope  (bands)"]),
        ("ppl(protocol=sliding)", ["ppl: loss"]),
    ],
)
def test_show_explains_the_parts_of_a_spec(
    spec: str, named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", spec]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = [next(i for i, line in enumerate(lines) if line.startswith(one)) for one in named]
    assert at == sorted(at) and at[0] == 0


@pytest.mark.parametrize(
    ("spec", "meant"), [("ntk+lgn", "logn"), ("ppl(protcol=last)", "protocol")]
)
def test_show_points_to_what_it_cannot_read(
    spec: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", spec]) == 2
    error, shown, pointer = capsys.readouterr().err.splitlines()
    assert f"did you mean '{meant}'?" in error
    assert shown.strip() == spec and pointer.strip() == "^"


@pytest.mark.parametrize("name", ["none", "ppl", "tiny"])
def test_show_explains_patches_tasks_and_models(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", name]) == 0
    assert capsys.readouterr().out.startswith(name)
