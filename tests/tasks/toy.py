"""Toy tokenizers, documents and models for the tests of tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tasks.base import Document, Output, Sample


@dataclass(frozen=True)
class Bytes:
    """A byte a token; BOS is 256, or absent."""

    bos_id: int | None = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(one for one in ids if one < 256).decode(errors="replace")


@dataclass
class Words:
    """A blank-separated word a token, numbered as they come; BOS is 0."""

    bos_id: int | None = 0
    words: list[str] = field(default_factory=lambda: ["<bos>"])

    def encode(self, text: str) -> list[int]:
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [self.words.index(word) for word in text.split()]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[one] for one in ids if one != self.bos_id)


def story(name: str, words: int) -> Document:
    """A document of distinct-looking sentences, `words` words long."""
    vocabulary = ["the", "cat", "saw", "one", "dog", "under", "a", "green", "tree", "today"]
    rng = np.random.default_rng(sum(name.encode()))
    return Document(name, " ".join(vocabulary[i] for i in rng.integers(0, 10, words)))


def played(
    sample: Sample, nll: Callable[[int], float], hit: bool, answer: str | None = None
) -> Output:
    """The output of a model whose loss on a token is a function of the token's id."""
    targets = [one.tokens[one.score_from :] for one in sample.passes]
    return Output(
        nll=tuple(np.array([nll(token) for token in tokens]) for tokens in targets),
        hits=tuple(np.full(len(tokens), hit) for tokens in targets),
        generated=sample.reference_tokens,
        text=sample.reference if answer is None else answer,
    )
