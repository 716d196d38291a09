"""Options that several commands share: how they are declared, read and refused."""

import argparse
import math
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import patches
from harness.errors import HarnessError, ResultsError
from harness.lengths import parse_length
from harness.results import FAILED
from patches.spec import did_you_mean, split_specs

if TYPE_CHECKING:
    from harness.worker import Worker

__all__ = [
    "Parser",
    "add_json",
    "add_measuring",
    "add_shared",
    "check_shared",
    "check_target",
    "measurer_of",
    "parse_retry",
    "parse_shard",
    "parser_of",
    "use_large_pages",
]

DTYPES = {
    "auto": "auto",
    "fp32": "float32",
    "float32": "float32",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
}


DESCRIBE = "--describe-options"
RANKS = "LOCAL_WORLD_SIZE"  # as torchrun and accelerate launch tell each process
UNKNOWN = re.compile(r"(?:unrecognized arguments: |invalid choice: ')([^ =']+)")


class _Described(Exception):
    """Ends a command that was asked for its parser."""

    def __init__(self, parser: "Parser") -> None:
        super().__init__()
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, and which `parser_of` finds."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read arguments, or hand out this parser.

        Raises:
            HarnessError: a mistake in them.
        """
        if args and DESCRIBE in args:  # a command may have added options of its own
            raise _Described(self)
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage.

        Raises:
            HarnessError: always.
        """
        hint = self._hint(message)
        raise HarnessError(f"{message}{hint} ({self.prog} --help)")

    def _hint(self, message: str) -> str:
        """What an unknown option or word may have meant."""
        found = UNKNOWN.search(message)
        known = [word for action in self._actions for word in action.option_strings]
        known += [word for action in self._actions for word in action.choices or ()]
        return did_you_mean(found[1], known) if found else ""


def parser_of(command: Callable[[list[str]], int]) -> Parser:
    """The parser that a command reads its arguments with.

    Raises:
        TypeError: it reads them with something else.
    """
    try:
        command([DESCRIBE])
    except _Described as found:
        return found.parser
    raise TypeError(f"{command} reads its arguments without a Parser")


def add_shared(
    parser: Parser, patch: str = "specs such as none,ntk,rerope+logn (default: none)"
) -> None:
    """Options of every command that reads with a model."""
    add = parser.add_argument
    add("--patch", default="none", help=patch)
    add(
        "--data", help="FILE.txt, FILE.jsonl, directory or hub data set (default: Python reference)"
    )
    add("--dtype", default="auto", help="auto, fp32, bf16 or fp16 (default: auto; fp32 on CPU)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--chunk", help="tokens a prefill forward (default: all in one)")
    add("--trained-length", help="tokens the models were trained at (default: their config's)")


def add_json(parser: Parser) -> None:
    """`--json`, for commands that print tables; `harness.reports.as_json` writes it."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, not tables")


def add_measuring(parser: Parser) -> None:
    """Options that say where cells are measured; `measurer_of` reads them."""
    add = parser.add_argument
    add("--cell-timeout", type=float, help="seconds for one cell, its model loaded (default: any)")
    add("--in-process", action="store_true", help="measure in this process, not in one of its own")


def measurer_of(options: argparse.Namespace) -> "AbstractContextManager[Worker | None]":
    """Start the process that measures first: it imports while this one does.

    Raises:
        HarnessError: options that cannot be meant, or one of several ranks.
    """
    timeout, ranks = options.cell_timeout, os.environ.get(RANKS, "1")
    if ranks != "1":
        raise HarnessError(
            f"started as one of {ranks} ranks ({RANKS}): a cell is measured by one process on one "
            "device; start it without torchrun or accelerate launch, for several devices once "
            "each with --device cuda:N and the same --out, which share the cells"
        )
    if timeout is not None and not 0 < timeout < math.inf:
        raise HarnessError(f"--cell-timeout {timeout:g}: expected seconds above 0")
    use_large_pages()
    if options.in_process:
        if timeout is not None:
            raise HarnessError(
                f"--cell-timeout {timeout:g} --in-process: this process cannot end its own cell; "
                "leave one of them out"
            )
        return nullcontext()
    from harness.worker import Worker

    return Worker(timeout)


def use_large_pages() -> None:
    """Let torch put large tensors into large pages, which go back whole; before its first one."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def check_shared(options: argparse.Namespace) -> dict[str, Any]:
    """Read the shared options; refuse what cannot be read, drawn or written."""
    given = {"--chunk": options.chunk, "--trained-length": options.trained_length}
    chunk, trained_length = (
        parse_length(text, name) if text else None for name, text in given.items()
    )
    if options.dtype not in DTYPES:
        hint = did_you_mean(options.dtype, DTYPES)
        raise HarnessError(f"--dtype {options.dtype}: expected auto, fp32, bf16 or fp16{hint}")
    specs = split_specs(options.patch)
    for spec in specs:
        patches.parse(spec)
    for target in filter(None, (options.csv, options.figure)):
        check_target(target)
    if options.figure:
        from harness.reports.figure import check_figure

        check_figure(options.figure)
    return {
        "patches": tuple(specs),
        "data": options.data,
        "dtype": DTYPES[options.dtype],
        "device": options.device,
        "chunk": chunk,
        "trained_length": trained_length,
    }


def parse_retry(text: str) -> tuple[str, ...]:
    """Read --retry: statuses by comma, `failed` for all of them, nothing for none.

    Raises:
        HarnessError: another word.
    """
    names = [name.strip() for name in text.split(",")] if text else []
    for name in names:
        if name not in ("failed", *FAILED):
            raise HarnessError(
                f"--retry {text}: unknown status '{name}'; expected failed, or some of "
                f"{', '.join(FAILED)}{did_you_mean(name, ['failed', *FAILED])}"
            )
    return FAILED if "failed" in names else tuple(names)


def parse_shard(text: str) -> tuple[int, int]:
    """Read --shard i/N.

    Raises:
        HarnessError: not two integers, or i not from 1 to N.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    index, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= index <= parts:
        raise HarnessError(f"--shard {text}: expected i/N with i from 1 to N, such as 1/2")
    return index, parts


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written before anything is measured."""
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ResultsError(f"{path}: cannot be written; give a file in a directory that can be")
