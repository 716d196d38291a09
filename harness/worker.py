"""A process that measures cells, so that one that crashes, hangs or is killed is a row.

Both ends are here. The process is forked from a server that imports what is heavy, beside the one
that reads the command line, and does nothing else: one that has ended is replaced within
milliseconds, and finds no GPU and no thread in use.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from harness.errors import HarnessError, one_line
from harness.results import Record

if TYPE_CHECKING:
    import torch

    from harness.checkpoint import Checkpoint
    from harness.measure import Progress
    from harness.plan import Cell

__all__ = ["Worker", "serve", "server"]

PRELOAD = ["torch", "transformers", "harness.measure"]
LOADING = 1800.0  # seconds that weights may take, where cells have a limit
LOOK = 0.2  # seconds between looks at the memory of the process
NOT_LOADED, NOT_DONE = "its model was not loaded after {:g} s", "not done after --cell-timeout {:g}"


def server() -> ForkServerContext:
    """Start the server that processes are forked from, unless it runs.

    All of them ignore what asks this process to stop: it knows what to finish, and ends them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    asking = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, signal.SIG_IGN) for one in asking}  # the server inherits it
    try:
        forkserver.ensure_running()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    return context


class Worker:
    """This side: hands out cells, and starts the process again when it has ended."""

    def __init__(
        self,
        timeout: float | None = None,
        target: Callable[[Connection], None] | None = None,
    ) -> None:
        """Start the server that processes are forked from.

        Args:
            timeout: seconds that one cell may take, its model loaded; None for no limit.
            target: what runs in the process; `serve` if None.
        """
        self._timeout = timeout
        self._loading = LOADING if timeout else None
        self._target = target or serve
        self._process: ForkServerProcess | None = None
        self._is_ready = False
        self._sent: Checkpoint | None = None
        self._context = server()

    def __enter__(self) -> Self:
        """Return the worker itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process, whatever it is at."""
        self._end()

    def measure(self, cell: "Cell", device: "torch.device", progress: "Progress") -> Record:
        """Run a cell there; a process that ends or takes too long is the status of its row.

        Raises:
            Unavailable: the checkpoint is damaged.
            DoesNotFit: the weights need more memory than the device has.
            HarnessError: the process does not even start.
        """
        self._began, self._peak = time.perf_counter(), 0.0
        self._looks = device.type == "cpu"
        try:
            return self._converse(cell, device, progress)
        except _Ended as problem:
            row = replace(
                cell.template,
                status=problem.status,
                error=one_line(str(problem))[:300],
                seconds=round(time.perf_counter() - self._began, 3),
                peak_memory_gib=round(self._peak, 3),
            )
            return Record(cell.key, (row,), ())

    def _converse(self, cell: "Cell", device: "torch.device", progress: "Progress") -> Record:
        reason = ""
        if self._process is None:
            self._process = self._start()
        self._limit(self._loading if self._is_ready else None, NOT_LOADED)
        self._send(cell, device)
        while True:
            kind, value = self._receive(reason)
            if kind == "step":
                progress.step()
            elif kind == "say":
                progress.say(value)
            elif kind == "ready":
                self._is_ready = True
                self._limit(self._loading, NOT_LOADED)
            elif kind == "start":
                self._began = time.perf_counter()
                self._limit(self._timeout, NOT_DONE)
            elif kind == "broke":
                reason = value
            elif kind == "refused":
                raise value
            else:
                record: Record = value
                return record

    def _send(self, cell: "Cell", device: "torch.device") -> None:
        checkpoint = None if cell.checkpoint is self._sent else cell.checkpoint
        job = (checkpoint, str(cell.patch), cell.task, cell.samples, cell.template, cell.key)
        try:
            self._pipe.send((job, str(device)))
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended("") from None
        self._sent = cell.checkpoint

    def _limit(self, seconds: float | None, late: str) -> None:
        """Begin to count the seconds that the process has; `late` says what it was too slow for."""
        seconds = math.inf if seconds is None else seconds
        self._deadline, self._late = time.perf_counter() + seconds, late.format(seconds)

    def _receive(self, reason: str) -> tuple[str, Any]:
        try:
            while not self._pipe.poll(min(LOOK, max(0.0, self._deadline - time.perf_counter()))):
                self._look()
                if time.perf_counter() >= self._deadline:
                    self._end()
                    raise _Ended("timeout", self._late)
            message: tuple[str, Any] = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise self._ended(reason) from None
        return message

    def _look(self) -> None:
        """Note the memory of the process, which cannot say so any more if it is killed."""
        from harness.memory import resident_peak_gib

        if self._looks and self._process is not None and self._process.pid is not None:
            self._peak = resident_peak_gib(self._process.pid) or self._peak

    def _ended(self, reason: str) -> "_Ended":
        """What an end of the process says of the cell that it was at.

        Raises:
            HarnessError: it could not start, so that no cell could be measured.
        """
        code = self._end(kill=False)
        if code < 0:
            hint = ", as when memory runs out" if code == -signal.SIGKILL else ""
            name = signal.Signals(-code).name
            return _Ended("killed", f"its process was ended by {name}{hint}")
        if not self._is_ready:
            raise HarnessError(
                f"the process that measures did not start (exit code {code}; its messages stand "
                "above); --in-process does without it"
            )
        return _Ended("error", reason or f"its process ended with exit code {code}")

    def _start(self) -> ForkServerProcess:
        self._pipe, other = self._context.Pipe()
        process = self._context.Process(target=self._target, args=(other,))
        process.start()
        other.close()
        self._is_ready = False
        self._sent = None
        return process

    def _end(self, kill: bool = True) -> int:
        """Return the exit code of the process, ended here if it has not by itself."""
        if self._process is None:
            return 0
        if kill:
            self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._pipe.close()
        self._process = None
        return code


class _Ended(Exception):
    """The process ended, or was made to: the status of the cell that it was at, and the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Teller:
    """The progress of a cell, told through the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def step(self) -> None:
        self._pipe.send(("step", None))

    def say(self, text: str) -> None:
        self._pipe.send(("say", text))


def serve(pipe: Connection) -> None:
    """The other side: measure the cells that come through the pipe until it is closed.

    Args:
        pipe: takes cells in parts, as a patch is made of functions; gives progress and records.
    """
    os.setsid()  # so that a terminal that is closed ends the other side first
    os.dup2(2, 1)  # standard output is for results
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    import patches
    from harness.measure import InProcess
    from harness.plan import Cell

    local = InProcess()
    checkpoint: Any = None
    pipe.send(("ready", None))
    while True:
        try:
            (given, patch, *rest), device_name = pipe.recv()
        except EOFError:  # no more cells
            return
        checkpoint = given or checkpoint  # sent with its first cell
        cell, device = Cell(checkpoint, patches.parse(patch), *rest), torch.device(device_name)
        try:
            local.load(cell, device)
            pipe.send(("start", None))
            pipe.send(("record", local.measure(cell, device, _Teller(pipe))))
        except HarnessError as error:
            pipe.send(("refused", error))
        except BaseException as error:
            pipe.send(("broke", f"{type(error).__name__}: {error}"))
            raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
