"""Where attention goes: the exact share of groups of keys, recorded while a model reads.

    share(g, i) = exp(lse over the visible keys of group g - lse over all visible keys of query i)

A group cuts the regions of the plan, so its log-sum-exp comes from the same fused calls as the
attention itself and no score matrix is held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from patches.attention import partial_attention
from patches.base import Plan, Region
from patches.hook import AttentionFunction
from patches.spec import PatchError

__all__ = ["Share", "Shares", "group_shares"]

TOLERANCE = {torch.float16: 0.03, torch.bfloat16: 0.03}  # of the largest output; 1e-3 otherwise


@dataclass(frozen=True)
class Share:
    """Mean attention probability of one layer by group of keys; sinks + far + window = 1.

    Attributes:
        layer: index of the layer.
        first: the first token alone; a part of `sinks`.
        sinks: the first tokens.
        far: what is neither among the first tokens nor in the window.
        window: the newest keys that are not among the first tokens.
    """

    layer: int
    first: float
    sinks: float
    far: float
    window: float


def group_shares(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, groups: Sequence[Region], scaling: float
) -> tuple[Tensor, Tensor]:
    """Share of each group of keys in the attention of the newest queries.

    Args:
        query: queries of the newest positions [batch, heads, q_len, head_dim].
        key: all keys [batch, kv_heads, kv_len, head_dim].
        value: values, of the keys' shape.
        plan: what turns these queries and keys into attention.
        groups: disjoint regions of pairs that cover every visible one.
        scaling: softmax scale.

    Returns:
        Shares [groups, batch, heads, q_len], and the attention output put together from the groups
        [batch, heads, q_len, head_dim].
    """
    parts = []
    for group in groups:
        cut = [
            replace(band, region=band.region.within(group.distance, group.keys))
            for band in plan.bands
        ]
        own = replace(plan, bands=tuple(band for band in cut if not band.region.is_empty))
        start = key.shape[2] - query.shape[2]
        parts.append(partial_attention(query, key, value, own, scaling=scaling, q_start=start))
    outs, lses = (torch.stack(part) for part in zip(*parts, strict=True))
    shares = (lses - lses.logsumexp(0)).exp()  # [groups, batch, heads, q_len]
    return shares, (shares[..., None] * outs).sum(0)


class Shares:
    """Mean shares over heads and over the queries from a position on, collected by layer."""

    def __init__(self, sinks: int, window: int, first_query: int) -> None:
        """Collect nothing yet.

        Args:
            sinks: number of first tokens in that group, at least 1.
            window: newest keys, counting the current token.
            first_query: position of the first query that counts.
        """
        self.first_query = first_query
        self.groups = (
            Region(keys=(0, 1)),
            Region(keys=(1, sinks)),
            Region(distance=(window, None), keys=(sinks, None)),
            Region(distance=(0, window), keys=(sinks, None)),
        )
        self.sums: dict[int, Tensor] = {}  # [groups]
        self.counts: dict[int, int] = {}

    def watch(self, function: AttentionFunction, plans: Mapping[int, Plan]) -> AttentionFunction:
        """The attention function with its results untouched, its shares noted on the way.

        It is for one row without padding, read in one forward or in pieces.

        Raises:
            PatchError: when called, if a layer's plan does not give what the function gives.
        """

        def watched(
            module: Any,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Tensor | None,
            scaling: float | None = None,
            **kwargs: Any,
        ) -> tuple[Tensor, None]:
            result = function(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
            rows = min(query.shape[2], key.shape[2] - self.first_query)
            if rows > 0:
                scale = query.shape[-1] ** -0.5 if scaling is None else scaling
                newest, layer = query[:, :, -rows:], module.layer_idx
                shares, out = group_shares(newest, key, value, plans[layer], self.groups, scale)
                check_output(module, out.transpose(1, 2), result[0][:, -rows:])
                self.note(layer, shares)
            return result

        return watched

    def note(self, layer: int, shares: Tensor) -> None:
        """Add the shares of some queries [groups, batch, heads, q_len]."""
        total = shares.double().sum((1, 2, 3)).cpu()
        self.sums[layer] = self.sums.get(layer, torch.zeros_like(total)) + total
        self.counts[layer] = self.counts.get(layer, 0) + shares[0].numel()

    def means(self) -> list[Share]:
        """Mean shares of each layer that has attended, in order."""
        found = []
        for layer, total in sorted(self.sums.items()):
            first, others, far, window = (total / self.counts[layer]).tolist()
            found.append(Share(layer, first, first + others, far, window))
        return found


def check_output(module: Any, ours: Tensor, theirs: Tensor) -> None:
    """Refuse shares of an attention that is not the one that ran.

    Raises:
        PatchError: the outputs differ.
    """
    limit = TOLERANCE.get(theirs.dtype, 1e-3) * float(theirs.abs().max())
    difference = float((ours - theirs.to(ours)).abs().max())
    if difference > limit:  # outputs that are no numbers show in the logits
        raise PatchError(
            f"{module.config.model_type}: attention put together from its shares differs from that "
            f"of layer {module.layer_idx} by {difference:.1e} (at most {limit:.0e}); model not "
            "supported"
        )
