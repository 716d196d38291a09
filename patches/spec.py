"""The grammar of patch specs: `name(key=value,...)` joined by `+`; sweeps in braces.

Imports no torch.
"""

import difflib
import itertools
import re
from collections.abc import Iterable

__all__ = ["PatchError", "did_you_mean", "parse_call", "parse_integer", "split_specs"]

CALL = re.compile(r"^([A-Za-z][A-Za-z0-9-]*)(?:\((.*)\))?$")
INTEGER = re.compile(r"^(\d+)([km]?)$")
SWEEP = re.compile(r"\{([^{}]*)\}")
OPENING, CLOSING = "({", ")}"


class PatchError(ValueError):
    """A user's mistake in naming, combining or applying patches: one line, shown as it is."""


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for a near miss, otherwise an empty string."""
    close = difflib.get_close_matches(word, list(accepted), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def split_top_level(text: str, separator: str) -> list[str]:
    """Split at separators outside of parentheses and braces.

    Raises:
        PatchError: a bracket is not closed or closes nothing.
    """
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        if depth < 0:
            break
        if character == separator and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    if depth != 0:
        raise PatchError(
            f"'{text}': brackets do not match; expected name(key=value,...) joined by '+'"
        )
    return [part.strip() for part in [*parts, text[start:]]]


def split_specs(text: str) -> list[str]:
    """Split a comma list of specs and expand sweeps: `yarn(factor={2,4})` gives two specs.

    Raises:
        PatchError: an empty entry or unmatched brackets.
    """
    specs = []
    for entry in split_top_level(text, ","):
        if not entry:
            raise PatchError(f"'{text}': empty entry; expected specs such as none,ntk+logn")
        pieces = SWEEP.split(entry)
        choices = [
            [piece] if index % 2 == 0 else [choice.strip() for choice in piece.split(",")]
            for index, piece in enumerate(pieces)
        ]
        specs += ["".join(combination) for combination in itertools.product(*choices)]
    return specs


def parse_call(text: str) -> tuple[str, dict[str, str]]:
    """Read `name(key=value,...)`; values stay text.

    Raises:
        PatchError: text of another form, or a key given twice.
    """
    match = CALL.match(text.strip())
    if match is None:
        raise PatchError(f"'{text}': not a patch; expected name or name(key=value,...)")
    name, inside = match.groups()
    values: dict[str, str] = {}
    for item in split_top_level(inside, ",") if inside else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise PatchError(f"'{text}': cannot read '{item}'; expected key=value")
        if key in values:
            raise PatchError(f"'{text}': {key} is given twice; keep one of them")
        values[key] = value
    return name, values


def parse_integer(text: str) -> int | None:
    """Read `4096`, `4k` (= 4096) or `1m`; None if the text is something else."""
    match = INTEGER.match(text)
    if match is None:
        return None
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2]]
