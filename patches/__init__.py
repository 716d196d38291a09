"""Training-free length-extrapolation methods as composable patches of RoPE and attention.

`PATCHES` is the whole list. Importing this package imports no torch.
"""

from __future__ import annotations

import importlib
import textwrap
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from patches.spec import PatchError, did_you_mean, parse_call, pieces

if TYPE_CHECKING:
    from patches.base import Patch
    from patches.method import Method

__all__ = ["PATCHES", "Entry", "PatchError", "describe", "lookup", "parse"]


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        module: module of this package that defines the method.
        seam: where it acts.
        summary: what it does, in a clause.
        baseline: True for the patches that the others are compared with.
    """

    module: str
    seam: str
    summary: str
    baseline: bool = False


PATCHES: dict[str, Entry] = {
    "none": Entry("none", "input", "the model as it is", baseline=True),
    "truncate": Entry(
        "none",
        "input",
        "its trained length alone: the newest, or both ends of a prompt",
        baseline=True,
    ),
    "pi": Entry("pi", "frequencies", "position interpolation: all frequencies / factor"),
    "ntk-old": Entry("ntk", "frequencies", "base times factor"),
    "ntk": Entry("ntk", "frequencies", "NTK-aware base: last pair / factor, first untouched"),
    "ntk-fixed": Entry("ntk", "frequencies", "NTK with every pair stretched"),
    "ntk-mixed": Entry("ntk", "frequencies", "mixed radix, exponent beta"),
    "ntk-dynamic": Entry("ntk", "frequencies", "NTK by the context length of the cell"),
    "ntk-by-parts": Entry("yarn", "frequencies", "ramp over pairs by their number of turns"),
    "yarn": Entry(
        "yarn", "frequencies", "ntk-by-parts with an attention factor; ramp=code is HF's"
    ),
    "llama3": Entry("yarn", "frequencies", "Llama 3.1's ramp between 1 and 4 turns"),
    "rope-base": Entry("rope_base", "frequencies", "another base, its lower bound by length"),
    "rerope": Entry("rerope", "bands", "distance clipped at a window"),
    "leaky-rerope": Entry("rerope", "bands", "distance slowed by k beyond a window"),
    "self-extend": Entry("self_extend", "bands", "grouped positions beyond a window"),
    "dca": Entry("dca", "bands", "dual chunk attention"),
    "string": Entry("string", "bands", "far positions shifted down"),
    "lm-infinite": Entry("sinks", "bands", "window, and sinks at distance window"),
    "streaming": Entry("sinks", "bands", "window, and sinks at cache slots"),
    "logn": Entry("logn", "query scale", "log n, clipped: ln(i+1)/ln(trained length)"),
    "infoscale": Entry("logn", "query scale", "information-entropy invariant scale"),
    "temperature": Entry("logn", "query scale", "a constant on the logits"),
    "yarn-scale": Entry("logn", "query scale", "YaRN's attention factor alone"),
    "longrope-scale": Entry("logn", "query scale", "LongRoPE's attention factor alone"),
    "window": Entry("window", "visible", "newest keys alone, by layer"),
    "sinks": Entry("window", "visible", "first keys stay visible whatever a window hides"),
    "native-window": Entry(
        "window", "visible", "layers with a window of their own stay as shipped"
    ),
    "nbce": Entry("nbce", "decoding", "contexts read apart, the surest against none"),
    "pcw": Entry("pcw", "decoding", "contexts side by side at the same positions"),
    "attention-buckets": Entry(
        "attention_buckets", "decoding", "a reading a RoPE base, the surer counts more"
    ),
    "hierarchical": Entry(
        "hierarchical", "position table", "learned positions, each pair of two makes a new one"
    ),
}


def lookup(name: str) -> Method:
    """Look a method up by name.

    Raises:
        PatchError: no such name.
    """
    entry = PATCHES.get(name)
    if entry is None:
        raise PatchError(
            f"unknown patch '{name}'; expected one of {', '.join(PATCHES)}"
            f"{did_you_mean(name, PATCHES)} (python -m harness list patches)"
        )
    methods: tuple[Method, ...] = importlib.import_module(f"patches.{entry.module}").METHODS
    return next(method for method in methods if method.name == name)


def parse(spec: str) -> Patch:
    """Read a spec such as `ntk(factor=8)+logn`; `str` of the result is its canonical form.

    Raises:
        PatchError: unknown name or parameter, bad value, or methods that clash.
    """
    return reduce(add, [_read(spec, start, part) for start, part in pieces(spec, "+")])


def _read(spec: str, start: int, part: str) -> Patch:
    """Read one of the patches of a spec; mistakes know their place in it."""
    try:
        name, values = parse_call(part)
        return lookup(name)(values)
    except PatchError as error:
        raise error.within(spec, start, part) from None


def _excluded(method: Method) -> list[str]:
    """Seams that a method on the seam of decoding cannot stand beside."""
    decoding = method({}).decoding if method.seam == "decoding" else None
    words = {"rope": "frequencies", "native_window": "native-window"}
    return [words.get(seam, seam) for seam, _ in decoding.excludes] if decoding else []


def describe(name: str) -> str:
    """The text of `show NAME`: formula, parameters, claims, what it composes with, source.

    Raises:
        PatchError: no such name.
    """
    shown = lookup(name)
    others = [other for other, entry in PATCHES.items() if entry.seam == shown.seam]
    lines = [f"{name}  ({shown.seam})", PATCHES[name].summary, "", f"formula   {shown.formula}"]
    for parameter in shown.parameters:
        default = "required" if parameter.required else f"default: {parameter.default}"
        lines.append(f"parameter {parameter.name} ({parameter.accepts}; {default})")
    if shown.seam in ("frequencies", "bands", "decoding"):
        clash = [*(other for other in others if other != name), "truncate"]
        composes = f"every other seam; not with {', '.join([*clash, *_excluded(shown)])}"
    elif shown.seam == "position table":
        composes = "every other seam but frequencies and bands; not with truncate"
    elif name == "truncate":
        composes = "nothing: a truncated input leaves nothing to extend"
    else:
        composes = "all but truncate" if name != "none" else "anything"
    lines += [f"claims    {shown.claims}", f"composes  {composes}", f"source    {shown.source}"]
    if shown.differs:
        lines.append(f"differs   {shown.differs}")
    lines += [f"exception {key}: {why}" for key, why in shown.exceptions.items()]
    wrapped = [textwrap.wrap(line, 100, subsequent_indent=" " * 10) or [""] for line in lines]
    return "\n".join(line for paragraph in wrapped for line in paragraph)
