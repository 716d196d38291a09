"""Reads tokens with a model: nll of given tokens, or of hidden ones."""

import inspect
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.cache import RowCache, cached
from harness.continued import Faults, faults_of, reads_together
from harness.errors import HarnessError, NonFinite
from harness.states import keeps_states
from tasks.base import Pass

__all__ = ["Engine", "losses", "pieces"]

LOGIT_ROWS = 1024  # most positions whose logits are alive at once
LOSS_ROWS = 128  # most positions whose float32 exponentials are alive at once


class Engine:
    """One model on one device, read in one forward or in chunks through the KV cache."""

    def __init__(
        self,
        model: Any,
        chunk: int | None,
        device: torch.device,
        bos_id: int | None = None,
        mask_id: int | None = None,
    ) -> None:
        """Bind a language model.

        Args:
            model: a HuggingFace model in eval mode: causal, or one that fills in masks.
            chunk: tokens a prefill forward; None reads as much as it can in one.
            device: where the inputs go.
            bos_id: a first token that stays in front of an input cut to its newest tokens.
            mask_id: stands where a token is hidden; None for a causal model.

        Raises:
            HarnessError: the model cannot compute the logits of selected positions only.
        """
        if mask_id is None and "logits_to_keep" not in inspect.signature(model.forward).parameters:
            raise HarnessError(
                f"{type(model).__name__}: its forward takes no logits_to_keep, so logits of a long "
                "input would not fit; use a causal language model of transformers that does"
            )
        self.model = model
        self.chunk = chunk
        self.device = device
        self.bos_id = bos_id
        self.mask_id = mask_id
        self.tokens_read = 0  # that went through the model so far
        self.keeps_states = keeps_states(model.config)
        ends = (getattr(model, "generation_config", None) or model.config).eos_token_id
        self.end_ids = frozenset([ends] if isinstance(ends, int) else ends or ())

    def measure(self, batch: int = 1) -> None:
        """Find out how the model reads before a patch is on or forwards are watched.

        Args:
            batch: rows to go on together; 1 if that need not be measured.
        """
        _ = self.faults, batch > 1 and self.reads_together

    @cached_property
    def faults(self) -> Faults:
        """What goes wrong when the model reads; measured once."""
        return faults_of(self.model) if self.mask_id is None else Faults()

    @cached_property
    def reads_together(self) -> bool:
        """False if rows of unequal length cannot go on together.

        Some models take the place in a padded row for the position.
        """
        return reads_together(self.model)

    def cache(self, capacity: int, rows: int = 1, in_pieces: bool = False) -> RowCache:
        """An empty cache.

        Args:
            capacity: tokens of a row.
            rows: sequences.
            in_pieces: several tokens will be read behind others, not one alone.

        Raises:
            HarnessError: its tokens see later ones, or it does not read on as it should.
        """
        self._check_causal()
        name = self.model.config.model_type
        if self.faults.steps:
            raise HarnessError(
                f"{name} does not read on behind a cache ({self.faults.steps}), as generation and "
                "--chunk do; leave --chunk out and choose tasks that score given tokens"
            )
        if self.faults.pieces and in_pieces:
            raise HarnessError(
                f"{name} does not read several tokens behind a cache ({self.faults.pieces}), as "
                f"--chunk, contexts read apart and more than {LOGIT_ROWS} scored tokens do; do "
                "without them"
            )
        return RowCache(rows, capacity, self.model.config)

    def read(self, one: Pass, keep: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Score a pass: its hidden tokens, or those from `score_from` on; see `score`."""
        if one.hidden:
            return self.fill_in(one.tokens, one.hidden, keep)
        return self.score(one.tokens, one.score_from, keep)

    @torch.inference_mode()
    def fill_in(
        self, tokens: Sequence[int], hidden: Sequence[int], keep: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the nll of hidden tokens, each given all tokens that are not hidden.

        Args:
            tokens: the input with the tokens that are to be hidden.
            hidden: their places, rising.
            keep: if given, the newest tokens that the model is given, BOS included.

        Returns:
            nll in nats [len(hidden)], and whether the token is the likeliest one.

        Raises:
            NonFinite: an nll is not a finite number.
            HarnessError: a hidden token is not among the newest `keep`.
        """
        wanted = [tokens[place] for place in hidden]
        given: list[int | None] = list(tokens)
        for place in hidden:
            given[place] = self.mask_id
        first = 0 if keep is None else max(0, len(tokens) - keep)
        head = self.head(tokens) if first else []
        if hidden[0] < first + len(head):
            raise HarnessError(f"hidden token {hidden[0]} is not among the newest {keep}")
        read = [*head, *given[first + len(head) :]]
        logits = self.masked_logits(read, [place - first for place in hidden])
        piece_nll, piece_hits = losses(logits, wanted)
        nll, hits = piece_nll.double().cpu().numpy(), piece_hits.cpu().numpy()
        _check_finite(nll, hidden)
        return nll, hits

    def masked_logits(self, tokens: Sequence[int | None], places: Sequence[int]) -> Tensor:
        """Logits at some places of an input with masks in it [places, vocabulary]."""
        self.tokens_read += len(tokens)
        logits: Tensor = self.model(input_ids=torch.tensor([tokens], device=self.device)).logits
        return logits[0, list(places)]

    @torch.inference_mode()
    def score(
        self, tokens: Sequence[int], score_from: int, keep: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the nll of tokens[score_from:], each given the tokens before it.

        nll(t) = -log softmax(logits(t - 1))[token(t)], in float32, result in float64.

        Args:
            tokens: the input and its targets, BOS included if there is one.
            score_from: index of the first scored token, 1 <= score_from < len(tokens).
            keep: if given and shorter than `tokens`, every scored token is read in a window of
                `keep` tokens, BOS included, that ends at most keep // 2 tokens later; each starts
                at position 0.

        Returns:
            nll in nats [len(tokens) - score_from], and whether the target is the likeliest token.

        Raises:
            NonFinite: a scored nll is not a finite number.
            HarnessError: the model's tokens see later ones, or it does not read on as it should.
        """
        self._check_causal()
        parts = [self._score_window(*one) for one in self.windows(tokens, score_from, keep)]
        nll, hits = zip(*parts, strict=True)
        return np.concatenate(nll), np.concatenate(hits)

    def _check_causal(self) -> None:
        if self.faults.leaks:
            raise HarnessError(
                f"{self.model.config.model_type}: its tokens see later ones too, so that it tells "
                "neither the loss of unseen ones nor the next; give a causal model, or is_decoder "
                "in its config"
            )

    def windows(
        self, tokens: Sequence[int], score_from: int, keep: int | None
    ) -> Iterator[tuple[Sequence[int], int, int]]:
        """The inputs that `score` reads: tokens, first scored one, tokens left out before."""
        if keep is None or keep >= len(tokens):
            yield tokens, score_from, 0
            return
        head, step = self.head(tokens), max(1, keep // 2)
        for start in range(score_from, len(tokens), step):
            end = min(start + step, len(tokens))
            first = max(len(head), min(start - 1, end - keep + len(head)))
            skipped = first - len(head)
            yield [*head, *tokens[first:end]], start - skipped, skipped

    def head(self, tokens: Sequence[int]) -> list[int]:
        """The BOS that an input begins with, if it does."""
        return [self.bos_id] if self.bos_id is not None and tokens[0] == self.bos_id else []

    def _score_window(
        self, tokens: Sequence[int], score_from: int, offset: int
    ) -> tuple[np.ndarray, np.ndarray]:
        inputs, first_row = tokens[:-1], score_from - 1
        parts = list(pieces(len(inputs), first_row, self.chunk))
        cache = self.cache(len(inputs), in_pieces=True) if len(parts) > 1 else None
        nll, hits = [], []
        for start, end in parts:
            rows = end - max(start, first_row)
            logits = self.forward(inputs[start:end], max(rows, 1), cache)
            if rows > 0:
                piece_nll, piece_hits = losses(logits, tokens[end - rows + 1 : end + 1])
                nll.append(piece_nll.double().cpu().numpy())
                hits.append(piece_hits.cpu().numpy())
        all_nll = np.concatenate(nll)
        _check_finite(all_nll, range(offset + score_from, offset + len(tokens)))
        return all_nll, np.concatenate(hits)

    def forward(
        self, tokens: Sequence[int], rows: int, cache: object, position: int | None = None
    ) -> Tensor:
        """Return the logits of the last `rows` tokens [rows, vocabulary].

        `position` is that of the first token, if it is not its place in the cache.
        """
        self.tokens_read += len(tokens)
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=self.device)
        extra = {}
        if position is not None:
            places = torch.arange(position, position + len(tokens), device=self.device)
            extra["position_ids"] = places[None]
        output = self.model(
            input_ids=ids,
            logits_to_keep=rows,
            **cached(self.model, cache),
            **extra,
        )
        logits: Tensor = output.logits[0]
        return logits


def pieces(length: int, first_row: int, chunk: int | None) -> Iterator[tuple[int, int]]:
    """Cut `length` inputs into forwards of at most `chunk` tokens and LOGIT_ROWS scored rows."""
    start = 0
    while start < length:
        end = min(length, max(start, first_row) + LOGIT_ROWS)
        if chunk is not None:
            end = min(end, start + chunk)
        yield start, end
        start = end


def _check_finite(nll: np.ndarray, places: Sequence[int]) -> None:
    bad = np.flatnonzero(~np.isfinite(nll))
    if bad.size:
        raise NonFinite(
            f"nll is {nll[bad[0]]} at position {places[int(bad[0])]}, "
            f"the first of {bad.size} bad ones; try --dtype fp32"
        )


def losses(logits: Tensor, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return nll (float32) and hits of as many rows of logits as there are targets.

    The sum over the vocabulary is logsumexp's: cross_entropy drops small terms on the CPU.
    """
    wanted = torch.tensor(list(targets), dtype=torch.long, device=logits.device)
    nll, hits = [], []
    pairs = zip(torch.split(logits, LOSS_ROWS), torch.split(wanted, LOSS_ROWS), strict=True)
    for rows, target in pairs:
        scores = rows.float()
        nll.append(scores.logsumexp(dim=-1) - scores.gather(-1, target[:, None])[:, 0])
        hits.append(rows.argmax(dim=-1) == target)
    return torch.cat(nll), torch.cat(hits)
