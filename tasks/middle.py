"""Prompts that are too long for the budget: their middle is cut, or that of their context."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.base import TaskError, Tokenizer
from tasks.fit import prefix
from tasks.haystack import following
from tasks.spec import choice

__all__ = ["Fitted", "Parts", "cut_field", "fit", "fit_all"]

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """A prompt: what stands before its context, the context, and what stands after it."""

    before: str
    context: str
    after: str


@dataclass(frozen=True)
class Fitted:
    """The tokens of a prompt, BOS included, and what was cut: nothing, `context` or `wording`."""

    tokens: Tokens
    cut: str = ""


def cut_field() -> str:
    """Declare the parameter that says what of a prompt too long is cut."""
    field: str = choice("prompt", "context", what="what loses its middle in a prompt too long")
    return field


def fit(
    tokenizer: Tokenizer, parts: Parts, length: int, new: int, cut: str, joined: bool = False
) -> Fitted:
    """Fit a prompt and its answer into `length` tokens.

    A prompt within the budget stays as it is. With cut=prompt a longer one becomes the text of its
    first half-budget of tokens, BOS among them, and the text of its last, as LongBench's pred.py
    does it: an odd budget loses a token. Where the tokens of that text are more than the budget, a
    few more are cut. With cut=context the context alone loses its middle.

    Args:
        tokenizer: of the model.
        parts: of the prompt.
        length: tokens of prompt and answer.
        new: tokens of the answer.
        cut: prompt or context.
        joined: read the text of both halves at once, as LongBench v2 does; the last half then has
            the odd token.

    Raises:
        TaskError: there is no room for a prompt, or with cut=context none for the wording.
    """
    budget, bos = length - new, prefix(tokenizer)
    if budget < len(bos) + 2:
        raise TaskError(
            f"--len {length}: no room for a prompt before {new} new tokens; raise --len"
        )
    tokens = (*bos, *tokenizer.encode(parts.before + parts.context + parts.after))
    if len(tokens) <= budget:
        return Fitted(tokens)
    if cut == "context":
        return _context_cut(tokenizer, parts, tokens, length, new)
    size = budget
    while True:
        first, last = size // 2, size - size // 2 if joined else size // 2
        halves = tokens[len(bos) : first], tokens[len(tokens) - last :]
        texts = [tokenizer.decode(part) for part in ([halves[0] + halves[1]] if joined else halves)]
        kept = (*bos, *tokenizer.encode("".join(texts)))
        if len(kept) <= budget:
            break
        size -= len(kept) - budget
    around = [len(following(tokenizer, text)) for text in (parts.before, parts.after)]
    whole = len(bos) + around[0] <= first and around[1] <= last
    return Fitted(kept, "context" if whole else "wording")


def fit_all(
    tokenizer: Tokenizer, parts: Sequence[Parts], length: int, new: int, from_start: bool = False
) -> list[Fitted]:
    """Fit prompts about one context: those that say the same before it begin with the same tokens.

    The context loses as many tokens as the longest needs: its last, or its first with from_start.

    Raises:
        TaskError: there is no room for the wording.
    """
    bos, found = prefix(tokenizer), dict[Parts, Fitted]()
    for head in dict.fromkeys((one.before, one.context) for one in parts):
        alike = [one for one in parts if (one.before, one.context) == head]
        tails = [following(tokenizer, one.after) for one in alike]
        shared, cut = (*bos, *tokenizer.encode("".join(head))), ""
        room = length - new - max(map(len, tails))
        if len(shared) > room:
            fixed = (*bos, *tokenizer.encode(head[0]))
            if room <= len(fixed):
                raise TaskError(
                    f"--len {length}: instruction and question alone take "
                    f"{length - new - room + len(fixed)} tokens and the answer {new}; raise --len"
                )
            context, left = following(tokenizer, head[1]), room - len(fixed)
            kept = context[len(context) - left :] if from_start else context[:left]
            shared, cut = (*fixed, *kept), "context"
        found |= {
            one: Fitted((*shared, *tail), cut) for one, tail in zip(alike, tails, strict=True)
        }
    return [found[one] for one in parts]


def _context_cut(
    tokenizer: Tokenizer, parts: Parts, tokens: Tokens, length: int, new: int
) -> Fitted:
    """The same prompt with less of its context; a token that is part of the wording stays."""
    spans, skipped = tokenizer.offsets(parts.before + parts.context + parts.after), len(tokens)
    skipped -= len(spans)
    border = len(parts.before) + len(parts.context)
    start = skipped + bisect_left([first for first, _ in spans], len(parts.before))
    end = max(start, skipped + bisect_right([last for _, last in spans], border))
    room = length - new - start - (len(tokens) - end)
    if room < 0:
        raise TaskError(
            f"--len {length}: instruction and question alone take {length - new - room} tokens and "
            f"the answer {new}; raise --len, or give cut=prompt"
        )
    kept = _ends(tokens[start:end], room)
    return Fitted((*tokens[:start], *kept, *tokens[end:]), "context")


def _ends(tokens: Sequence[int], room: int) -> Tokens:
    """First and last tokens, `room` in all."""
    return (*tokens[: room // 2], *tokens[len(tokens) - (room - room // 2) :])
