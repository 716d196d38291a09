"""What a method is called, which parameters it takes and what `show` tells of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from patches.base import Patch
from patches.spec import PatchError, did_you_mean, parse_integer

__all__ = ["Method", "Parameter"]

SEAMS = {
    "frequencies": "1",
    "bands": "2",
    "query scale": "3",
    "visible": "4",
    "input": "5",
    "decoding": "6",
    "position table": "7",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        kind: int, float, "numbers", "layers" or a tuple of words.
        default: what its absence means, in words or as the value.
        low: smallest accepted value; `above` excludes the bound itself.
    """

    name: str
    kind: type | str | tuple[str, ...]
    default: str
    low: float | None = None
    above: bool = False
    required: bool = False

    @property
    def accepts(self) -> str:
        """The accepted values in words."""
        if isinstance(self.kind, tuple):
            return "|".join(self.kind)
        words = {
            int: "integer",
            float: "number",
            "numbers": "numbers joined by +, each",
            "layers": "first:stop",
        }[self.kind]
        return words if self.low is None else f"{words} {'>' if self.above else '>='} {self.low:g}"

    def read(self, text: str) -> object:
        """Read a value of this parameter.

        Raises:
            PatchError: not of the parameter's kind, or out of its range.
        """
        value = self.convert(text)
        values = value if isinstance(value, tuple) else (value,)
        if value is None or not all(map(self.is_in_range, values)):
            raise PatchError(f"{self.name}={text}: expected {self.accepts}")
        return value

    def is_in_range(self, value: object) -> bool:
        """True if there is no bound, or the value is a finite number that keeps to it."""
        return self.low is None or (
            (isinstance(value, int | float) and math.isfinite(value))
            and (value > self.low if self.above else value >= self.low)
        )

    def convert(self, text: str) -> object | None:
        """Read the value, None if it cannot be."""
        if isinstance(self.kind, tuple):
            return text if text in self.kind else None
        if self.kind == "layers":
            return read_layers(text)
        if self.kind == "numbers":
            values = tuple(replace(self, kind=float).convert(part) for part in text.split("+"))
            return None if None in values else values
        integer = parse_integer(text)
        if integer is not None:
            return integer if self.kind is int else float(integer)
        try:
            return float(text) if self.kind is float else None
        except ValueError:
            return None


def read_layers(text: str) -> tuple[int, int] | None:
    """Read `first:stop`, the layers first ... stop - 1; None if it is something else."""
    first, colon, stop = text.partition(":")
    bounds = parse_integer(first or "0"), parse_integer(stop)
    if not colon or bounds[0] is None or bounds[1] is None or bounds[0] >= bounds[1]:
        return None
    return bounds[0], bounds[1]


@dataclass(frozen=True)
class Method:
    """A method with what `show` tells of it.

    Attributes:
        seam: where it acts, one of SEAMS.
        build: returns the Patch; called with the parameters that were given.
        formula: the paper's equation with our names.
        claims: what its authors say that it does.
        source: paper and reference code.
        differs: deliberate deviations from the source.
        exceptions: invariants of the contract tests that the method breaks by its nature, with why:
            "identity" (differs from the plain model within the trained length),
            "range" (uses position differences that training never showed).
    """

    name: str
    seam: str
    build: Callable[..., Patch]
    formula: str
    claims: str
    source: str
    parameters: tuple[Parameter, ...] = ()
    differs: str = ""
    exceptions: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, values: Mapping[str, str]) -> Patch:
        """Build the patch from parameter texts; its part is the canonical spec.

        Raises:
            PatchError: an unknown or missing parameter, or a bad value.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for key in values:
            if key not in known:
                accepted = ", ".join(known) or "none"
                raise PatchError(
                    f"{self.name}: unknown parameter '{key}'; expected {accepted}"
                    f"{did_you_mean(key, known)} (python -m harness show {self.name})"
                ).about(key)
        read = {name: self._value(known[name], values[name]) for name in known if name in values}
        for parameter in self.parameters:
            if parameter.required and parameter.name not in read:
                raise PatchError(
                    f"{self.name}: {parameter.name} is missing; write "
                    f"{self.name}({parameter.name}={parameter.accepts})"
                )
        patch = self.build(**{name.replace("-", "_"): value for name, value in read.items()})
        arguments = ",".join(
            f"{name}={text}"
            for name, value in read.items()
            if (text := canonical(value)) != known[name].default
        )
        spec = f"{self.name}({arguments})" if arguments else self.name
        return replace(patch, parts=((SEAMS[self.seam], spec),) if self.name != "none" else ())

    def _value(self, parameter: Parameter, text: str) -> object:
        try:
            return parameter.read(text)
        except PatchError as error:
            raise PatchError(f"{self.name}: {error}").about(parameter.name) from None


def canonical(value: object) -> str:
    """Text of a parameter value in a canonical spec; reading it gives the value back."""
    if isinstance(value, tuple):
        separator = "+" if isinstance(value[0], float) else ":"
        return separator.join(map(canonical, value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)
