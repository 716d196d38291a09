"""Errors that end in one line on stderr, each with its exit code. Imports no torch."""

from typing import Self

__all__ = [
    "OF_MODELS",
    "DoesNotFit",
    "HarnessError",
    "NonFinite",
    "ResultsError",
    "Unavailable",
    "caret",
    "one_line",
]

# What a model's own code raises on what it is not made for.
OF_MODELS = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
SHOWN = 60  # characters of a long text on either side of a caret


class HarnessError(ValueError):
    """A user's mistake: what is wrong, the value given, what is accepted, what to do.

    Attributes:
        text: what could not be read, and `at` the place in it; empty where none is to blame.
    """

    exit_code = 2
    text = ""
    at = 0

    def pointing(self, text: str, at: int) -> Self:
        """The same with a place."""
        self.text, self.at = text, at
        return self


class Unavailable(HarnessError):
    """A model or data set that is not there, not complete, or not allowed."""

    exit_code = 4


class DoesNotFit(HarnessError):
    """A model whose weights alone need more memory than the device has."""

    exit_code = 5


class ResultsError(HarnessError):
    """Results that cannot be written, or stored results that are corrupt."""

    exit_code = 6


class NonFinite(HarnessError):
    """A logit that is not a number or infinite; the message names the first bad position."""

    exit_code = 3


def one_line(text: str) -> str:
    """Text with all that cannot be printed, and every run of blanks, as one blank."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def caret(text: str, at: int) -> str:
    """Two lines: the text, and a caret below the place; nothing where that is the beginning."""
    if not text or at <= 0:
        return ""
    plain = "".join(one if one.isprintable() else " " for one in text)
    first, last = max(0, at - SHOWN), min(len(plain), at + SHOWN // 2)
    before = "..." if first else ""
    shown = f"{before}{plain[first:last]}{'...' if last < len(plain) else ''}"
    return f"  {shown}\n  {' ' * (len(before) + at - first)}^\n"
