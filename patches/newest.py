"""Attention of the newest query of each row, for rows of any length together.

Rows end at one column; with more padding on its left, a row's newest query is at a lower position,
and a band covers other columns of it. Queries and new keys of all rows are rotated at once and the
bands of all rows merged at once; only the fused calls are given a row's own columns, so that none
reads a key that its query does not see, and no mask is made.
"""

from itertools import groupby

import torch
from torch import Tensor

from patches.attention import finished, scales
from patches.base import Plan, Region
from patches.kept import KeptKeys
from patches.kernels import fused_attention
from patches.rotation import rotated

__all__ = ["newest_attention"]

Spans = tuple[tuple[int, int], ...]  # columns [start, stop) of each row; (0, 0) if there are none
Part = tuple[Tensor, Tensor]  # output [batch, heads, 1, value_dim], log-sum-exp [batch, heads, 1]


def newest_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: Plan,
    pads: tuple[int, ...],
    *,
    scaling: float,
    softcap: float | None = None,
    sink_logits: Tensor | None = None,
    kept: KeptKeys | None = None,
) -> Tensor:
    """Output of `attend` for one query a row, that of the last column.

    Args:
        query: un-rotated queries [batch, heads, 1, head_dim].
        key: un-rotated keys [batch, kv_heads, columns, head_dim].
        value: values [batch, kv_heads, columns, value_dim].
        plan: what the patch does on this layer.
        pads: columns before position 0 of each row; one number if it is that of all rows.
        scaling: softmax scale.
        softcap: bound of the scores; a query scale acts inside it.
        sink_logits: a logit a head that takes its share of the softmax and has no value [heads].
        kept: rotated keys of earlier steps with the same keys and padding, used and added to.

    Returns:
        [batch, heads, 1, value_dim] in the dtype of the queries; 0 for a row that sees no key.
    """
    columns = key.shape[2]
    if plan.query_scale is not None:
        query = query * scales(plan, plan.query_scale, (columns - 1, columns), pads, query)
    parts = []
    for index, band in enumerate(plan.bands):
        spans = visible(band.region, columns, pads, plan)
        if any(stop for _, stop in spans):
            turned = rotated_keys(key, bounds(spans), plan, pads, (kept, index))
            at = (columns - 1, columns, columns - 1)
            skew = plan.rope.layout.skews[0]
            own = rotated(query, at, band.query_position, plan, skew, pads)
            parts.append(band_part(own, turned, value, spans, (scaling, softcap)))
    out, lse = merged(parts or [nothing(query, value)])
    return finished(out, lse, sink_logits).to(query.dtype)


def visible(region: Region, columns: int, pads: tuple[int, ...], plan: Plan) -> Spans:
    """The columns that the newest query of each row sees of a region."""

    def span(pad: int) -> tuple[int, int]:
        start, stop = region.interval(columns - 1 - pad)
        return (start + pad, stop + pad) if start < stop else (0, 0)

    return plan.once((region, columns, pads), lambda: tuple(map(span, pads)))


def bounds(spans: Spans) -> tuple[int, int]:
    """The first and the end of the columns that any row sees."""
    seen = [span for span in spans if span[1]]
    return min(start for start, _ in seen), max(stop for _, stop in seen)


def rotated_keys(
    key: Tensor,
    columns: tuple[int, int],
    plan: Plan,
    pads: tuple[int, ...],
    kept: tuple[KeptKeys | None, int],
) -> Tensor:
    """Keys of columns [first, stop) rotated as a band does; of kept ones, only the new."""
    known, index = kept
    positions, rope = plan.bands[index].key_position, plan.rope

    def rotate(first: int, stop: int) -> Tensor:
        return rotated(key, (first, stop, 0), positions, plan, rope.layout.skews[1], pads)

    if known is None or (positions is None and rope.attention_factor == 1.0):
        return rotate(*columns)
    return known.get(index, *columns, rotate)


def band_part(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Spans,
    scores: tuple[float, float | None],
) -> Part:
    """Attention over a band's columns: a call for neighbouring rows that see the same ones.

    Args:
        query: rotated queries [batch, heads, 1, head_dim].
        key: rotated keys from the first column on that a row sees.
        value: values of all columns.
        spans: the columns of each row, or of all.
        scores: softmax scale and bound of the scores.
    """
    first, batch = bounds(spans)[0], query.shape[0]
    own = spans if len(spans) == batch else spans * batch
    parts = []
    for (start, stop), group in groupby(range(batch), lambda row: own[row]):
        rows = list(group)
        here = slice(rows[0], rows[-1] + 1)  # a list of rows would copy the cache
        q, v = query[here], value[here, :, start:stop]
        if stop:
            k, (scaling, softcap) = key[here, :, start - first : stop - first], scores
            parts.append(
                fused_attention(q, k, v, is_causal=False, scaling=scaling, softcap=softcap)
            )
        else:
            parts.append(nothing(q, v))
    if len(parts) == 1:
        return parts[0]
    outs, lses = zip(*parts, strict=True)
    return torch.cat(outs), torch.cat(lses)


def nothing(query: Tensor, value: Tensor) -> Part:
    """What rows have that see no key."""
    out = query.new_zeros(*query.shape[:3], value.shape[-1])
    precision = torch.float64 if query.dtype == torch.float64 else torch.float32
    return out, query.new_full(query.shape[:3], -torch.inf, dtype=precision)


def merged(parts: list[Part]) -> Part:
    """The softmax over disjoint sets of keys: each counts by exp(lse - total)."""
    if len(parts) == 1:
        return parts[0]
    outs, lses = (torch.stack(each) for each in zip(*parts, strict=True))
    total = lses.logsumexp(0)
    finite = total.clamp(min=torch.finfo(total.dtype).min)  # -inf - -inf is no number
    return ((lses - finite).exp()[..., None] * outs).sum(0), total
