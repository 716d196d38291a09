"""Faults on purpose: processes to kill, and a worker whose cells go wrong by their length."""

import ctypes
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from harness import worker
from harness.journal import Stored

SEGFAULT, HANG, KILL, NAN, RAISE, OOM, CTRL_C, CTRL_C_TWICE, GROW = range(71, 80)
TERM, TERM_TWICE, TERM_ALL, SLOW = range(80, 84)
GROWTH = 400 << 20  # bytes that a cell takes before it is killed


def serve(pipe: Connection) -> None:
    """`harness.worker.serve` with an engine that goes wrong at the lengths above."""
    import torch

    from harness import measure
    from harness.errors import NonFinite

    score = measure.Engine.score

    def interrupt(times: int, how: int = signal.SIGINT) -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None and parent.pid is not None
        for _ in range(times):
            os.kill(parent.pid, how)
            time.sleep(0.3)

    def terminate_all() -> None:
        for one in descendants(multiprocessing.parent_process().pid):  # type: ignore[union-attr,arg-type]
            os.kill(one, signal.SIGTERM)
        interrupt(1, signal.SIGTERM)

    def fail(*_: object) -> None:
        raise NonFinite("nll is nan at position 3")

    def misfit(*_: object) -> None:
        raise RuntimeError("shapes differ")

    def grow() -> None:
        taken = b"x" * GROWTH
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL * bool(taken))

    faults: dict[int, Callable[[], object]] = {
        SEGFAULT: lambda: ctypes.string_at(0),
        HANG: lambda: time.sleep(600),
        KILL: lambda: os.kill(os.getpid(), signal.SIGKILL),
        NAN: fail,
        RAISE: misfit,
        OOM: lambda: torch.empty(1 << 50),
        CTRL_C: lambda: interrupt(1),
        CTRL_C_TWICE: lambda: interrupt(2),
        GROW: grow,
        TERM: lambda: interrupt(1, signal.SIGTERM),
        TERM_TWICE: lambda: interrupt(2, signal.SIGTERM),
        TERM_ALL: terminate_all,
        SLOW: lambda: time.sleep(2),
    }

    def scored(self: object, tokens: Sequence[int], *more: object) -> object:
        faults.get(len(tokens), lambda: None)()
        return score(self, tokens, *more)  # type: ignore[arg-type]

    measure.Engine.score = scored  # type: ignore[assignment,method-assign]
    worker.serve(pipe)


def serve_mortally(pipe: Connection) -> None:
    """A worker without a model that is killed at half of its cells, before or behind its answer."""
    from harness.results import Record

    draw = random.Random(os.getpid())
    pipe.send(("ready", None))
    while True:
        (_, _, _, _, row, key), _ = pipe.recv()
        if draw.random() < 0.4:
            os.kill(os.getpid(), signal.SIGKILL)
        pipe.send(("record", Record(key, (replace(row, status="ok"),), ())))
        if draw.random() < 0.2:
            os.kill(os.getpid(), signal.SIGKILL)


def serve_slowly(pipe: Connection) -> None:
    """`harness.worker.serve` whose weights never arrive."""
    from harness import measure

    measure.InProcess.load = lambda *_: time.sleep(600)  # type: ignore[method-assign,assignment,return-value]
    worker.serve(pipe)


def forked(work: Callable[[], object]) -> int:
    """Run something in a fork of this process; returns its id. One thread, so that it may."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that sleep
        child = os.fork()
    if child:
        return child
    code = 70
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.stdout = sys.stderr = os.fdopen(quiet, "w")
        result = work()
        code = result if isinstance(result, int) else 0
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stored_lines(out: Path) -> int:
    """Whole lines of finished cells, in all journals of a directory."""
    return sum(path.read_bytes().count(b',"rows":[') for path in Stored(out).paths())


def descendants(parent: int) -> set[int]:
    """Ids of all processes below one."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            found |= {int(status.parent.name), *descendants(int(status.parent.name))}
    return found
