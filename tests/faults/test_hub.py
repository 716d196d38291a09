"""A hub on this machine that answers wrongly."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SECRET = "hf_this_is_a_secret"
GATED, GONE = {"X-Error-Code": "GatedRepo"}, {"X-Error-Code": "RepoNotFound"}
ANSWERS = {  # by the name of the model: status, headers, promised bytes, body
    "gated": (401, GATED, 2, b"{}"),
    "forbidden": (403, {}, 2, b"{}"),
    "gone": (404, GONE, 2, b"{}"),
    "busy": (429, {}, 2, b"{}"),
    "broken": (500, {}, 2, b"{}"),
    "cut": (200, {}, 1000, b'{"id":'),
    "empty": (200, {}, 2, b"{}"),
    "silent": (200, {}, 2, b"{}"),  # once it is too late
}
WORDS = {
    "gated": "is gated: accept its licence",
    "forbidden": "the hub did not give it (",
    "gone": "the hub has no such model; check the name",
    "busy": "429 Too Many Requests",
    "broken": "500 Internal Server Error",
    "cut": "the hub did not give it (",
    "empty": "the hub did not give it (",
    "silent": "the hub did not give it (no answer within 5 s)",
}
CODE = """
import contextlib, io, json, sys
from harness.cli import main
found = {}
for name in sys.argv[2:]:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["--model", f"owner/{name}", "--in-process", "--out", f"{sys.argv[1]}/{name}"])
    found[name] = code, said.getvalue()
with contextlib.redirect_stdout(io.StringIO()):
    assert main(["--in-process", "--n", "1", "--out", f"{sys.argv[1]}/tiny"]) == 0
print(json.dumps(found))
"""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked for."""
    asked: list[str] = []
    released = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name = next(one for one in ANSWERS if f"/{one}/" in f"{self.path}/")
            status, headers, size, body = ANSWERS[name]
            if name == "silent":
                released.wait(60)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(size)}.items():
                self.send_header(key, value)
            with suppress(ConnectionError):  # nobody waits any more
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_the_hub_does_wrong_is_one_line_and_the_token_stays_secret(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = hub
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_TOKEN": SECRET, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "out"), *ANSWERS],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    for name, (code, said) in json.loads(done.stdout).items():
        assert code == 4, said
        assert said.count("\n") == 1 and WORDS[name] in said, said
        assert 1 <= sum(f"/{name}/" in f"{path}/" for path in asked) <= 3
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) > 2 and not [path for path in files if SECRET.encode() in path.read_bytes()]
