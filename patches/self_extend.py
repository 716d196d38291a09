"""Self-Extend: exact positions near, floored group positions far."""

import math

from torch import Tensor

from patches.base import Band, Extent, Patch, PatchError, Region
from patches.method import Method, Parameter


def self_extend(neighbor_window: int | None = None, group_size: int | None = None) -> Patch:
    """Far pairs: Pq = floor(i/G) + W - W/G, Pk = floor(j/G).

    Raises:
        PatchError: the group size does not divide the neighbour window.
    """
    if neighbor_window and group_size and neighbor_window % group_size:
        raise PatchError(
            f"self-extend: neighbor_window={neighbor_window} is no multiple of "
            f"group_size={group_size}, which leaves a step at the border; choose one that is"
        )

    def bands(extent: Extent) -> tuple[Band, ...]:
        window, group = resolve(extent, neighbor_window, group_size)
        if group == 1:
            return (Band(),)

        def query_position(i: Tensor) -> Tensor:
            return (i / group).floor() + (window - window // group)

        far = Band(Region(distance=(window, None)), query_position, lambda j: (j / group).floor())
        return Band(Region(distance=(0, window))), far

    return Patch(bands=bands)


def resolve(extent: Extent, window: int | None, group: int | None) -> tuple[int, int]:
    """Neighbour window and group size for a cell, the group dividing the window.

    The smallest G with W + (L - W)/G <= 2/3 L_train, W about L_train/4; G = 1 within L_train.
    """
    trained, length = extent.original_max_position_embeddings, extent.context_length
    w = window or max(1, trained // 4)
    if group is None:
        room = max(trained * 2 / 3 - w, 1.0)
        group = max(1, math.ceil((length - w) / room)) if length > trained else 1
        while window and window % group:
            group += 1
    return (window or max(group, w - w % group)), group


METHODS = (
    Method(
        name="self-extend",
        seam="bands",
        build=self_extend,
        parameters=(
            Parameter(
                "neighbor_window", int, "trained length / 4, a multiple of group_size", low=1
            ),
            Parameter("group_size", int, "smallest with W + (L-W)/G <= 2/3 trained length", low=1),
        ),
        formula="rel = i-j if i-j < W else floor(i/G) - floor(j/G) + W - W/G",
        claims="reads (L_train - W) G + W tokens without training",
        source="Jin et al. 2024 (2401.01325), section 3; datamllab/LongLM",
        differs="G must divide W: the repository mixes W/G and W//G between prefill and decode",
    ),
)
