"""What the thirteen tasks have in common: the model's tokenizer, the length, the texts to read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar, NamedTuple

from tasks.base import TaskError, Tokenizer
from tasks.draws import Draws
from tasks.haystack import Haystack, beginning, following, following_all, padded
from tasks.ruler.prompts import NOISE, Prompt, prompts

__all__ = ["Asked", "Part", "Setting", "Tokens", "words"]

Tokens = tuple[int, ...]


class Setting:
    """One model and one length; what is read and encoded is kept for all samples."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        length: int,
        text: str,
        sources: Mapping[str, str],
        chat: tuple[str, str] | None = None,
    ) -> None:
        """Note what there is; nothing is read before it is needed."""
        self.chat = chat
        self.tokenizer = tokenizer
        self.length = length
        self.text = text
        self.sources = sources
        self._tokens: dict[str, Tokens] = {}

    @cached_property
    def prompts(self) -> Mapping[str, Prompt]:
        """The prompt of each family."""
        return prompts(self.sources.get("prompts"))

    @cached_property
    def haystack(self) -> Haystack:
        """The sentences of the essays, or of the data."""
        return Haystack(self.text, self.tokenizer)

    def tokens(self, text: str) -> Tokens:
        """Tokens of a text behind another, encoded once."""
        return self.all_tokens([text])[0]

    def all_tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of many texts, each encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._tokens]
        if new:
            self._tokens.update(zip(new, following_all(self.tokenizer, new), strict=True))
        return [self._tokens[text] for text in texts]

    def room(self, prompt: Prompt) -> int:
        """Tokens that prompt and answer leave to the context.

        Raises:
            TaskError: they leave none.
        """
        prompt = prompt.in_chat(self.chat)
        fixed = len(beginning(self.tokenizer, prompt.start)) + prompt.new
        fixed += sum(len(following(self.tokenizer, text)) for text in (prompt.before, prompt.after))
        if fixed >= self.length:
            raise TaskError(
                f"--len {self.length}: question and answer alone take {fixed} tokens; raise --len"
            )
        return self.length - fixed

    def around(self, prompt: Prompt, context: Tokens) -> Tokens:
        """The whole prompt, filled to the token by sentences in front that say nothing."""
        prompt = prompt.in_chat(self.chat)
        before, after = (following(self.tokenizer, one) for one in (prompt.before, prompt.after))
        whole, size = (*before, *context, *after), self.length - prompt.new
        return padded(self.tokenizer, whole, size, f"{NOISE}\n", prompt.start)


class Asked(NamedTuple):
    """A prompt, its references, and the borders of contexts that can be read apart."""

    prompt: Tokens
    references: list[str]
    borders: Tokens = ()


@dataclass(frozen=True)
class Part(ABC):
    """One of the thirteen: its samples, and whether one of its references is enough."""

    family: ClassVar[str]
    any_of: ClassVar[bool] = False

    @abstractmethod
    def sample(self, setting: Setting, draws: Draws, index: int) -> Asked:
        """Return sample `index`.

        Raises:
            TaskError: the length is too short for it, or a source is missing.
        """


@cache
def words(kind: str) -> list[str]:
    """All nouns, adjectives or verbs of the package wonderwords, which the benchmark draws from."""
    from wonderwords import RandomWord

    return sorted(set(RandomWord().filter(include_categories=[kind])))
