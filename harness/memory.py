"""Peak memory of a cell, and what running out of memory looks like."""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from harness.errors import DoesNotFit

__all__ = [
    "GIB",
    "available",
    "fitting",
    "free",
    "is_out_of_memory",
    "peak_gib",
    "reset_peak",
    "resident",
    "resident_peak_gib",
]

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/sys/fs/cgroup")
LIMITS = (  # what a container may use and uses, in both versions of cgroups
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
CPU_MESSAGE = "DefaultCPUAllocator: can't allocate memory"
GIB = 1024**3
LIBC = ctypes.CDLL(None)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, on a GPU or in the host's allocator."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and CPU_MESSAGE in str(error))


@contextmanager
def fitting(length: int) -> Iterator[None]:
    """Turn running out of memory while an input of some length is read into one line.

    Raises:
        DoesNotFit: memory runs out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as problem:
        if not is_out_of_memory(problem):
            raise
        raise DoesNotFit(
            f"--len {length}: out of memory; give --chunk 1k, --dtype bf16 or a lower --len"
        ) from None


def free(device: torch.device) -> None:
    """Give unused memory back, so that one cell does not weigh on the next."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif hasattr(LIBC, "malloc_trim"):  # glibc keeps up to twice its largest freed block, and gaps
        LIBC.malloc_trim(0)


def reset_peak(device: torch.device) -> None:
    """Begin a new peak. Where the kernel does not allow it, a CPU peak covers the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        try:
            CLEAR_REFS.write_text("5")
        except OSError:  # sandboxes refuse it
            return


def peak_gib(device: torch.device) -> float:
    """Peak since `reset_peak` in GiB: allocated on CUDA, resident size of the process on CPU.

    Both include the weights; the CPU figure includes Python and its libraries too.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resident_peak_gib() or _largest() / GIB


def resident_peak_gib(process: int | str = "self") -> float:
    """Highest resident size of a process that runs, in GiB; 0 where /proc does not tell."""
    try:
        found = _field(Path(f"/proc/{process}/status"), "VmHWM")
    except OSError:  # it has just ended
        return 0.0
    return (found or 0) / GIB


def resident() -> int:
    """Bytes of this process that no file backs, or all of them where the system does not tell."""
    found = _field(STATUS, "RssAnon")
    return _largest() if found is None else found


def available(device: torch.device) -> int:
    """Bytes that a device can still give: of the machine and its container on CPU.

    Without an answer of the system it is as much as there may be.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = _field(MEMINFO, "MemAvailable")
    room = [sys.maxsize if found is None else found]
    for limit, used in ((CGROUPS / one, CGROUPS / other) for one, other in LIMITS):
        if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
            room.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(room))


def _field(file: Path, name: str) -> int | None:
    """Bytes that a file of /proc says behind a name."""
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
