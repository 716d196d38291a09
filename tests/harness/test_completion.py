"""The completion script, sourced by a real bash."""

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import commands, main
from harness.completion import render
from harness.models import MODELS
from harness.options import Parser, parser_of
from patches import PATCHES
from tasks import TASKS

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "script.bash"
    path.write_text(render(commands()))
    return path


def complete(script: Path, *words: str) -> list[str]:
    """What Tab offers at the end of the last word."""
    line = " ".join(map(shlex.quote, ["python", "-m", "harness", *words]))
    code = (
        f"source {shlex.quote(str(script))}\n"
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) + 2}\n"
        '_length_harness; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run(
        [str(BASH), "--norc", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    return result.stdout.split()


def test_the_first_word_is_a_command(script: Path) -> None:
    assert set(complete(script, "")) == set(commands())
    assert complete(script, "rec") == ["recommend"]


def test_every_option_of_every_command_is_offered(script: Path) -> None:
    for name, command in commands().items():
        parser: Parser = parser_of(command)
        wanted = {word for action in parser._actions for word in action.option_strings}
        assert {"--help"} <= wanted
        assert set(complete(script, name, "-")) == wanted, name
    assert "--sinks" in complete(script, "show", "attention", "--s")
    assert complete(script, "--shar") == complete(script, "run", "--shar") == ["--shard"]


@pytest.mark.parametrize(
    ("option", "names"), [("--patch", PATCHES), ("--task", TASKS), ("--model", MODELS)]
)
def test_names_come_from_the_tables(script: Path, option: str, names: dict[str, object]) -> None:
    assert set(complete(script, option, "")) == set(names)
    assert set(complete(script, "run", "--json", option, "")) == set(names)


def test_lists_go_on_behind_a_comma_and_a_plus(script: Path) -> None:
    assert complete(script, "--patch", "none,yar") == ["none,yarn", "none,yarn-scale"]
    assert complete(script, "--patch", "none,rerope+logn,pc") == ["none,rerope+logn,pcw"]
    assert complete(script, "--patch", "'rerope(window=1k)+logn,ya") == [
        "rerope(window=1k)+logn,yarn",
        "rerope(window=1k)+logn,yarn-scale",
    ]
    assert complete(script, "--patch", "=", "llam") == ["llama3"]  # bash cuts at =


def test_values_that_are_words_are_offered_and_numbers_are_not(script: Path) -> None:
    assert complete(script, "export", "--engine", "v") == ["vllm"]
    assert complete(script, "--dtype", "bf") == ["bf16", "bfloat16"]
    assert complete(script, "list", "p") == ["patches"]
    assert complete(script, "show", "self") == ["self-extend"]
    assert complete(script, "completion", "") == ["bash", "zsh"]
    assert complete(script, "--n", "") == []


def test_other_uses_of_python_are_left_to_what_completed_them(script: Path) -> None:
    code = (
        "_other() { COMPREPLY=(theirs); }; complete -F _other python\n"
        f"source {shlex.quote(str(script))}; source {shlex.quote(str(script))}\n"
        "COMP_WORDS=(python -m pip ''); COMP_CWORD=3\n_length_harness\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run([str(BASH), "--norc", "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("theirs", "")


def read(terminal: int, until: bytes) -> Iterator[bytes]:
    seen, end = b"", time.monotonic() + 30
    while until not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, seen
        seen += os.read(terminal, 4096)
        yield seen


def test_tab_completes_in_a_terminal(script: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.environ |= {"PS1": "ready> ", "TERM": "dumb", "INPUTRC": "/dev/null"}
        os.execv(str(BASH), ["bash", "--norc", "--noprofile", "-i"])
    try:
        assert list(read(terminal, b"ready> "))
        os.write(terminal, f"source {shlex.quote(str(script))}; echo sour''ced\n".encode())
        assert list(read(terminal, b"sourced\r\nready> "))
        os.write(terminal, b"echo python -m harness; python -m harness recom\t--pat\tself-e\t")
        assert list(read(terminal, b"recommend --patch self-extend"))
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def test_the_script_of_zsh_is_read_by_its_bashcompinit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("bashcompinit") < printed.index("complete -o bashdefault")
    assert main(["completion", "fish"]) == 2
    assert "'fish': expected one of bash, zsh" in capsys.readouterr().err


def test_it_is_printed_without_torch() -> None:
    code = (
        "import sys; from harness.cli import main; "
        "sys.exit(main(['completion', 'bash']) or 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert result.returncode == 0, result.stderr
