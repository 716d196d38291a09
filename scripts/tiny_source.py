"""The training data of the bundled model: books, tokenizer, sequences with copies and facts.

A small model finds induction (look for the last place where this token stood, and copy what came
after it) late or never in text. The first lessons are therefore repeated random tokens alone, few
different ones at first, so that each is met often, then ever more of them in longer sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HELD_OUT = ("moby-dick", "bleak-house", "origin-of-species", "pride-and-prejudice", "dracula")
BOS, EOS = 0, 1
IGNORED = -100
Ints = np.ndarray[Any, np.dtype[np.int64]]
Part = tuple[Ints, bool]  # tokens, and whether their loss is learned


class TrainError(ValueError):
    """Something the user can put right, in one line."""


@dataclass(frozen=True)
class Lesson:
    """Steps at the start of training on repeated random tokens alone."""

    steps: int
    symbols: int  # different tokens
    length: int
    batch: int


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, besides the books."""

    steps: int = 4800
    seed: int = 0
    length: int = 512
    batch: int = 8
    vocab: int = 1024
    hidden: int = 192
    layers: int = 4
    inner: int = 512
    head_dim: int = 32
    rate: float = 5e-3
    embedding_rate: float = 3e-3
    warmup: int = 50
    decay: float = 0.1
    retrieval: float = 0.35
    lessons: tuple[Lesson, ...] = (
        Lesson(450, symbols=40, length=64, batch=32),
        Lesson(150, symbols=100, length=64, batch=32),
        Lesson(150, symbols=300, length=64, batch=32),
        Lesson(200, symbols=1022, length=128, batch=16),
        Lesson(100, symbols=1022, length=256, batch=8),
        Lesson(100, symbols=1022, length=512, batch=4),
    )


@dataclass(frozen=True)
class Books:
    """The texts by title: those to train on, and those only measured on."""

    training: dict[str, str]
    held_out: dict[str, str]


def read_text(path: Path) -> str:
    """The text of one file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"cannot read {str(path)!r} as UTF-8 text: {error}") from None


def read_books(folder: Path) -> Books:
    """Read every *.txt file of `folder`; titles in `HELD_OUT` are set apart."""
    if not folder.is_dir():
        raise TrainError(f"no folder {str(folder)!r}; give --data a folder of books as *.txt files")
    texts = {path.stem: read_text(path) for path in sorted(folder.glob("*.txt"))}
    held = {stem for stem in texts if any(title in stem for title in HELD_OUT)}
    training = {stem: text for stem, text in texts.items() if stem not in held and text.strip()}
    if not training:
        raise TrainError(
            f"no book to train on in {str(folder)!r}; put *.txt files there"
            f" ({len(held)} held-out titles do not count)"
        )
    return Books(training, {stem: texts[stem] for stem in sorted(held)})


def train_tokenizer(texts: list[str], vocab: int) -> Tokenizer:
    """Byte-level BPE on `texts`; digits stay single, and `<s>` goes before every text."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> Ints:
    """Tokens of `text` without special tokens."""
    lines = tokenizer.encode_batch(text.splitlines(keepends=True), add_special_tokens=False)
    return np.array([token for line in lines for token in line.ids], dtype=np.int64)


