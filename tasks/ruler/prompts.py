"""What RULER's tasks say: the benchmark's own templates where the data has them, otherwise ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tasks.base import TaskError
from tasks.files import json_of

__all__ = ["FAMILIES", "NEEDLE", "NOISE", "Prompt", "prompts"]

# Formats of what is hidden, as the paper shows them (2404.06654, table 2); the questions name them.
NEEDLE = "One of the special magic {kind} for {key} is: {value}."
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
FIELDS = ("template", "answer_prefix", "tokens_to_generate")


@dataclass(frozen=True)
class Prompt:
    """The texts before and after the context, the answer's beginning, and how many tokens it has.

    `start` is what a chat template puts first.
    """

    before: str
    question: str
    answer: str
    new: int
    start: str = ""

    @property
    def after(self) -> str:
        """All that stands behind the context."""
        return self.question + self.answer

    def filled(self, **names: str) -> "Prompt":
        """The same with names such as {query} put in."""
        return self._each(lambda text: _put(text, names))

    def replaced(self, words: Mapping[str, str]) -> "Prompt":
        """The same with words changed everywhere."""

        def put(text: str) -> str:
            for old, new in words.items():
                text = text.replace(old, new)
            return text

        return self._each(put)

    def in_chat(self, texts: tuple[str, str] | None) -> "Prompt":
        """The same as a user's message, the answer begun by the model."""
        if texts is None:
            return self
        return replace(self, question=self.question + texts[1], start=texts[0])

    def _each(self, change: Callable[[str], str]) -> "Prompt":
        before, question, answer = map(change, (self.before, self.question, self.answer))
        return Prompt(before, question, answer, self.new)


def _put(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


OWN = {
    "niah": Prompt(
        "Some special magic {type_needle_v} are in the text below. Remember what it says: the "
        "question at its end asks for the {type_needle_v}.\n",
        "\nWhat are all special magic {type_needle_v} that the text gives for {query}?",
        " In the text the special magic {type_needle_v} for {query} are",
        128,
    ),
    "variable_tracking": Prompt(
        "Variables are set somewhere in this text, some of them to others. Follow them.\n\n",
        "\nQuestion: Which variables have the value {query} at the end of the text?",
        " Answer: {num_v} variables have the value {query}, namely: ",
        30,
    ),
    "common_words_extraction": Prompt(
        "This is a list of numbered words. Ten of them occur more often than the rest.\n",
        "\nQuestion: Which 10 words occur most often in the list?",
        " Answer: The 10 words that occur most often are:",
        120,
    ),
    "freq_words_extraction": Prompt(
        "Count how often each coded word occurs in this text, and note the most frequent. ",
        "\nQuestion: Leave out the dots. Which three coded words occur most often in the text?",
        " Answer: The three words that occur most often are:",
        50,
    ),
    "qa": Prompt(
        "Below are documents, and then a question that they answer. Reply with the answer alone."
        "\n\n",
        "\n\nReply with the answer alone.\n\nQuestion: {query}",
        " Answer:",
        32,
    ),
}
FAMILIES = tuple(OWN)


def prompts(official: str | None) -> Mapping[str, Prompt]:
    """Return the prompt of each family, by the benchmark's name of it.

    Args:
        official: JSON object of family to template (with {context}), answer_prefix and
            tokens_to_generate, as the benchmark's constants have them; None for own wording.

    Raises:
        TaskError: not such an object.
    """
    if official is None:
        return OWN
    try:
        table = json_of(official)
        return {family: _prompt(table[family]) for family in FAMILIES}
    except (ValueError, KeyError, TypeError) as error:
        raise TaskError(
            f"ruler/templates.json: {type(error).__name__} {error}; expected an object with "
            f"{', '.join(FAMILIES)}, each with {', '.join(FIELDS)}, and {{context}} in the template"
        ) from None


def _prompt(entry: Mapping[str, str | int]) -> Prompt:
    before, context, after = str(entry["template"]).partition("{context}")
    if not context:
        raise ValueError("no {context}")
    return Prompt(before, after, str(entry["answer_prefix"]), int(entry["tokens_to_generate"]))
