import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.terminal import printable
from tests.harness.reports.test_compare import NLL, cell, failed, run, shifted

GREEN, RED = "\x1b[32m", "\x1b[31m"
COLOUR = re.compile(r"\x1b\[\d*m")


@pytest.fixture
def sides(tmp_path: Path) -> list[str]:
    a = run(tmp_path / "a", *(cell(patch, NLL) for patch in ("none", "ntk", "yarn")))
    b = run(
        tmp_path / "b",
        cell("none", shifted(0.5)),
        cell("ntk", shifted(-0.5)),
        failed(cell("yarn", NLL)),
    )
    return [a, b]


def seen(*words: str, on_terminal: bool = True, **variables: str) -> str:
    """What a command prints, on a terminal or into a pipe."""
    words = (sys.executable, "-m", "harness", *words)
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", **variables}
    if not on_terminal:
        return subprocess.run(
            words, capture_output=True, text=True, check=True, env=environment
        ).stdout
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        words, stdout=theirs, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment
    )
    os.close(theirs)
    read = b""
    try:
        while part := os.read(ours, 65536):
            read += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return read.decode().replace("\r\n", "\n")


def test_verdicts_have_a_colour_on_a_terminal_and_nothing_else_changes(sides: list[str]) -> None:
    there, piped = seen("compare", *sides), seen("compare", *sides, on_terminal=False)
    assert f"{RED}worse\x1b[0m\n" in there
    assert f"{GREEN}better\x1b[0m\n" in there
    assert f"{RED}B failed\x1b[0m\n" in there
    assert len(COLOUR.findall(there)) == 2 * 4  # and the status of the one that failed
    assert COLOUR.sub("", there) == piped


def test_failures_have_a_colour_in_tables(sides: list[str]) -> None:
    there = seen("report", sides[1])
    assert re.search(rf"^yarn +{re.escape(RED)}oom\x1b\[0m$", there, flags=re.MULTILINE)
    assert len(COLOUR.findall(there)) == 2


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_switched_off(sides: list[str], variables: dict[str, str]) -> None:
    assert "worse" in (text := seen("compare", *sides, **variables))
    assert "\x1b" not in text


def test_json_and_files_have_no_colour(sides: list[str]) -> None:
    assert "\x1b" not in seen("compare", *sides, "--json")
    assert "\x1b" not in seen("report", sides[1], on_terminal=False)
    assert b"\x1b" not in (Path(sides[1]) / "results.csv").read_bytes()


def test_what_cannot_be_printed_is_a_question_mark() -> None:
    assert printable("a\x1b[31m\u202eb\nç 中\r") == "a?[31m?b\nç 中?"
