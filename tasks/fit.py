"""Fit documents to a token budget: a length is the whole budget, BOS included."""

from collections.abc import Sequence

from tasks.base import Document, Pass, TaskError, Tokenizer

__all__ = ["default_of", "encode", "prefix", "suffix", "windows"]


def prefix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return what stands before every text: BOS, or nothing where the tokenizer has none."""
    return () if tokenizer.bos_id is None else (tokenizer.bos_id,)


def suffix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return what stands behind every text of a model that fills in masks, if anything."""
    return () if tokenizer.end_id is None else (tokenizer.end_id,)


def encode(document: Document, tokenizer: Tokenizer, need: int, what: str) -> Sequence[int]:
    """Return all text tokens of a document, at least `need` of them.

    Raises:
        TaskError: the document is too short.
    """
    tokens = tokenizer.encode(document.text)
    if len(tokens) < need:
        raise TaskError(
            f"document '{document.id}' has {len(tokens)} tokens and {what} needs {need}; "
            "lower --len or --n, or give longer documents with --data"
        )
    return tokens


def default_of(name: str, value: int | None, derived: int) -> int:
    """Return a parameter's value, or its derived default.

    Raises:
        TaskError: the derived default is below 1.
    """
    if value is None and derived < 1:
        raise TaskError(f"{name}: no default for a trained length this short; give {name}=1")
    return derived if value is None else value


def windows(
    text: Sequence[int], window: int, stride: int, bos: tuple[int, ...]
) -> tuple[Pass, ...]:
    """Cut text into windows; each scores the tokens that no earlier window scored."""
    passes, seen, begin = [], 0, 0
    while seen < len(text):
        end = min(begin + window, len(text))
        tokens = (*bos, *text[begin:end])
        passes.append(Pass(tokens, max(1, len(tokens) - (end - seen))))
        seen, begin = end, begin + stride
    return tuple(passes)
