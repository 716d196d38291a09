"""Questions on one of many documents, from files of SQuAD's and HotpotQA's form."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any, ClassVar

from tasks.base import TaskError
from tasks.draws import Draws
from tasks.files import json_of
from tasks.ruler.setting import Asked, Part, Setting, Tokens

__all__ = ["Qa", "hotpotqa", "squad"]


@dataclass(frozen=True)
class Question:
    """A question, its answers, the documents that belong to it, and others close to them."""

    query: str
    answers: tuple[str, ...]
    needed: tuple[int, ...]
    close: tuple[int, ...] = ()


Read = tuple[tuple[Question, ...], tuple[str, ...]]  # questions, documents


@lru_cache(maxsize=2)
def squad(text: str) -> Read:
    """Read SQuAD v2: paragraphs are the documents, those of the same article come first."""
    articles = json_of(text)["data"]
    contexts = {part["context"] for article in articles for part in article["paragraphs"]}
    place = {context: index for index, context in enumerate(sorted(contexts))}
    questions = []
    for article in articles:
        all_of_it = [place[part["context"]] for part in article["paragraphs"]]
        for part in article["paragraphs"]:
            own = place[part["context"]]
            close = tuple(dict.fromkeys(one for one in all_of_it if one != own))
            for asked in part["qas"]:
                if not asked["is_impossible"]:
                    answers = tuple(answer["text"] for answer in asked["answers"])
                    questions.append(Question(asked["question"], answers, (own,), close))
    return tuple(questions), tuple(place)


@lru_cache(maxsize=2)
def hotpotqa(text: str) -> Read:
    """Read HotpotQA (distractor): a question's own ten paragraphs are all needed."""
    rows = json_of(text)
    documents = {document for row in rows for document in _paragraphs(row)}
    place = {document: index for index, document in enumerate(sorted(documents))}
    questions = tuple(
        Question(row["question"], (row["answer"],), tuple(place[one] for one in _paragraphs(row)))
        for row in rows
    )
    return questions, tuple(place)


def _paragraphs(row: dict[str, Any]) -> list[str]:
    return [f"{title}\n{''.join(sentences)}" for title, sentences in row["context"]]


@dataclass(frozen=True)
class Qa(Part):
    """Question `index` of the file; its documents, those close to it, and others at random."""

    family: ClassVar[str] = "qa"
    any_of: ClassVar[bool] = True
    source: str = ""
    read: Callable[[str], Read] = squad

    def sample(self, setting: Setting, draws: Draws, index: int) -> Asked:
        """As many documents as fit, in random order; one more is cut to fill the length."""
        questions, documents = self._read(setting)
        if index >= len(questions):
            raise TaskError(
                f"--n {index + 1}: {self.source} has {len(questions)} questions; lower it"
            )
        question = questions[index]
        prompt = setting.prompts[self.family].filled(query=question.query)
        prompt = replace(prompt, before=prompt.before.rstrip("\n"))
        order = list(_order(question, len(documents), draws))
        bodies = self._bodies(setting, [documents[one] for one in order], setting.room(prompt))
        whole = [setting.tokens(documents[one]) for one in question.needed]
        if bodies[: len(whole)] != whole:
            raise TaskError(
                f"--len {setting.length}: the {len(question.needed)} documents of question {index} "
                f"of {self.source} do not fit; raise --len"
            )
        mixed = draws.pick(bodies, len(bodies))
        labels = [setting.tokens(_label(place)) for place in range(1, len(mixed) + 1)]
        contexts = [(*label, *body) for label, body in zip(labels, mixed, strict=True)]
        tokens = setting.around(prompt, tuple(chain.from_iterable(contexts)))
        after = setting.tokens(prompt.in_chat(setting.chat).after)
        ends = accumulate(map(len, [after, *reversed(contexts)]))
        borders = tuple(len(tokens) - end for end in ends)[::-1]
        return Asked(tokens, list(question.answers), borders)

    def _read(self, setting: Setting) -> Read:
        if self.source not in setting.sources:
            raise TaskError(f"no {self.source} file in the data; give its directory with --data")
        try:
            return self.read(setting.sources[self.source])
        except (ValueError, KeyError, TypeError) as error:
            raise TaskError(
                f"{self.source}: {type(error).__name__} {error}; expected the benchmark's JSON file"
            ) from None

    def _bodies(self, setting: Setting, documents: Sequence[str], room: int) -> list[Tokens]:
        """Tokens of the documents that fit, the one after them cut."""
        bodies: list[Tokens] = []
        for place, document in enumerate(documents, 1):
            room -= len(setting.tokens(_label(place)))
            if room <= 0:
                return bodies
            body = setting.tokens(document)
            bodies.append(body[:room])
            room -= len(body)
            if room <= 0:
                return bodies
        raise TaskError(
            f"--len {setting.length}: all {len(documents)} documents of {self.source} do not fill "
            "it; lower --len"
        )


def _label(place: int) -> str:
    return f"\n\nDocument {place}:\n"


def _order(question: Question, count: int, draws: Draws) -> Iterator[int]:
    """The documents of a question, those close to it, then all others at random."""
    yield from question.needed
    yield from draws.pick(question.close, len(question.close))
    own = {*question.needed, *question.close}
    yield from (one for one in draws.pick(range(count), count) if one not in own)
