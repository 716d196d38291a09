"""Official prompts and limits in the benchmarks' own repositories, each at one revision."""

import hashlib
from dataclasses import dataclass

__all__ = ["PINNED", "Pinned"]

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

    def is_it(self, content: bytes) -> bool:
        """Whether these are its bytes."""
        return hashlib.sha256(content).hexdigest() == self.sha256


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
PINNED = {"longbench": V1, "longbench-e": V1, "longbench-v2": V2}
