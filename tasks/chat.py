"""Prompts in a model's chat template: whether, and how many tokens that takes."""

from dataclasses import dataclass

from tasks.base import TaskError, Tokenizer
from tasks.fit import prefix
from tasks.haystack import following
from tasks.spec import choice

__all__ = ["Chat", "chat_field", "chat_of"]

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Chat:
    """Tokens before and behind a user's message; none where no template is used."""

    before: Tokens = ()
    behind: Tokens = ()

    @property
    def size(self) -> int:
        """Tokens that the template takes."""
        return len(self.before) + len(self.behind)

    def around(self, tokenizer: Tokenizer, prompt: Tokens) -> Tokens:
        """The prompt as the user's message; its BOS stays in front."""
        bos = prefix(tokenizer)
        return (*bos, *self.before, *prompt[len(bos) :], *self.behind)


def chat_field() -> str:
    """Declare the parameter that says whether the template is used."""
    what = (
        "whether prompts stand in the model's chat template where the benchmark's own code does so"
    )
    field: str = choice("off", "on", what=what)
    return field


def chat_of(tokenizer: Tokenizer, wanted: str, task: str) -> Chat:
    """What stands around the prompts of a task.

    Raises:
        TaskError: the model has no template.
    """
    if wanted == "off":
        return Chat()
    if tokenizer.chat is None:
        raise TaskError(f"{task}(chat=on): this model has no chat template; leave chat=on out")
    before, behind = tokenizer.chat
    return Chat(tuple(tokenizer.encode(before)), following(tokenizer, behind))
