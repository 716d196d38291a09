"""The grammar of patch specs: `name(key=value,...)` joined by `+`; sweeps in braces.

Imports no torch.
"""

import difflib
import itertools
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Self

__all__ = ["PatchError", "did_you_mean", "parse_call", "parse_integer", "pieces", "split_specs"]

NAME = re.compile(r"\s*[A-Za-z][A-Za-z0-9-]*\s*")
CALL = re.compile(r"^([A-Za-z][A-Za-z0-9-]*)(?:\((.*)\))?$")
INTEGER = re.compile(r"^(\d+)([km]?)$")
SWEEP = re.compile(r"\{([^{}]*)\}")
OPENING, CLOSING = "({", ")}"


class PatchError(ValueError):
    """A user's mistake in naming, combining or applying patches: one line, shown as it is.

    Attributes:
        text: what could not be read, and `at` the place in it; empty where none is to blame.
        key: the parameter that is to blame, as long as the place is not known.
    """

    text = ""
    at = 0
    key = ""

    def pointing(self, text: str, at: int) -> Self:
        """The same with a place."""
        self.text, self.at = text, at
        return self

    def about(self, key: str) -> Self:
        """The same, of one parameter."""
        self.key = key
        return self

    def within(self, text: str, start: int, part: str) -> Self:
        """The same, its place counted in the text that has the part at `start`."""
        found = re.search(rf"[(,]\s*()(?:{re.escape(self.key)})\s*=", part) if self.key else None
        return self.pointing(text, start + (found.start(1) if found else self.at))


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for a near miss, otherwise an empty string."""
    close = difflib.get_close_matches(word, list(accepted), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def split_top_level(text: str, separator: str) -> list[str]:
    """Split at separators outside of parentheses and braces.

    Raises:
        PatchError: a bracket is not closed or closes nothing.
    """
    return [part for _, part in pieces(text, separator)]


def pieces(text: str, separator: str) -> list[tuple[int, str]]:
    """The same, each part with its place in the text.

    Raises:
        PatchError: a bracket is not closed or closes nothing.
    """
    cuts, opened = [-1], list[int]()
    wrong = None
    for index, character in enumerate(text):
        if character in OPENING:
            opened.append(index)
        elif character in CLOSING and not opened:
            wrong = index
            break
        elif character in CLOSING:
            opened.pop()
        elif character == separator and not opened:
            cuts.append(index)
    if opened or wrong is not None:
        raise PatchError(
            f"'{text}': brackets do not match; expected name(key=value,...) joined by '+'"
        ).pointing(text, opened[-1] if wrong is None else wrong)
    parts = [(cut + 1, text[cut + 1 : end]) for cut, end in pairwise([*cuts, len(text)])]
    return [(start + len(part) - len(part.lstrip()), part.strip()) for start, part in parts]


def split_specs(text: str) -> list[str]:
    """Split a comma list of specs and expand sweeps: `yarn(factor={2,4})` gives two specs.

    Raises:
        PatchError: an empty entry or unmatched brackets.
    """
    specs = []
    for start, entry in pieces(text, ","):
        if not entry:
            raise PatchError(
                f"'{text}': empty entry; expected specs such as none,ntk+logn"
            ).pointing(text, start)
        sweep = SWEEP.split(entry)
        choices = [
            [piece] if index % 2 == 0 else [choice.strip() for choice in piece.split(",")]
            for index, piece in enumerate(sweep)
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
        legible = NAME.match(text)
        raise PatchError(f"'{text}': not a patch; expected name or name(key=value,...)").pointing(
            text, legible.end() if legible else 0
        )
    name, inside = match.groups()
    values: dict[str, str] = {}
    for start, item in pieces(inside, ",") if inside else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        place = text.index("(") + 1 + start
        if not (key and equals and value):
            raise PatchError(f"'{text}': cannot read '{item}'; expected key=value").pointing(
                text, place
            )
        if key in values:
            raise PatchError(f"'{text}': {key} is given twice; keep one of them").pointing(
                text, place
            )
        values[key] = value
    return name, values


def parse_integer(text: str) -> int | None:
    """Read `4096`, `4k` (= 4096) or `1m`; None if the text is something else."""
    match = INTEGER.match(text)
    if match is None:
        return None
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2]]
