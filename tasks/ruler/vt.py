"""Variable tracking: which variables have a value that is handed on from one to the next."""

from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar

from tasks.draws import Draws
from tasks.haystack import hide
from tasks.ruler.prompts import NOISE
from tasks.ruler.setting import Asked, Part, Setting

__all__ = ["VariableTracking"]

LETTERS = 26
NAME, EXAMPLE_NAME = 5, 3  # letters
EXAMPLE_LINES = 10  # of noise: what the benchmark's 500 tokens hold, in steps of 5 lines
DEPTHS = 1001


@dataclass(frozen=True)
class VariableTracking(Part):
    """One chain of `hops` assignments after the first, behind a worked example of the same."""

    family: ClassVar[str] = "variable_tracking"
    hops: int = 4

    def sample(self, setting: Setting, draws: Draws, index: int) -> Asked:
        """The chain in order, each statement between two random lines of noise."""
        names, value = _names(draws, self.hops + 1, NAME), draws.digits(5)
        depths = sorted(draws.pick(range(DEPTHS), len(names)))
        needles = [
            (depth / (DEPTHS - 1), setting.tokens(f"\n{line}"))
            for depth, line in zip(depths, _chain(names, value), strict=True)
        ]
        prompt = setting.prompts[self.family].filled(num_v=str(len(names)), query=value)
        prompt = prompt.in_chat(setting.chat)
        tokens = hide(
            setting.tokenizer,
            self._example(setting, draws) + prompt.before,
            repeat(setting.tokens(f"\n{NOISE}")),
            needles,
            prompt.after,
            (setting.length, prompt.new),
            start=prompt.start,
        )
        return Asked(tokens, names)

    def _example(self, setting: Setting, draws: Draws) -> str:
        names, value = _names(draws, self.hops + 1, EXAMPLE_NAME), draws.digits(5)
        lines = [NOISE] * EXAMPLE_LINES
        places = sorted(draws.pick(range(EXAMPLE_LINES), len(names)))
        for done, (place, statement) in enumerate(zip(places, _chain(names, value), strict=True)):
            lines.insert(place + done, statement)
        prompt = setting.prompts[self.family].filled(num_v=str(len(names)), query=value)
        answer, context = " ".join(names), "\n".join(lines)
        return f"{prompt.before}{context}{prompt.after} {answer}\n\n"


def _chain(names: list[str], value: str) -> list[str]:
    """Lines of a chain; all but the first end with a blank, as the benchmark's do."""
    pairs = zip(names[1:], names, strict=False)
    return [f"VAR {names[0]} = {value}", *(f"VAR {new} = VAR {old} " for new, old in pairs)]


def _names(draws: Draws, count: int, letters: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chr(ord("A") + draws.below(LETTERS)) for _ in range(letters))] = None
    return list(found)
