"""Counting: the most common words of a list, the most frequent words of a coded text."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

from tasks.base import TaskError
from tasks.draws import Draws
from tasks.ruler.prompts import Prompt
from tasks.ruler.setting import Asked, Part, Setting, Tokens, words

__all__ = ["CommonWords", "FrequentWords"]

COMMON = 10
SHORT = 4096  # below, the benchmark repeats less often
ZETA_2 = math.pi**2 / 6  # the zeta distribution's norm at alpha = 2
WORD_LETTERS = 6
TOKENS_A_WORD = 50  # the coded text has length // 50 different words


@dataclass(frozen=True)
class CommonWords(Part):
    """Ten words stand 30 times in a numbered list, all others 3 times (below 4096 tokens 6 and 1).

    A worked example comes first: 40 words, 10 and 3 times (20 words, 3 times and once).
    """

    family: ClassVar[str] = "common_words_extraction"

    def sample(self, setting: Setting, draws: Draws, index: int) -> Asked:
        """As many other words as fit."""
        short = setting.length < SHORT
        listed = sorted({*words("nouns"), *words("adjectives"), *words("verbs")})
        shuffled = draws.pick(listed, len(listed))
        common, others = shuffled[:COMMON], shuffled[COMMON:]
        example = draws.pick(listed, 20 if short else 40)
        prompt = self._prompt(setting, draws, example, (3, 1) if short else (10, 3))
        often, seldom = (6, 1) if short else (30, 3)
        count = _how_many(setting, common * often, others, seldom, setting.room(prompt))
        written = draws.pick(
            common * often + others[:count] * seldom, COMMON * often + count * seldom
        )
        context = tuple(chain.from_iterable(_numbered(setting, written)))
        return Asked(setting.around(prompt, context), common)

    def _prompt(
        self, setting: Setting, draws: Draws, example: list[str], times: tuple[int, int]
    ) -> Prompt:
        prompt = setting.prompts[self.family]
        common, others = example[:COMMON], example[COMMON:]
        shown = common * times[0] + others * times[1]
        worked = _list(draws.pick(shown, len(shown)))
        before = f"{prompt.before}{worked}{prompt.after} {_list(common)}\n{prompt.before}"
        return replace(prompt, before=before.removesuffix("\n") + "\n")


def _list(written: list[str]) -> str:
    return " ".join(f"{place}. {word}" for place, word in enumerate(written, 1))


def _numbered(setting: Setting, written: list[str]) -> Iterator[Tokens]:
    numbers = setting.all_tokens([f" {place}." for place in range(1, len(written) + 1)])
    for number, word in zip(
        numbers, setting.all_tokens([f" {one}" for one in written]), strict=True
    ):
        yield number
        yield word


def _how_many(setting: Setting, always: list[str], others: list[str], times: int, room: int) -> int:
    """How many of the other words fit into `room` tokens, each `times` times, numbers included."""
    most = len(always) + times * len(others)
    setting.all_tokens([f" {place}." for place in range(1, most + 1)])
    setting.all_tokens([f" {word}" for word in others])
    used = sum(len(tokens) for tokens in _numbered(setting, always))
    if used > room:
        raise TaskError(
            f"--len {setting.length}: the common words alone take {used} tokens and {room} are "
            "left beside question, example and answer; raise --len"
        )
    place = len(always)
    for count, word in enumerate(others):
        numbers = setting.all_tokens([f" {place + one}." for one in range(1, times + 1)])
        used += times * len(setting.tokens(f" {word}")) + sum(map(len, numbers))
        place += times
        if used > room:
            return count
    raise TaskError(
        f"--len {setting.length}: all {len(others)} words of the list do not fill it; lower --len"
    )


@dataclass(frozen=True)
class FrequentWords(Part):
    """Coded words whose frequency falls with the square of their rank; rank 1 is "..."."""

    family: ClassVar[str] = "freq_words_extraction"

    def sample(self, setting: Setting, draws: Draws, index: int) -> Asked:
        """As many words as fit, in random order; the references are ranks 2 to 4."""
        prompt = setting.prompts[self.family]
        prompt = replace(prompt, before=prompt.before.rstrip(" "))
        coded: dict[str, None] = {}
        while len(coded) < max(4, setting.length // TOKENS_A_WORD) - 1:
            coded["".join(chr(ord("a") + draws.below(26)) for _ in range(WORD_LETTERS))] = None
        ranked = ["...", *coded]
        tokens = setting.all_tokens([f" {word}" for word in ranked])
        counts = _counts([len(one) for one in tokens], setting.room(prompt))
        if len(counts) < 4 or not counts[3] or counts[3] == sum(counts[4:5]):
            raise TaskError(
                f"--len {setting.length}: no three words are more frequent than the rest in a text "
                "this short; raise --len"
            )
        written = [one for one, times in zip(tokens, counts, strict=True) for _ in range(times)]
        context = tuple(chain.from_iterable(draws.pick(written, len(written))))
        return Asked(setting.around(prompt, context), ranked[1:4])


def _counts(sizes: list[int], room: int) -> list[int]:
    """Occurrences by rank in the longest text of at most `room` tokens."""

    def counts(total: int) -> list[int]:
        return [int(total / (rank**2 * ZETA_2)) for rank in range(1, len(sizes) + 1)]

    low, high = 0, 4 * room  # the text of `low` words fits
    while high - low > 1:
        middle = (low + high) // 2
        used = sum(map(int.__mul__, counts(middle), sizes))
        low, high = (middle, high) if used <= room else (low, middle)
    return counts(low)
