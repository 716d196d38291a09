import fcntl
import re
import tomllib
from pathlib import Path

import pytest
import torch

from harness import doctor
from harness.cli import main
from patches import kernels

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The word of each check, by its name."""
    out = capsys.readouterr().out.splitlines()
    return {line[9:].partition(":")[0]: line.split()[0] for line in out}


def test_all_that_is_needed_works_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--out", str(tmp_path / "run")]) == 0
    words = lines(capsys)
    for name in ("packages", "disk", "locks", "devices", "kernels cpu", "model tiny"):
        assert words[name] == "ok"
    assert words["hub"] == "missing"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_optional_package_breaks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "OPTIONAL", {"no-such-package": "nothing"})
    assert main(["doctor", "--out", str(tmp_path)]) == 0
    assert lines(capsys)["no-such-package"] == "missing"


def test_a_missing_required_package_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-package",))
    assert main(["doctor", "--out", str(tmp_path)]) == 1
    assert lines(capsys)["packages"] == "BROKEN"


def test_wrong_kernels_are_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: torch.Tensor, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = right(*args, **options)
        return out, lse + 0.1

    right = kernels.fused_attention
    monkeypatch.setattr(kernels, "fused_attention", wrong)
    assert main(["doctor", "--out", str(tmp_path)]) == 1
    assert lines(capsys)["kernels cpu"] == "BROKEN"


def test_locks_that_lock_nothing_are_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert main(["doctor", "--out", str(tmp_path)]) == 1
    assert lines(capsys)["locks"] == "BROKEN"


def test_a_place_that_cannot_be_written_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor", "--out", "/proc/run"]) == 1
    assert lines(capsys)["disk"] == "BROKEN"


def test_offline_opens_no_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main(["doctor", "--out", str(tmp_path)]) == 0


def test_the_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[><=]", one)[0] for one in project["dependencies"]]
    assert sorted(names) == sorted(doctor.REQUIRED)
