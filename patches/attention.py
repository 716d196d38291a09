"""Exact attention over bands in linear memory: partial softmaxes merged by their log-sum-exp.

A band's visible keys form a staircase, so every stretch of queries needs at most three fused calls:
an unmasked rectangle and one causal triangle at either end (the older end with queries and keys
reversed), or one call where the device has one for windows. No score matrix is ever held.

Source: log-sum-exp merging as in FlashAttention, Dao et al. 2022 (2205.14135), section 3.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from patches.base import Band, Plan, QueryScale, Region
from patches.kernels import fused_attention, widest
from patches.rotation import mapped, places, rotate, rotated

__all__ = ["attend", "finished", "partial_attention", "rotate", "scales"]

MAX_BLOCKS = 4096  # folded into one call; CUDA grids end at 65,535


@dataclass(frozen=True)
class Call:
    """One fused call over `count` consecutive blocks of one shape, in absolute positions.

    Block m has queries [q_start + m * step, + q_len) and keys [k_start + m * step, + k_len).
    """

    kind: str  # "full", "causal" (query r sees keys 0..r), "reverse" (keys r..), or "window" (keys
    # r.. as many as leave the last query the last key)
    q_start: int
    q_len: int
    k_start: int
    k_len: int
    count: int = 1
    step: int = 0


def cuts(region: Region, q_start: int, q_stop: int, keys: tuple[int, int]) -> list[int]:
    """Query positions between which each bound of the interval is constant or moves by one."""
    size = region.chunk_size
    chunks = range(q_start - q_start % size, q_stop, size)[1:] if size else ()
    edges = [q_start, *chunks, q_stop]
    low, high = region.distance
    points = set(edges)
    for edge in edges[:-1]:
        start, stop = clip(region.constant_bounds(edge), keys)
        points |= {start + low, stop + low}
        if high is not None:
            points |= {start + high - 1, stop + high - 1}
    return sorted(point for point in points if q_start <= point <= q_stop)


def clip(interval: tuple[int, int], keys: tuple[int, int]) -> tuple[int, int]:
    """Intersect an interval of keys with the keys at hand."""
    return max(interval[0], keys[0]), min(interval[1], keys[1])


def calls(
    region: Region, q_start: int, q_stop: int, k_start: int, k_stop: int, widest: int = 0
) -> Iterator[Call]:
    """Cover the region's pairs of queries [q_start, q_stop) and keys [k_start, k_stop) once.

    Windows that move along with at most `widest` keys are one call.
    """
    keys = (k_start, k_stop)
    points = cuts(region, q_start, q_stop, keys)
    for first, stop in pairwise(points):
        start_a, stop_a = clip(region.interval(first), keys)
        start_b, stop_b = clip(region.interval(stop - 1), keys)
        if start_a >= stop_a or start_b >= stop_b:
            continue
        start_moves, stop_moves = start_b > start_a, stop_b > stop_a
        width = stop_a - start_a
        if start_moves and stop_moves and width <= widest:
            yield Call("window", first, stop - first, start_a, stop_b - start_a)
        elif start_moves and stop_moves and stop - first > width:
            most = width * MAX_BLOCKS
            for done in range(0, stop - first, most):
                rows = min(stop - first - done, most)
                yield from blocks_of(first + done, rows, start_a + done, stop_a + done)
        else:
            yield from piece(first, stop - first, start_a, stop_a, (start_moves, stop_moves), 1)


def blocks_of(first: int, rows: int, start: int, stop: int) -> Iterator[Call]:
    """Calls for queries whose keys [start, stop) move along: whole blocks, then the rest."""
    width = stop - start
    count, rest = divmod(rows, width)
    if count:
        yield from piece(first, width, start, stop, (True, True), count)
    if rest:
        done = count * width
        yield from piece(first + done, rest, start + done, stop + done, (True, True), 1)


def piece(
    first: int, rows: int, start: int, stop: int, moves: tuple[bool, bool], count: int
) -> Iterator[Call]:
    """Calls for `count` blocks of `rows` queries whose first query sees keys [start, stop)."""
    start_moves, stop_moves = moves
    if stop_moves:
        stop -= 1
        yield Call("causal", first, rows, stop, rows, count, rows)
    if start_moves:
        reversed_rows = min(rows, stop - start)
        if reversed_rows:
            yield Call("reverse", first, reversed_rows, start, reversed_rows, count, rows)
        start += reversed_rows
    if start < stop:
        yield Call("full", first, rows, start, stop - start, count, rows)


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
        shape = (*query.shape[:3], width)
        self.out = torch.zeros(shape, dtype=precision, device=query.device)
        self.lse = torch.full(query.shape[:3], -torch.inf, dtype=precision, device=query.device)

    def add(self, call: Call, offset: int, out: Tensor, lse: Tensor) -> None:
        """Merge a call's result; `offset` is the index of the call's first query."""
        if call.kind == "reverse":
            out, lse = out.flip(2), lse.flip(2)
        if call.count == 1:
            rows = slice(offset, offset + call.q_len)
            self.merge(self.out[:, :, rows], self.lse[:, :, rows], out, lse)
            return
        rows = slice(offset, offset + call.count * call.step)
        batch, heads = self.lse.shape[:2]
        fold = (batch, heads, call.count, call.step)
        into_out = self.out[:, :, rows].view(*fold, -1)[:, :, :, : call.q_len]
        into_lse = self.lse[:, :, rows].view(fold)[:, :, :, : call.q_len]
        out = out.reshape(batch, call.count, heads, call.q_len, -1).transpose(1, 2)
        lse = lse.reshape(batch, call.count, heads, call.q_len).transpose(1, 2)
        self.merge(into_out, into_lse, out, lse)

    @staticmethod
    def merge(into_out: Tensor, into_lse: Tensor, out: Tensor, lse: Tensor) -> None:
        """Add keys to a softmax in place: weights exp(lse - total) of both sides."""
        total = torch.logaddexp(into_lse, lse)
        into_out *= (into_lse - total).exp()[..., None]
        into_out += out * (lse - total).exp()[..., None]
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

    Results over disjoint blocks of keys merge by their log-sum-exp, so that prefill, chunked
    prefill and decode are this one function.

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
