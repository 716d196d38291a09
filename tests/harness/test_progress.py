"""What stands on stderr while a run goes on: a bar on a terminal, lines in a file."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.harness.conftest import command


def start(arguments: list[str], stderr: int) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-m", "harness", *arguments]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=stderr)


def test_a_terminal_has_a_bar_with_cells_done_eta_and_the_last_value(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 200, 0, 0))
    process = start(command(checkpoint, data, tmp_path), theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    bars = [line for line in re.split(r"[\r\n]+", seen.decode()) if "%|" in line]
    assert "[1/4]" in bars[1] and "[4/4]" in bars[-1] and "12/12" in bars[-1]
    assert re.search(r"<\d\d:\d\d", bars[-1])
    last = [re.search(r"last: nll (\d\.\d+)", line) for line in bars]
    assert last[1] is None and last[-1] is not None
    assert max(map(len, bars)) <= 200


def test_a_file_has_a_line_a_cell_with_its_value_and_no_control_characters(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        assert start(command(checkpoint, data, tmp_path / "out"), file.fileno()).wait() == 0
    text = log.read_text()
    lines = [line for line in text.splitlines() if line.startswith("[")]
    assert [line[:5] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert all(re.search(r" ok nll \d\.\d+ \d+\.\d s$", line) for line in lines)
    assert all(one.isprintable() or one == "\n" for one in text)
