"""What stdout shows: text without anything that steers a terminal, colour on a terminal alone.

Imports no torch.
"""

import os
import re
import sys

__all__ = ["printable", "show_text"]

GREEN, YELLOW, RED = "\x1b[32m", "\x1b[33m", "\x1b[31m"
PLAIN = "\x1b[0m"
COLOURS = {  # of a whole column's text
    "better": GREEN,
    **dict.fromkeys(("missing", "refused", "failed before", "cached"), YELLOW),
    **dict.fromkeys(("worse", "oom", "killed", "timeout", "nan", "error", "does not fit"), RED),
    **dict.fromkeys(("A failed", "B failed", "A and B failed", "BROKEN"), RED),
}
COLUMN = re.compile(
    rf"(?:^|(?<=  ))(?:{'|'.join(map(re.escape, COLOURS))})(?=  |$)", flags=re.MULTILINE
)


def printable(text: str) -> str:
    """Text whose lines steer no terminal: a question mark for all that cannot be printed."""
    return "".join(one if one == "\n" or one.isprintable() else "?" for one in text)


def show_text(text: str) -> None:
    """Print text; statuses and verdicts, which fill a column, have a colour on a terminal.

    NO_COLOR (no-color.org) and TERM=dumb are respected.
    """
    shown = printable(text)
    print(COLUMN.sub(_painted, shown) if _has_colours() else shown, flush=True)


def _painted(found: re.Match[str]) -> str:
    return f"{COLOURS[found[0]]}{found[0]}{PLAIN}"


def _has_colours() -> bool:
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stdout.isatty()