def repeated(rng: np.random.Generator, lesson: Lesson) -> tuple[Ints, Ints]:
    """A span of different random tokens over and over; all but its first copy is learned."""
    size = int(np.exp(rng.uniform(np.log(2), np.log(lesson.length // 2 + 1))))
    span = rng.permutation(lesson.symbols)[:size] + EOS + 1
    copies = np.tile(span, lesson.length // len(span) + 1)
    tokens = np.append(BOS, copies)[: lesson.length].astype(np.int64)
    labels = tokens.copy()
    labels[: len(span) + 1] = IGNORED
    return tokens, labels


class Source:
    """Draws training sequences; the same generator gives the same sequences."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str], recipe: Recipe) -> None:
        """Tokenize the books, and collect the words that facts are made of."""
        self.recipe = recipe
        self.vocab = tokenizer.get_vocab_size()
        books = [np.append(encode(tokenizer, text), EOS) for text in texts]
        self.stream = np.concatenate(books)
        if len(self.stream) <= recipe.length:
            raise TrainError(
                f"the books hold {len(self.stream)} tokens; at least {recipe.length + 1} are needed"
            )
        found = {word.strip(".,;:!?") for text in texts for word in text[:200_000].split()}
        plain = sorted(word for word in found if word.isascii() and word.isalpha()) or ["a", "b"]
        self.words = [encode(tokenizer, " " + word) for word in plain if len(word) < 11]
        self.digits = [encode(tokenizer, digit) for digit in "0123456789"]
        pieces = ["The", " number is", ".", " =", "\n", ":", ";", " is", " "]
        self.pieces = {piece: encode(tokenizer, piece) for piece in pieces}

    def text(self, rng: np.random.Generator, size: int) -> Ints:
        """A random span of `size` tokens of the books."""
        start = int(rng.integers(0, len(self.stream) - size))
        return self.stream[start : start + size]

    def sequence(self, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """One training sequence and its labels; `<s>` comes first."""
        room = self.recipe.length - 1
        if rng.random() >= self.recipe.retrieval:
            parts: list[Part] = [(self.text(rng, room), True)]
        elif rng.random() < 0.6:
            parts = self.copies(rng, room)
        else:
            parts = self.facts(rng, room)
        tokens = np.concatenate([np.array([BOS]), *(part for part, _ in parts)])
        learned = np.concatenate([[False], *(np.full(len(p), learn) for p, learn in parts)])
        tokens, learned = tokens[: room + 1], learned[: room + 1]
        return tokens, np.where(learned, tokens, IGNORED)

    def copies(self, rng: np.random.Generator, room: int) -> list[Part]:
        """A span of text, words or random tokens, repeated until `room` is full."""
        size = int(np.exp(rng.uniform(np.log(8), np.log(room // 2 + 1))))
        kind = rng.random()
        if kind < 0.5:
            span, learn = self.text(rng, size), True
        elif kind < 0.75:
            picks = rng.integers(0, len(self.words), size)
            span, learn = np.concatenate([self.words[i] for i in picks])[:size], False
        else:
            span, learn = rng.integers(EOS + 1, self.vocab, size), False
        parts: list[Part] = [(span, learn)]
        gapped = rng.random() < 0.5
        if rng.random() < 0.5:
            parts.insert(0, (self.text(rng, int(rng.integers(1, room // 4))), True))
        while sum(len(part) for part, _ in parts) < room:
            if gapped:
                parts.append((self.text(rng, int(rng.integers(1, room // 2))), True))
                start = int(rng.integers(0, max(1, size - 8)))
                parts.append((span[start : start + 1], False))
                parts.append((span[start + 1 :], True))
            else:
                parts.append((span, True))
        return parts

    def facts(self, rng: np.random.Generator, room: int) -> list[Part]:
        """Key-value facts, then some of them again with the value learned."""
        before, between, after = (
            ("The", " number is", "."),
            ("", " =", "\n"),
            ("", ":", ";"),
            ("The", " is", "."),
        )[int(rng.integers(0, 4))]
        gap = int(rng.choice([0, 0, 16, 48]))
        pairs = [self.pair(rng) for _ in range(int(rng.integers(2, 13 if gap == 0 else 6)))]

        def fact(key: Ints, value: Ints, learn: bool) -> list[Part]:
            start = [(self.pieces[before], True)] if before else []
            middle = [(self.pieces[between], True), (value, learn), (self.pieces[after], True)]
            return [*start, (key, False), *middle]

        parts: list[Part] = []
        for key, value in pairs:
            parts += fact(key, value, False)
            if gap:
                parts.append((self.text(rng, int(rng.integers(1, gap))), True))
        parts.append((self.text(rng, int(rng.integers(1, room // 3))), True))
        parts.append((self.pieces["\n"], False))
        for i in rng.permutation(len(pairs)):
            key, value = pairs[int(i)]
            parts += fact(key, value, True)
        return [*parts, (self.text(rng, room), True)]

    def pair(self, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """A key of one or two words, and a value of digits or words."""
        words = [self.words[i] for i in rng.integers(0, len(self.words), 4)]
        key = np.concatenate(words[: int(rng.integers(1, 3))])
        if rng.random() < 0.5:
            picks = rng.integers(0, 10, int(rng.integers(2, 7)))
            return key, np.concatenate([self.pieces[" "], *(self.digits[i] for i in picks)])
        return key, np.concatenate(words[2 : int(rng.integers(3, 5))])

    def lesson(self, step: int) -> Lesson | None:
        """The lesson that a step belongs to; None after the last."""
        for lesson in self.recipe.lessons:
            if step < lesson.steps:
                return lesson
            step -= lesson.steps
        return None

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of one step; it depends on the seed and the step alone."""
        rng = np.random.default_rng([self.recipe.seed, step])
        lesson = self.lesson(step)
        if lesson:
            rows = [repeated(rng, lesson) for _ in range(lesson.batch)]
        else:
            rows = [self.sequence(rng) for _ in range(self.recipe.batch)]
        tokens, labels = (np.stack(column) for column in zip(*rows, strict=True))
        return torch.from_numpy(tokens), torch.from_numpy(labels)
