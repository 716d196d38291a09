"""Errors that end in one line on stderr, each with its exit code. Imports nothing."""

__all__ = ["DoesNotFit", "HarnessError", "NonFinite", "ResultsError", "Unavailable", "one_line"]


class HarnessError(ValueError):
    """A user's mistake: what is wrong, the value given, what is accepted, what to do."""

    exit_code = 2


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
