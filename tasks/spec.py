"""The grammar of task specs, `name(key=value,...)`, and parameters as fields of a dataclass."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeVar

__all__ = [
    "RowError",
    "TaskError",
    "build",
    "canonical",
    "did_you_mean",
    "fraction",
    "parameters",
    "parse_call",
    "render",
]

NAME = re.compile(r"\s*[A-Za-z][A-Za-z0-9_-]*\s*")
CALL = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:\(([^()]*)\))?")
INTEGER = re.compile(r"([0-9]+)([km]?)")
FRACTION = re.compile(r"[0-9]+(\.[0-9]{1,6})?|\.[0-9]{1,6}")
UNIT = {"": 1, "k": 1024, "m": 1024 * 1024}

T = TypeVar("T")


class TaskError(ValueError):
    """A user's mistake in naming a task, its parameters or its data: one line, shown as it is.

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

    def within(self, text: str) -> Self:
        """The same, with the place of its parameter in the text of a task."""
        found = re.search(rf"[(,]\s*()(?:{re.escape(self.key)})\s*=", text) if self.key else None
        return self.pointing(text, found.start(1)) if found else self


class RowError(TaskError):
    """What a row of the data lacks, named by its place: cells of its task fail, others go on."""


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for a near miss, otherwise an empty string."""
    close = difflib.get_close_matches(word.lower(), list(accepted), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def parse_call(text: str) -> tuple[str, dict[str, str]]:
    """Read `name(key=value,...)`; values stay text.

    Raises:
        TaskError: text of another form, or a key given twice.
    """
    match = CALL.fullmatch(text.strip())
    if match is None:
        legible = NAME.match(text)
        raise TaskError(
            f"'{text}': not a task; expected name or name(key=value,...), such as ppl"
        ).pointing(text, legible.end() if legible else 0)
    name, inside = match.groups()
    values: dict[str, str] = {}
    place = text.find("(") + 1
    for item in inside.split(",") if inside and inside.strip() else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise TaskError(
                f"'{text}': '{item.strip()}' is no parameter; expected key=value"
            ).pointing(text, place)
        if key in values:
            raise TaskError(
                f"'{text}': parameter '{key}' is given twice; keep one of them"
            ).pointing(text, place)
        values[key] = value
        place += len(item) + 1
    return name, values


def integer(accepts: str, default: str) -> Any:
    """Declare a parameter that is a positive integer; None stands for the default."""
    return dataclasses.field(default=None, metadata={"accepts": accepts, "default": default})


def choice(*choices: str, what: str) -> Any:
    """Declare a parameter that is one of some words, the first by default."""
    return dataclasses.field(default=choices[0], metadata={"accepts": what, "choices": choices})


def choices(groups: Mapping[str, tuple[str, ...]], what: str) -> Any:
    """Declare a parameter that is some of the words of the first group, which is the default.

    It is written as words joined by `+`; the name of a group stands for its words.
    """
    everything = next(iter(groups.values()))
    names = {**groups, **{word: (word,) for word in everything}}
    return dataclasses.field(
        default=everything,
        metadata={"accepts": what, "default": next(iter(groups)), "groups": names},
    )


def fraction(accepts: str, default: str) -> Any:
    """Declare a parameter that is a number from 0 to 1; None stands for the default."""
    return dataclasses.field(
        default=None, metadata={"accepts": accepts, "default": default, "fraction": True}
    )


def build(cls: type[T], values: dict[str, str]) -> T:
    """Make a task from the text values of its parameters.

    Raises:
        TaskError: an unknown parameter, or a value that the parameter does not take.
    """
    name = getattr(cls, "name", cls.__name__)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    read: dict[str, Any] = {}
    for key, value in values.items():
        try:
            read[key] = _read(name, key, value, fields)
        except TaskError as error:
            error.key = key
            raise
    return cls(**read)


def _read(name: str, key: str, value: str, fields: Mapping[str, Any]) -> Any:
    if key not in fields:
        raise TaskError(
            f"unknown parameter '{key}' of task '{name}'; expected one of "
            f"{', '.join(fields)}{did_you_mean(key, fields)}"
        )
    meta = fields[key].metadata
    if "choices" in meta:
        return _word(name, key, value, meta["choices"])
    if "groups" in meta:
        return _words(name, key, value, meta["groups"])
    return (_fraction if "fraction" in meta else _integer)(name, key, value)


def _word(name: str, key: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise TaskError(
            f"{name}({key}={value}): expected one of {', '.join(choices)}"
            f"{did_you_mean(value, choices)}"
        )
    return value


def _words(
    name: str, key: str, value: str, groups: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """The words of the groups named, in the order of the first group, which has them all."""
    named = [_word(name, key, word.strip(), tuple(groups)) for word in value.split("+")]
    chosen = {word for group in named for word in groups[group]}
    return tuple(word for word in next(iter(groups.values())) if word in chosen)


def _integer(name: str, key: str, value: str) -> int:
    match = INTEGER.fullmatch(value)
    number = int(match[1]) * UNIT[match[2]] if match else 0
    if number < 1:
        raise TaskError(
            f"{name}({key}={value}): expected an integer of at least 1 with an optional k or m, "
            "such as 2k"
        )
    return number


def _fraction(name: str, key: str, value: str) -> float:
    if not FRACTION.fullmatch(value) or float(value) > 1:
        raise TaskError(
            f"{name}({key}={value}): expected a number from 0 to 1 with at most 6 decimals, "
            "such as 0.25"
        )
    return float(value)


def canonical(task: Any) -> str:
    """Return the spec of a task, in field order, without parameters at their default."""
    given = [
        f"{field.name}={render(getattr(task, field.name))}"
        for field in dataclasses.fields(task)
        if getattr(task, field.name) != field.default
    ]
    return f"{task.name}({','.join(given)})" if given else str(task.name)


def render(value: Any) -> str:
    """Write a parameter's value as `build` reads it: at most 6 decimals, no exponent."""
    if isinstance(value, tuple):
        return "+".join(value)
    if not isinstance(value, float):
        return str(value)
    return f"{value:.6f}".rstrip("0").rstrip(".")


def parameters(cls: Any) -> list[str]:
    """Describe each parameter of a task class in one line."""
    return [
        f"{field.name}: {field.metadata['accepts']}; default "
        f"{field.metadata.get('default', field.default)}"
        + (
            f" (one of {', '.join(field.metadata['choices'])})"
            if "choices" in field.metadata
            else f" (of {', '.join(field.metadata['groups'])})"
            if "groups" in field.metadata
            else ""
        )
        for field in dataclasses.fields(cls)
    ]
