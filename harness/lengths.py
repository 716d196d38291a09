"""The grammar of `--len`: `8192`, `32k`, `4k,8k`, `512:8k:x2`. Imports no torch."""

from harness.errors import HarnessError
from patches.spec import parse_integer

__all__ = ["parse_length", "parse_lengths", "render_length"]


def parse_length(text: str, option: str = "--len") -> int:
    """Read one length in tokens; `k` is 1024 and `m` is 1024 * 1024.

    Raises:
        HarnessError: text that is not a positive integer with an optional k or m.
    """
    length = parse_integer(text.strip())
    if length is None or length < 1:
        raise HarnessError(
            f"{option} {text.strip()}: expected a positive integer with an optional k or m, "
            "such as 32k"
        )
    return length


def parse_lengths(text: str) -> tuple[int, ...]:
    """Read a comma list of lengths and ranges `first:last:xRATIO`, in order and without doubles.

    Raises:
        HarnessError: an entry of another form, or a range that goes down.
    """
    lengths: list[int] = []
    at = 0
    for entry in text.split(","):
        try:
            lengths += _range(entry.strip()) if ":" in entry else [parse_length(entry)]
        except HarnessError as error:
            raise error.pointing(text, at + len(entry) - len(entry.lstrip())) from None
        at += len(entry) + 1
    if min(lengths) < 2:
        raise HarnessError(f"--len {text}: a length of 1 leaves nothing to predict; give 2 or more")
    return tuple(dict.fromkeys(lengths))


def _range(entry: str) -> list[int]:
    parts = entry.split(":")
    ratio = parse_integer(parts[2][1:]) if len(parts) == 3 and parts[2][:1] == "x" else None
    if ratio is None or ratio < 2:
        raise HarnessError(
            f"--len {entry}: expected first:last:xRATIO with a ratio of 2 or more, "
            "such as 512:8k:x2"
        )
    first, last = parse_length(parts[0]), parse_length(parts[1])
    if last < first:
        raise HarnessError(f"--len {entry}: the range ends before it begins; swap the two lengths")
    lengths = []
    while first <= last:
        lengths.append(first)
        first *= ratio
    return lengths


def render_length(length: int) -> str:
    """Write a length as its user would: 32768 is `32k`, 256 is `256`."""
    for unit, size in (("m", 1024 * 1024), ("k", 1024)):
        if length >= size and length % size == 0:
            return f"{length // size}{unit}"
    return str(length)
