"""`python -m harness`: see `harness.cli`."""

import errno
import io
import os
import sys

from harness.cli import main
from harness.errors import ResultsError

CLOSED = 141  # as a shell has it of a command whose output nobody reads any more
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _open_closed_streams() -> None:
    """Give a standard stream that was closed (`>&-`) a place, lest a file gets its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _run() -> int:
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough
        code = CLOSED
    except OSError as error:
        if error.errno not in FULL or error.filename:
            raise
        print(
            f"error: the output cannot be written ({error.strerror}); finished cells are in the "
            "journal, which `report` prints",
            file=sys.stderr,
        )
        code = ResultsError.exit_code
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale may lack letters of a name
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(_run())
