"""The command `fetch`: official prompts of a benchmark, once, from where its authors have them.

Nothing else of the program looks for them on the network. Imports no torch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Protocol
from urllib.request import urlopen

from harness.errors import HarnessError, Unavailable
from harness.options import Parser, check_target
from harness.results import write_atomically
from patches.spec import did_you_mean
from tasks.pinned import PINNED, Pinned, Remote

__all__ = ["fetch", "main"]

OFFLINE, YES = "HF_HUB_OFFLINE", ("1", "on", "yes", "true")
SECONDS = 10.0


class Answer(Protocol):
    """What comes back from an address."""

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes."""

    def close(self) -> None:
        """End it."""


Open = Callable[[str, float], Answer]


def main(argv: Sequence[str]) -> int:
    """Fetch what is missing, and say where it is.

    Raises:
        HarnessError: a mistake in the arguments.
        Unavailable: see `fetch`.
        ResultsError: the directory cannot be written.
    """
    parser = Parser(
        prog="python -m harness fetch",
        description="Get a benchmark's official prompts and limits into DIR/prompts; --data DIR "
        "then takes them. Revision and sha256 are fixed; with HF_HUB_OFFLINE=1 nothing is asked.",
        allow_abbrev=False,
    )
    parser.add_argument("benchmark", help=", ".join(PINNED))
    parser.add_argument("directory", type=Path, metavar="DIR", help="where the rows are")
    options = parser.parse_args(argv)
    if options.benchmark not in PINNED:
        raise HarnessError(
            f"unknown benchmark '{options.benchmark}'; expected one of {', '.join(PINNED)}"
            f"{did_you_mean(options.benchmark, PINNED)}; of others no file is pinned"
        )
    for line in fetch(PINNED[options.benchmark], options.directory, _open):
        print(line)
    return 0


def fetch(files: Sequence[Pinned], directory: Path, opener: Open) -> Iterator[str]:
    """Bring files to DIR/prompts unless they are in DIR; yield a line about each.

    Args:
        files: what is wanted.
        directory: whatever holds the rows; made if it is not there.
        opener: from an address and the seconds it may take to what it sends.

    Raises:
        Unavailable: it is not reached, must not be asked, sends something else, or the directory
            holds another file of that name.
        ResultsError: the directory cannot be written.
    """
    for file in files:
        there = sorted(directory.rglob(file.name)) if directory.is_dir() else []
        if there:
            _check(there[0], file)
            yield f"{there[0]}: there already"
            continue
        target = directory / "prompts" / file.name
        check_target(target)
        write_atomically(target, _download(file, target, opener))
        yield f"{target}: from {file.origin}"


def _check(path: Path, file: Pinned) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path}: cannot be read ({error.strerror}); check its rights") from None
    if not file.is_it(content):
        raise Unavailable(
            f"{path}: not the file of {file.origin} (sha256 {file.sha256[:12]}); keep it and use "
            "it as it is, or move it away and fetch again"
        )


def _download(file: Pinned, target: Path, opener: Open) -> bytes:
    by_hand = f"put it at {target} yourself"
    sent = [_sent(remote, opener, by_hand) for remote in file.remotes]
    content = file.made(sent)
    if not file.is_it(content):
        urls = " and ".join(remote.url for remote in file.remotes)
        raise Unavailable(
            f"{urls}: sent {sum(map(len, sent))} bytes that are not the file (sha256 is not "
            f"{file.sha256[:12]}…); nothing was written; look what stands between, or {by_hand}"
        )
    return content


def _sent(remote: Remote, opener: Open, by_hand: str) -> bytes:
    if os.environ.get(OFFLINE, "").strip().lower() in YES:
        raise Unavailable(
            f"{OFFLINE} is set, so {remote.url} is not asked for; unset it, or {by_hand}"
        )
    try:
        with closing(opener(remote.url, SECONDS)) as answer:
            return answer.read(remote.most)
    except (OSError, HTTPException) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unavailable(
            f"{remote.url}: not reached ({reason}); try again, or {by_hand}"
        ) from None


def _open(url: str, seconds: float) -> Answer:
    answer: Answer = urlopen(url, timeout=seconds)
    return answer
