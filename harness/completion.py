"""The command `completion`: a script that completes `python -m harness` in a shell.

The script holds all that it offers, made from the parsers and the tables, so that Tab starts no
Python. It is for bash; zsh reads it through its own bashcompinit. Imports no torch.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import patches
import tasks
from harness.deploy.engines import ENGINES
from harness.errors import HarnessError
from harness.models import MODELS
from harness.options import DTYPES, Parser, parser_of
from harness.results import FAILED
from patches.spec import did_you_mean
from tasks.formats import FORMATS

__all__ = ["main", "render"]

TEMPLATE = Path(__file__).parent / "assets" / "completion.bash"
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
SHELLS = {"bash": "", "zsh": ZSH}
DEFAULT = "run"  # what a line without a command does
LISTS: dict[str, Iterable[str]] = {  # joined by comma or plus
    "--patch": patches.PATCHES,
    "--task": tasks.TASKS,
    "--model": MODELS,
    "--retry": ("failed", *FAILED),
}
WORDS: dict[str, Iterable[str]] = {
    "--dtype": DTYPES,
    "--device": ("auto", "cpu", "cuda"),
    "--engine": ENGINES,
    "--format": FORMATS,
}
FILES = ("--data",)  # and options whose values are paths
Command = Callable[[list[str]], int]


def main(argv: Sequence[str]) -> int:
    """Print the script.

    Raises:
        HarnessError: another shell.
    """
    parser = Parser(
        prog="python -m harness completion",
        description="Print a script that completes these commands in bash or zsh.",
        epilog="install: python -m harness completion bash > ~/.length-harness.bash, and in "
        "~/.bashrc: source ~/.length-harness.bash (zsh: likewise, with ~/.zshrc)",
        allow_abbrev=False,
    )
    parser.add_argument("shell", help=", ".join(SHELLS))
    shell = parser.parse_args(argv).shell
    if shell not in SHELLS:
        raise HarnessError(
            f"'{shell}': expected one of {', '.join(SHELLS)}{did_you_mean(shell, SHELLS)}"
        )
    from harness.cli import commands

    print(SHELLS[shell] + render(commands()), end="")
    return 0


def render(commands: Mapping[str, Command]) -> str:
    """The script for these commands."""
    parsers = {name: parser_of(command) for name, command in commands.items()}
    parsers["show attention"] = parser_of(lambda argv: commands["show"](["attention", *argv]))
    cases = {"commands": " ".join(commands)}
    for name, parser in parsers.items():
        options = [word for action in parser._actions for word in action.option_strings]
        cases[f"{name} --"] = " ".join(options)
        cases[name] = _positional(name, parser)
        for action in parser._actions:
            for word in action.option_strings:
                if action.nargs != 0:
                    cases[word] = _values(action, word)
    lines = (f'        "{name}") echo "{words}" ;;' for name, words in cases.items())
    script = TEMPLATE.read_text(encoding="utf-8")
    return script.replace("@CASES@", "\n".join(lines)).replace("@DEFAULT@", DEFAULT)


def _values(action: argparse.Action, option: str) -> str:
    """What follows an option: its kind, and the words there are."""
    if option in LISTS:
        return f"list:{' '.join(LISTS[option])}"
    if option in WORDS:
        return f"words:{' '.join(WORDS[option])}"
    return "files:" if action.type is Path or option in FILES else "text:"


def _positional(name: str, parser: argparse.ArgumentParser) -> str:
    """What follows a command that is no option."""
    known = {"show": [*patches.PATCHES, *tasks.TASKS, *MODELS, "attention"], "completion": SHELLS}
    if name in known:
        return f"words:{' '.join(known[name])}"
    choices = [action.choices for action in parser._actions if action.choices]
    return f"words:{' '.join(choices[0])}" if choices else "files:"
