"""Models, data and stored runs that were made to do harm."""

import json
import os
import time
from pathlib import Path

import pytest

from harness import rendering
from harness.cli import main
from tests.faults.rig import descendants

NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ONE_OPERATION = "{{ 7 ** (7 ** 12) }}"  # which no signal stops


@pytest.mark.parametrize("template", [NESTED, ONE_OPERATION])
def test_a_chat_template_without_end_is_stopped(
    template: str,
    own_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 1.0)
    path = own_checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    rendering.server()
    before, start = descendants(os.getpid()), time.monotonic()
    arguments = ["--model", str(own_checkpoint), "--out", str(tmp_path / "out"), "--len", "2k"]
    assert main([*arguments, "--task", "ruler(tasks=vt,chat=on)", "--in-process"]) == 2
    assert time.monotonic() - start < 30
    assert "chat template is not done after 1 s; leave chat=on out" in capsys.readouterr().err
    assert not descendants(os.getpid()) - before
