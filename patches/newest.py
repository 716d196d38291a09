"""Attention of the newest query of each row, for rows of any length together.

Rows end at one column; with more padding on its left, a row's newest query is at a lower position,
and a band covers other columns of it. Queries and new keys of all rows are rotated at once and the
bands of all rows merged at once; only the fused calls are given a row's own columns, so that none
reads a key that its query does not see, and no mask is made.
"""

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from patches.attention import finished
from patches.base import Plan, Region
from patches.kept import KeptKeys
from patches.kernels import fused_attention
from patches.rotation import Turn, mapped, places, rotated, turn_of, turned_to

__all__ = ["newest_attention"]

Spans = tuple[tuple[int, int], ...]  # columns [start, stop) of each row; (0, 0) if there are none
Part = tuple[Tensor, Tensor]  # output [batch, heads, 1, value_dim], log-sum-exp [batch, heads, 1]


@dataclass(frozen=True)
class Seen:
    """What the newest queries see of a band.

    Attributes:
        band: its index.
        columns: from the first to the end of those that any row sees.
        groups: neighbouring rows, from the first to the end, that see the same columns, likewise.
        is_turned: its keys are rotated.
    """

    band: int
    columns: tuple[int, int]
    groups: tuple[tuple[int, int, int, int], ...]
    is_turned: bool


@dataclass(frozen=True)
class Step:
    """What the layers of a forward that follow the same maps have in common.

    Attributes:
        seen: the bands of which a row sees a key.
        turn: rotation and scale of the queries in each of these [bands, rows, 1, 1, head_dim].
        turns: rotation of the keys of each one's last column [rows, 1, 1, head_dim].
        has_gaps: a row sees no key of a band of which another does.
    """

    seen: tuple[Seen, ...]
    turn: Turn
    turns: tuple[Turn, ...]
    has_gaps: bool


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
    step = step_of(query, plan, key.shape[2], pads)
    if not step.seen:
        return nothing(query, value)[0]
    parts = []
    bands = zip(step.turn(query).unbind(), step.seen, step.turns, strict=True)
    for own, seen, turn in bands:
        turned = rotated_keys(key, (seen, turn), plan, pads, kept)
        parts.append(band_part(own, turned, value, seen, (scaling, softcap)))
    out, lse = merged(parts, step.has_gaps)
    return finished(out, lse, sink_logits).to(query.dtype)


def step_of(query: Tensor, plan: Plan, columns: int, pads: tuple[int, ...]) -> Step:
    """What a plan's layers do with the queries of the last of some columns."""
    rope = plan.rope

    def make() -> Step:
        spans = [visible(band.region, columns, pads) for band in plan.bands]
        bands = [index for index, own in enumerate(spans) if any(stop for _, stop in own)]
        seen = tuple(seen_of(plan, index, spans[index], len(query)) for index in bands)
        at = places(columns - 1, columns, pads, query.device)  # [rows, 1]
        to = [turned_to(plan.bands[one.band].query_position, at) for one in seen]
        lasts = [at if one.columns[1] == columns else at + one.columns[1] - columns for one in seen]
        keys_to = map(turned_to, (plan.bands[one.band].key_position for one in seen), lasts)
        scale, (skew, key_skew) = plan.query_scale, rope.layout.skews
        factor = 1.0 if scale is None else mapped(scale, at)[:, None, :, None]
        turn = turn_of(query, torch.stack(to or [at])[:, :, None], rope, skew, factor)
        keys = turn_of(query, torch.stack(tuple(keys_to) or (at,))[:, :, None], rope, key_skew)
        turns = zip(keys.own.unbind(), keys.other.unbind(), strict=True)
        has_gaps = any(not stop for one in seen for *_, stop in one.groups)
        each = tuple(Turn(*one, keys.partner) for one in turns)
        return Step(seen, turn, each, has_gaps)

    about = (*query.shape[::3], query.dtype, query.device)
    settings = (plan.bands, plan.query_scale, rope.inv_freq, rope.layout, *rope.layout.skews)
    return plan.once((columns, pads, *about, *settings), make)


def visible(region: Region, columns: int, pads: tuple[int, ...]) -> Spans:
    """The columns that the newest query of each row sees of a region."""

    def span(pad: int) -> tuple[int, int]:
        start, stop = region.interval(columns - 1 - pad)
        return (start + pad, stop + pad) if start < stop else (0, 0)

    return tuple(map(span, pads))


def seen_of(plan: Plan, index: int, spans: Spans, batch: int) -> Seen:
    """What the rows of a batch see of a band, whose columns are given for each row or for all."""
    own = spans if len(spans) == batch else spans * batch
    groups = []
    for (start, stop), group in groupby(range(batch), lambda row: own[row]):
        rows = list(group)  # which stand together: a list of them would copy the cache
        groups.append((rows[0], rows[-1] + 1, start, stop))
    some = [span for span in spans if span[1]]
    columns = min(start for start, _ in some), max(stop for _, stop in some)
    is_turned = plan.bands[index].key_position is not None or plan.rope.attention_factor != 1.0
    return Seen(index, columns, tuple(groups), is_turned)


def rotated_keys(
    key: Tensor, band: tuple[Seen, Turn], plan: Plan, pads: tuple[int, ...], kept: KeptKeys | None
) -> Tensor:
    """Keys of the columns that are seen, rotated as the band does; of kept ones, only the new."""
    seen, turn = band

    def rotate(first: int, stop: int) -> Tensor:
        if (first, stop) == (seen.columns[1] - 1, seen.columns[1]):
            return turn(key[:, :, first:stop])
        positions, skew = plan.bands[seen.band].key_position, plan.rope.layout.skews[1]
        return rotated(key, (first, stop, 0), positions, plan, skew, pads)

    if not seen.is_turned:
        return key[:, :, slice(*seen.columns)]
    return rotate(*seen.columns) if kept is None else kept.get(seen.band, *seen.columns, rotate)


def band_part(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Seen,
    scores: tuple[float, float | None],
) -> Part:
    """Attention over a band's columns: a call for neighbouring rows that see the same ones.

    Args:
        query: rotated queries [batch, heads, 1, head_dim].
        key: rotated keys from the first column on that a row sees.
        value: values of all columns.
        seen: the columns of each row.
        scores: softmax scale and bound of the scores.
    """
    (scaling, softcap), first = scores, seen.columns[0]
    parts = []
    for row, end, start, stop in seen.groups:
        q, v = query[row:end], value[row:end, :, start:stop]
        if stop:
            k = key[row:end, :, start - first : stop - first]
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


def merged(parts: list[Part], has_gaps: bool) -> Part:
    """The softmax over disjoint sets of keys: each counts by exp(lse - total)."""
    (out, lse), *others = parts
    for part, own in others:  # mostly one: fewer calls than a softmax over both stacked
        share = torch.sigmoid(own - lse)[..., None]
        if has_gaps:  # -inf less -inf is no number
            share = share.nan_to_num(0.0)
        out = torch.lerp(out.to(lse.dtype), part.to(lse.dtype), share)
        lse = torch.logaddexp(lse, own)
    return out, lse
