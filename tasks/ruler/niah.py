"""Needles in a haystack: of noise, of essays, or of other needles."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar

from tasks.draws import Draws
from tasks.haystack import hide, pieces
from tasks.ruler.prompts import NEEDLE, NOISE, Prompt
from tasks.ruler.setting import Asked, Part, Setting, Tokens, words

__all__ = ["Niah"]

DEPTHS = 40
DIGITS = 7
# The benchmark speaks of one needle by replacing these words in its question.
SINGULAR = {"Some": "A", "are all": "is", "are": "is", "answers": "answer"}


@dataclass(frozen=True)
class Niah(Part):
    """`keys` keys with `values` values each, of which `queries` are asked for."""

    family: ClassVar[str] = "niah"
    haystack: str = "essay"
    key_kind: str = "words"
    value_kind: str = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1

    def sample(self, setting: Setting, draws: Draws, index: int) -> Asked:
        """Needles at random depths, in random order."""
        keys = _different(draws, self.key_kind, self.keys)
        drawn = _different(draws, self.value_kind, self.keys * self.values)
        values = {key: drawn[i * self.values :][: self.values] for i, key in enumerate(keys)}
        asked = draws.pick(keys, self.queries)
        lines = [self._needle(key, value) for key in keys for value in values[key]]
        lines = draws.pick(lines, len(lines))
        depths = draws.pick(range(DEPTHS), len(lines))
        needles = [
            (depth / (DEPTHS - 1), setting.tokens(self._between(line)))
            for depth, line in zip(depths, lines, strict=True)
        ]
        prompt = self._prompt(setting.prompts[self.family], asked).in_chat(setting.chat)
        tokens = hide(
            setting.tokenizer,
            prompt.before.removesuffix("\n") if self.haystack == "needle" else prompt.before,
            self._filler(setting, draws, set(keys)),
            needles,
            prompt.after,
            (setting.length, prompt.new),
            f"{NOISE}\n" if self.haystack == "needle" else "",
            prompt.start,
        )
        return Asked(tokens, [value for key in asked for value in values[key]])

    def _needle(self, key: str, value: str) -> str:
        return NEEDLE.format(kind=self.value_kind, key=key, value=value)

    def _between(self, line: str) -> str:
        return f" {line}" if self.haystack == "essay" else f"\n{line}"

    def _prompt(self, prompt: Prompt, asked: list[str]) -> Prompt:
        kind = self.value_kind
        if self.queries * self.values == 1:
            prompt, kind = prompt.replaced(SINGULAR), kind.removesuffix("s")
        query = asked[0] if len(asked) == 1 else f"{', '.join(asked[:-1])}, and {asked[-1]}"
        return prompt.filled(type_needle_v=kind, query=query)

    def _filler(self, setting: Setting, draws: Draws, taken: set[str]) -> Iterator[Tokens]:
        if self.haystack == "essay":
            return setting.haystack.read(0.0)
        if self.haystack == "noise":
            return repeat(setting.tokens(self._between(NOISE)))
        return pieces(setting.tokenizer, self._lines(draws, taken))

    def _lines(self, draws: Draws, taken: set[str]) -> Iterator[str]:
        """Needles that nobody asks for: no key stands twice."""
        while True:
            key = _random(draws, self.key_kind)
            if key not in taken:
                taken.add(key)
                yield self._between(self._needle(key, _random(draws, self.value_kind)))


def _random(draws: Draws, kind: str) -> str:
    if kind == "numbers":
        return draws.digits(DIGITS)
    if kind == "uuids":
        return draws.uuid()
    adjectives, nouns = words("adjectives"), words("nouns")
    return f"{adjectives[draws.below(len(adjectives))]}-{nouns[draws.below(len(nouns))]}"


def _different(draws: Draws, kind: str, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[_random(draws, kind)] = None
    return list(found)
