"""The software and device that rows are measured with."""

import hashlib
import platform
from functools import cache
from pathlib import Path

import torch
import transformers

__all__ = ["code", "device_name", "environment", "versions"]


def environment(device: torch.device) -> dict[str, str]:
    """What a run directory says of where its rows come from."""
    return {
        "device_name": device_name(device),
        "platform": platform.platform(),
        "versions": versions(),
        "code": code(),
    }


def device_name(device: torch.device) -> str:
    """The GPU, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def versions() -> str:
    """Of what numbers may depend on."""
    return (
        f"torch {torch.__version__} transformers {transformers.__version__} "
        f"python {platform.python_version()}"
    )


@cache
def code() -> str:
    """sha256 of the sources of the three packages, 12 hex digits."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for package in ("harness", "patches", "tasks"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]
