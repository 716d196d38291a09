"""Peak memory of a cell, and what running out of memory looks like."""

import ctypes
import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from harness.errors import DoesNotFit

__all__ = ["fitting", "free", "is_out_of_memory", "peak_gib", "reset_peak"]

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
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
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
