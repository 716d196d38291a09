"""Hierarchical decomposition of learned absolute positions."""

import torch
from torch import Tensor

from patches.base import Patch
from patches.method import Method, Parameter
from patches.spec import PatchError

ALPHA = 0.4


def hierarchical(alpha: float = ALPHA) -> Patch:
    """q_{(i-1)n+j} = alpha u_i + (1 - alpha) u_j, with u_i = (p_i - alpha p_1) / (1 - alpha)."""
    if alpha >= 1 or alpha == 0.5:
        raise PatchError(
            f"hierarchical(alpha={alpha:g}): expected a number between 0 and 1 but not 0.5, where "
            "the positions (i, j) and (j, i) would be one"
        )

    def table(p: Tensor, length: int) -> Tensor:
        n = len(p)
        if length > n * n:
            raise PatchError(
                f"hierarchical: makes {n * n} positions of {n}, fewer than the {length} of the "
                "context; lower --len"
            )
        u = (p - alpha * p[0]) / (1 - alpha)
        beyond = torch.arange(n, length, device=p.device)
        q = alpha * u[beyond // n] + (1 - alpha) * u[beyond % n]
        return torch.cat((p[:length], q))

    return Patch(position_table=table)


METHODS = (
    Method(
        name="hierarchical",
        seam="position table",
        build=hierarchical,
        parameters=(Parameter("alpha", float, "0.4", low=0, above=True),),
        formula="u_i = (p_i - alpha p_1) / (1 - alpha);   q_{(i-1)n+j} = alpha u_i + "
        "(1 - alpha) u_j,   for i, j = 1 ... n = trained length",
        claims="n^2 positions of which the first n stay; at 3n a masked model keeps a part of its "
        "accuracy untrained, and some training brings the rest back",
        source="Su Jianlin, kexue.fm/archives/7947; bojone/bert4keras:bert4keras/layers.py "
        "(PositionEmbedding, hierarchical)",
    ),
)
