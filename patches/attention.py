"""Exact attention over bands in linear memory: partial softmaxes merged by their log-sum-exp.

A band's visible keys form a staircase, so every stretch of queries needs at most three fused calls:
an unmasked rectangle and one causal triangle at either end (the older end with queries and keys
reversed), or one call where the device has one for windows. No score matrix is ever held.

Source: log-sum-exp merging as in FlashAttention, Dao et al. 2022 (2205.14135), section 3.1.
"""

from typing import Any

import torch
from torch import Tensor

from patches.base import Band, Plan, QueryScale
from patches.calls import Call, calls
from patches.kernels import fused_attention, widest
from patches.rotation import mapped, places, rotate, rotated

__all__ = ["attend", "finished", "partial_attention", "rotate", "scales"]


def blocks(x: Tensor, start: int, length: int, call: Call) -> Tensor:
    """The call's blocks of x along its length, folded into the batch."""
    if call.count == 1:
        x = x[:, :, start : start + length]
    else:
        x = x[:, :, start : start + (call.count - 1) * call.step + length]
        batch, heads, _, dim = x.shape
        x = x.unfold(2, length, call.step).permute(0, 2, 1, 4, 3)
        x = x.reshape(batch * call.count, heads, length, dim)
    return x.flip(2) if call.kind == "reverse" else x


class Softmax:
    """Running softmax-weighted sum of values over disjoint sets of keys."""

    def __init__(self, query: Tensor, width: int) -> None:
        """Start with no key seen: output 0 [.., width], log-sum-exp -inf."""
        precision = torch.float64 if query.dtype == torch.float64 else torch.float32
        batch, heads, length = query.shape[:3]
        about: dict[str, Any] = {"dtype": precision, "device": query.device}
        # a token's heads lie together, as models read them
        self.out = torch.zeros(batch, length, heads, width, **about).transpose(1, 2)
        self.lse = torch.full((batch, heads, length), -torch.inf, **about)
        self.seen: list[tuple[int, int]] = []  # queries that may have keys

    def add(self, call: Call, offset: int, out: Tensor, lse: Tensor) -> None:
        """Merge a call's result; `offset` is the index of the call's first query."""
        if call.kind == "reverse":
            out, lse = out.flip(2), lse.flip(2)
        stop = offset + (call.q_len if call.count == 1 else call.count * call.step)
        known = any(offset < other[1] and other[0] < stop for other in self.seen)
        merge, rows = self.merge if known else self.put, slice(offset, stop)
        self.seen.append((offset, stop))
        if call.count == 1:
            merge(self.out[:, :, rows], self.lse[:, :, rows], out, lse)
            return
        batch, heads = self.lse.shape[:2]
        fold = (batch, heads, call.count, call.step)
        into_out = self.out[:, :, rows].view(*fold, -1)[:, :, :, : call.q_len]
        into_lse = self.lse[:, :, rows].view(fold)[:, :, :, : call.q_len]
        out = out.reshape(batch, call.count, heads, call.q_len, -1).transpose(1, 2)
        lse = lse.reshape(batch, call.count, heads, call.q_len).transpose(1, 2)
        merge(into_out, into_lse, out, lse)

    @staticmethod
    def put(into_out: Tensor, into_lse: Tensor, out: Tensor, lse: Tensor) -> None:
        """Give keys to queries that have none."""
        into_out.copy_(out)
        into_lse.copy_(lse)

    @staticmethod
    def merge(into_out: Tensor, into_lse: Tensor, out: Tensor, lse: Tensor) -> None:
        """Add keys to a softmax in place: weights exp(lse - total) of both sides."""
        total = torch.logaddexp(into_lse, lse)
        into_out *= (into_lse - total).exp()[..., None]
        into_out.addcmul_(out, (lse - total).exp()[..., None])
        into_lse.copy_(total)


