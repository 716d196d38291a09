"""Prompts as data: JSON objects of a name and a template with {context} and other places."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.base import TaskError
from tasks.files import json_of
from tasks.middle import Parts

__all__ = ["parts_of", "table_of", "templates"]

PLACE = "{context}"


def templates(
    file: str,
    official: str | None,
    own: Mapping[str, str],
    names: Sequence[str],
    places: Callable[[str], Sequence[str]] = lambda name: ("input",),
) -> Mapping[str, Any]:
    """Return a template for each name, and whatever else the table has.

    Args:
        file: what the official ones are called.
        official: its text; None where the data has none.
        own: what stands in.
        names: wanted.
        places: what the template of a name may ask for besides {context}.

    Raises:
        TaskError: no JSON object, a name that is not in it, or a template that cannot be filled.
    """
    table = own if official is None else table_of(file, official, names)
    for name in names:
        try:
            parts_of(table[name], "", **dict.fromkeys(places(name), ""))
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise TaskError(
                f"{file}: {name}: {type(error).__name__} {error}; expected a text with {PLACE} and "
                f"perhaps {', '.join('{' + place + '}' for place in places(name))}"
            ) from None
    return table


def parts_of(template: str, context: str, **fields: str) -> Parts:
    """Fill a template by the rules of `str.format`.

    Raises:
        ValueError: it has no {context}; and what `str.format` raises.
    """
    before, place, after = template.partition(PLACE)
    if not place:
        raise ValueError(f"no {PLACE}")
    texts = [one.format(context=context, **fields) for one in (before, after)]
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
