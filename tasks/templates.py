"""Prompts as data: JSON objects of a name and a template with {context} and {input} in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.base import TaskError
from tasks.files import json_of
from tasks.middle import Parts

__all__ = ["parts_of", "table_of", "templates"]

PLACE = "{context}"


def templates(
    file: str, official: str | None, own: Mapping[str, str], names: Sequence[str]
) -> Mapping[str, str]:
    """Return a template for each name.

    Args:
        file: what the official ones are called.
        official: its text; None where the data has none.
        own: what stands in.
        names: wanted.

    Raises:
        TaskError: no JSON object, a name that is not in it, or a template that cannot be filled.
    """
    table = own if official is None else table_of(file, official, names)
    for name in names:
        try:
            parts_of(table[name], "", "")
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise TaskError(
                f"{file}: {name}: {type(error).__name__} {error}; expected a text with {PLACE} "
                "and perhaps {input}"
            ) from None
    return table


def parts_of(template: str, context: str, question: str) -> Parts:
    """Fill a template by the rules of `str.format`.

    Raises:
        ValueError: it has no {context}; and what `str.format` raises.
    """
    before, place, after = template.partition(PLACE)
    if not place:
        raise ValueError(f"no {PLACE}")
    texts = [one.format(context=context, input=question) for one in (before, after)]
    return Parts(texts[0], context, texts[1])


def table_of(file: str, text: str, names: Sequence[str]) -> Mapping[str, Any]:
    """Read a JSON object that has all names.

    Raises:
        TaskError: it is something else.
    """
    try:
        table = json_of(text)
    except ValueError as error:
        raise TaskError(f"{file}: not JSON ({error}); expected an object by data set") from None
    missing = [name for name in names if not isinstance(table, dict) or name not in table]
    if missing:
        raise TaskError(f"{file}: nothing for {', '.join(missing)}; expected an object by data set")
    found: Mapping[str, Any] = table
    return found
