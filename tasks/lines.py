"""Look up the number of one line among many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Task, Tokenizer
from tasks.draws import Draws
from tasks.haystack import DEPTHS, by_depth, depth_of, following, hide, pieces, sample_of
from tasks.spec import fraction, integer

__all__ = ["TASK", "Lines"]

HEAD = "\n\nEach line has a label and holds a number. The number of one line is asked for last.\n"
PADDING = " Read with care."
LINE = "\nline {label}: its number is {number}."
QUESTION = "\n\nWhich number does line {label} hold? line {label}: its number is"
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
DIGITS = 5
SPARE = 4  # tokens of the answer besides the number


@dataclass(frozen=True)
class Lines(Task):
    """Whether the number of one of many labelled lines is given back.

    As many lines as fit fill the length; what they leave is filled by a sentence over and over, in
    front. Labels are two made-up words, all different; numbers have 5 digits. The line asked for
    stands at the depth (0, 0.25, 0.5, 0.75 or 1 in turn where none is given); there is a value of
    all and one by depth.

    Source: Li et al. 2023 (LongChat, LongEval), https://lmsys.org/blog/2023-06-29-longchat, the
    task lines.

    Differs: own words and labels; the length is in tokens, not in lines.
    """

    name: ClassVar[str] = "lines"
    reads: ClassVar[str] = "nothing"
    depth: float | None = fraction("share of the lines before the one asked for", "in turn")
    depths: int | None = integer("depths that samples take in turn", str(DEPTHS))

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document, of which only the id is used."""
        samples = []
        for index, document in enumerate(documents):
            draws = Draws(seed, self.name, index)
            depth = depth_of(index, self.depth, self.depths or DEPTHS)
            label, number = _label(draws), draws.digits(DIGITS)
            new = len(following(tokenizer, f" {number}.")) + SPARE
            needle = following(tokenizer, LINE.format(label=label, number=number))
            prompt = hide(
                tokenizer,
                HEAD,
                pieces(tokenizer, _lines(draws, label)),
                [(depth, needle)],
                QUESTION.format(label=label),
                (context_length, new),
                PADDING,
            )
            samples.append(sample_of(document, depth, needle, prompt, new, number))
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (1 if the number is in the answer, 1), of all and by depth."""
        return by_depth("string_match", sample.reference in output.text, sample)


def _label(draws: Draws) -> str:
    number, syllables = draws.below(len(SYLLABLES) ** 6), []
    for _ in range(6):
        number, place = divmod(number, len(SYLLABLES))
        syllables.append(SYLLABLES[place])
    return f"{''.join(syllables[:3])}-{''.join(syllables[3:])}"


def _lines(draws: Draws, taken: str) -> Iterator[str]:
    used = {taken}
    while True:
        label = _label(draws)
        if label not in used:
            used.add(label)
            yield LINE.format(label=label, number=draws.digits(DIGITS))


TASK = Lines