def partial_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    *,
    scaling: float,
    q_start: int = 0,
    k_start: int = 0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of a block of queries over a block of keys, causal, exact, in linear memory.

    Results over disjoint blocks of keys merge by their log-sum-exp, so that one prefill and one
    in chunks are this one function; a step of one token goes through `patches.newest`.

    Args:
        query: un-rotated queries [batch, heads, q_len, head_dim].
        key: un-rotated keys [batch, kv_heads, kv_len, head_dim]; heads % kv_heads == 0.
        value: values [batch, kv_heads, kv_len, value_dim].
        plan: what the patch does on this layer.
        scaling: softmax scale.
        q_start: absolute position of the first query.
        k_start: absolute position of the first key.
        softcap: bound of the scores, softcap * tanh(score / softcap); a query scale acts inside it.

    Returns:
        Output [batch, heads, q_len, value_dim] in fp32 (fp64 for fp64 queries) and log-sum-exp
        [batch, heads, q_len]; a query that sees none of the keys has output 0 and -inf.
    """
    q_stop, k_stop = q_start + query.shape[2], k_start + key.shape[2]
    if plan.query_scale is not None:
        query = query * scales(plan, plan.query_scale, (q_start, q_stop), (0,), query)
    softmax = Softmax(query, value.shape[-1])
    at_once = widest(query.device, softcap)
    for band in plan.bands:
        todo = list(calls(band.region, q_start, q_stop, k_start, k_stop, at_once))
        if todo:
            keys = key, value, k_start
            run_band(softmax, band, todo, (query, q_start), keys, plan, (scaling, softcap))
    return softmax.out, softmax.lse


def scales(
    plan: Plan,
    query_scale: QueryScale,
    columns: tuple[int, int],
    pads: tuple[int, ...],
    query: Tensor,
) -> Tensor:
    """Factors on the queries of columns [first, stop) in their dtype [len(pads), 1, q_len, 1].

    `pads` are the columns before position 0 of each row, or of all rows.
    """

    def make() -> Tensor:
        factors = mapped(query_scale, places(*columns, pads, query.device))
        return factors.to(query.device, query.dtype)[:, None, :, None]

    return plan.once((query_scale, *columns, pads, query.dtype, query.device), make)


def run_band(
    softmax: Softmax,
    band: Band,
    todo: list[Call],
    queries: tuple[Tensor, int],
    keys: tuple[Tensor, Tensor, int],
    plan: Plan,
    scores: tuple[float, float | None],
) -> None:
    """Rotate what the band's calls use, run them and merge them into `softmax`."""
    (query, q_start), (key, value, k_start) = queries, keys
    q_first, k_first = min(c.q_start for c in todo), min(c.k_start for c in todo)
    q_stop = max(c.q_start + (c.count - 1) * c.step + c.q_len for c in todo)
    k_stop = max(c.k_start + (c.count - 1) * c.step + c.k_len for c in todo)
    skews = plan.rope.layout.skews
    query = rotated(query, (q_first, q_stop, q_start), band.query_position, plan, skews[0])
    key = rotated(key, (k_first, k_stop, k_start), band.key_position, plan, skews[1])
    for call in todo:
        out, lse = fused_attention(
            blocks(query, call.q_start - q_first, call.q_len, call),
            blocks(key, call.k_start - k_first, call.k_len, call),
            blocks(value, call.k_start - k_start, call.k_len, call),
            is_causal=call.kind in ("causal", "reverse"),
            scaling=scores[0],
            softcap=scores[1],
            window=call.k_len - call.q_len + 1 if call.kind == "window" else None,
        )
        softmax.add(call, call.q_start - q_start, out, lse)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    *,
    scaling: float,
    q_start: int = 0,
    k_start: int = 0,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
) -> Tensor:
    """Output of `partial_attention` in the dtype of the queries; the same arguments.

    Args:
        query: as there, like all that is not named here.
        key: as there.
        value: as there.
        plan: as there.
        scaling: as there.
        q_start: as there.
        k_start: as there.
        softcap: as there.
        sink_logits: a logit a head that takes its share of the softmax and has no value [heads].
    """
    out, lse = partial_attention(
        query,
        key,
        value,
        plan,
        scaling=scaling,
        q_start=q_start,
        k_start=k_start,
        softcap=softcap,
    )
    return finished(out, lse, sink_logits).to(query.dtype)


def finished(out: Tensor, lse: Tensor, sink_logits: Tensor | None) -> Tensor:
    """The output of a whole softmax, of which sink logits take their share."""
    if sink_logits is not None:  # exp(lse) / (exp(lse) + exp(sink))
        out = out * torch.sigmoid(lse - sink_logits.to(lse)[:, None])[..., None]
    return out
