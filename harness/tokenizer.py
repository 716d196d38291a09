"""A HuggingFace tokenizer as tasks see it."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from harness.errors import HarnessError, Unavailable
from harness.rendering import render

__all__ = ["DIGITS", "TextTokenizer"]

DIGITS = 12
MESSAGE = "(what the user says)"


class TextTokenizer:
    """A HuggingFace tokenizer as tasks see it: plain token ids, and what it puts around a text.

    Attributes:
        bos_id: BOS, or the token of that place in a BERT.
        end_id: the separator or end of sequence.
        mask_id: the mask, if there is one.
        longest: most tokens that it says the model takes.
    """

    def __init__(self, tokenizer: Any, model: str = "", words: int | None = None) -> None:
        """Wrap a tokenizer; BOS and end count only if the tokenizer puts them there by default.

        Args:
            tokenizer: of transformers.
            model: its model's name, for messages.
            words: tokens that the model knows, 0 to words - 1; None if that is not said.

        Raises:
            Unavailable: it gives tokens that the model does not know, here or for a later text.
        """
        self._tokenizer = tokenizer
        self._model, self._words = model, words
        self._ids: dict[str, list[int]] = {}
        default = self._known(tokenizer("x").input_ids)
        first = (tokenizer.bos_token_id, tokenizer.cls_token_id)
        last = (tokenizer.sep_token_id, tokenizer.eos_token_id)
        self.bos_id: int | None = default[0] if default and default[0] in first else None
        self.end_id: int | None = default[-1] if len(default) > 1 and default[-1] in last else None
        self.mask_id: int | None = tokenizer.mask_token_id
        self.longest = int(tokenizer.model_max_length)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        if text not in self._ids:  # a grid asks for the same documents at every length
            self._ids[text] = self._known(
                self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            )
        return self._ids[text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, without special tokens."""
        ids: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, verbose=False
        ).input_ids
        return [self._known(one) for one in ids]

    def _known(self, ids: list[int]) -> list[int]:
        """The same ids, all of them known to the model: a kernel on CUDA would end the process."""
        if self._words is not None and max(ids, default=0) >= self._words:
            raise Unavailable(
                f"--model {self._model}: its tokenizer gives token {max(ids)} and the model knows "
                f"0 to {self._words - 1}; it is another model's: give the tokenizer that belongs "
                "to the weights"
            )
        return ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters [start, end) of each token of the text.

        Raises:
            HarnessError: the tokenizer does not say, or says it wrongly.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            raise HarnessError("this model's tokenizer gives no character offsets; use another")
        spans = self._tokenizer(
            text, add_special_tokens=False, verbose=False, return_offsets_mapping=True
        ).offset_mapping
        empty = sum(start >= end for start, end in spans)
        if empty > len(spans) // 100:
            raise HarnessError(
                f"this model's tokenizer gives empty character offsets for {empty} of {len(spans)} "
                "tokens; update the package tokenizers"
            )
        return [(int(start), int(end)) for start, end in spans]

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Text of token ids as it is, without special tokens unless they are asked for."""
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
            )
        )

    @cached_property
    def chat(self) -> tuple[str, str] | None:
        """Texts before and behind a user's message, by the model's chat template; None without.

        A BOS at its beginning is left out: whoever makes a prompt puts one there.

        Raises:
            HarnessError: the template cannot take one message of a user as it is, or has no end.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            return None
        messages = [{"role": "user", "content": MESSAGE}]
        before, found, behind = render(self._tokenizer, messages).partition(MESSAGE)
        if not found:
            raise HarnessError(
                "this model's chat template changes the user's message; not supported"
            )
        bos = self._tokenizer.bos_token
        return before.removeprefix(bos) if bos and self.bos_id is not None else before, behind

    @property
    def chat_digest(self) -> str:
        """sha256 of what its chat template puts around a message, 12 hex digits."""
        return hashlib.sha256(repr(self.chat).encode()).hexdigest()[:DIGITS]

    @cached_property
    def digest(self) -> str:
        """sha256 of vocabulary and rules, 12 hex digits."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        rules = backend.to_str() if backend else repr(sorted(self._tokenizer.get_vocab().items()))
        return hashlib.sha256(f"{self.bos_id} {rules}".encode()).hexdigest()[:DIGITS]
