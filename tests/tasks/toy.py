"""Toy tokenizers, documents and models for the tests of tasks."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tasks.base import Document, Output, Sample


@dataclass(frozen=True)
class Bytes:
    """A byte a token; BOS is 256, or absent."""

    bos_id: int | None = 256
    end_id: int | None = None
    chat: tuple[str, str] | None = None

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        sizes = [len(character.encode()) for character in text]
        return [(i, i + 1) for i, size in enumerate(sizes) for _ in range(size)]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(one for one in ids if one < 256).decode(errors="replace")


@dataclass
class Words:
    """A blank-separated word a token, numbered as they come; BOS is 0."""

    bos_id: int | None = 0
    end_id: int | None = None
    words: dict[str, int] = field(default_factory=lambda: {"<bos>": 0})
    chat: tuple[str, str] | None = None

    def encode(self, text: str) -> list[int]:
        return [self.words.setdefault(word, len(self.words)) for word in text.split()]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]

    def decode(self, ids: Sequence[int]) -> str:
        words = list(self.words)
        return " ".join(words[one] for one in ids if one != self.bos_id)


def story(name: str, words: int) -> Document:
    """A document of distinct-looking sentences, `words` words long."""
    vocabulary = ["the", "cat", "saw", "one", "dog", "under", "a", "green", "tree", "today"]
    rng = np.random.default_rng(sum(name.encode()))
    return Document(name, " ".join(vocabulary[i] for i in rng.integers(0, 10, words)))


def played(
    sample: Sample, nll: Callable[[int], float], hit: bool, answer: str | None = None
) -> Output:
    """The output of a model whose loss on a token is a function of the token's id."""
    targets = [[one.tokens[place] for place in one.scored] for one in sample.passes]
    return Output(
        nll=tuple(np.array([nll(token) for token in tokens]) for tokens in targets),
        hits=tuple(np.full(len(tokens), hit) for tokens in targets),
        generated=sample.reference_tokens,
        text=sample.reference if answer is None else answer,
    )


# Questions in the form of SQuAD and of HotpotQA; each answer stands in one document.
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": f"Article {a} part {p} says fact {a}{p}. " + "Filler goes on. " * 20,
                    "qas": [
                        {
                            "question": f"What does part {p} of article {a} say?",
                            "is_impossible": p == 0,
                            "answers": [{"text": f"fact {a}{p}"}, {"text": f"number {a}{p}"}],
                        }
                    ],
                }
                for p in range(3)
            ]
        }
        for a in range(40)
    ]
}
HOTPOT = [
    {
        "question": f"Which one is {row}?",
        "answer": f"answer {row}",
        "context": [
            [f"Title {row}.{k}", [f"It is answer {row}. ", "More of it. " * 6]] for k in range(10)
        ],
    }
    for row in range(24)
]
SOURCES = {"squad": json.dumps(SQUAD), "hotpotqa": json.dumps(HOTPOT)}
