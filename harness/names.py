"""The commands list and show: what patches, tasks and models there are. Imports no torch."""

import re

import patches
import tasks
from harness.answers.samples import is_run, render_run
from harness.errors import HarnessError
from harness.models import MODELS
from harness.options import Parser
from harness.terminal import show_text
from patches.spec import did_you_mean

__all__ = ["list_names", "show_name"]


def list_names(argv: list[str]) -> int:
    """Print what can be named, one line each."""
    kinds: dict[str, dict[str, str]] = {
        "patches": {name: f"{one.seam}: {one.summary}" for name, one in patches.PATCHES.items()},
        "tasks": {name: one.summary for name, one in tasks.TASKS.items()},
        "models": {name: f"{one.summary} ({one.source})" for name, one in MODELS.items()},
    }
    parser = Parser(prog="python -m harness list", description="List what can be named.")
    parser.add_argument("kind", nargs="?", choices=kinds, help="which (default: all)")
    chosen = parser.parse_args(argv).kind
    for kind, names in kinds.items():
        if chosen in (None, kind):
            print(f"{kind}:")
            width = max(map(len, names))
            print(*(f"  {name:{width}}  {summary}" for name, summary in names.items()), sep="\n")
    return 0


def show_name(argv: list[str]) -> int:
    """Explain one name, or print what a run or a cell of it holds.

    Raises:
        HarnessError: an unknown one.
        PatchError: a patch that cannot be read.
        TaskError: a task that cannot be read.
        ResultsError: a run that cannot be read.
    """
    parser = Parser(prog="python -m harness show", description="Explain a patch, task or model.")
    parser.add_argument(
        "name",
        help="see `python -m harness list`, with parameters or + too; DIR or DIR/CELL of a run; or "
        "attention",
    )
    name = parser.parse_args(argv).name
    if is_run(name):
        show_text(render_run(name))
        return 0
    if "/" in name:
        raise HarnessError(f"{name}: no run there; expected DIR or DIR/CELL of one (--out)")
    print("\n\n".join(_explained(name)))
    return 0


def _explained(spec: str) -> list[str]:
    """Texts on all that a name stands for, or on the parts of a spec."""
    name = re.split(r"[+(]", spec)[0].strip()
    if name != spec and name in tasks.TASKS:
        return [tasks.describe(tasks.parse(spec).name)]
    if name != spec:
        patch = patches.parse(spec)
        return [str(patch), *(patches.describe(part.partition("(")[0]) for _, part in patch.parts)]
    texts = []
    if name in patches.PATCHES:
        texts.append(patches.describe(name))
    if name in tasks.TASKS:
        texts.append(tasks.describe(name))
    if name in MODELS:
        texts.append(f"{name}: {MODELS[name].summary}\nsource: {MODELS[name].source}")
    if not texts:
        names = [*patches.PATCHES, *tasks.TASKS, *MODELS]
        raise HarnessError(
            f"unknown name '{name}'; expected a patch, task or model{did_you_mean(name, names)} "
            "(python -m harness list)"
        )
    return texts
