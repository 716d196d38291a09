"""Dual chunk attention: positions within, into the previous and into earlier chunks."""

import math

import torch
from torch import Tensor

from patches.base import Band, Extent, Patch, Region
from patches.method import Method, Parameter


def dca(
    chunk_size: int | None = None, local_window: int | None = None, variant: str = "paper"
) -> Patch:
    """Three position maps by chunk lag; keys sit at j mod S in all of them.

    With S the chunk size, w the local window and c = S + w: own chunk Pq = i mod S; previous chunk
    Pq = min(i mod S + S, c - 1); earlier chunks Pq = c - 1.
    """

    def bands(extent: Extent) -> tuple[Band, ...]:
        size, local = sizes(extent, chunk_size, local_window, variant)
        last = size + local - (1 if variant == "paper" else 0)

        def in_chunk(i: Tensor) -> Tensor:
            return i % size

        def previous(i: Tensor) -> Tensor:
            return (i % size + size).clamp(max=last)

        def earlier(i: Tensor) -> Tensor:
            return torch.full_like(i, last)

        return tuple(
            Band(Region(chunk_size=size, lag=lag), query_position, in_chunk)
            for lag, query_position in (
                ((0, 1), in_chunk),
                ((1, 2), previous),
                ((2, None), earlier),
            )
        )

    def scale(positions: Tensor, extent: Extent) -> Tensor:
        value = (0.05 * math.log(extent.factor) + 1) ** 2
        return torch.full_like(positions, value, dtype=torch.float64)

    return Patch(bands=bands, query_scales=(scale,) if variant == "code" else ())


def sizes(extent: Extent, size: int | None, local: int | None, variant: str) -> tuple[int, int]:
    """Chunk size and local window: 3/4 and 1/4 of the trained length, the code's 5/8 and 1/8."""
    trained = extent.original_max_position_embeddings
    whole, part = (trained, 4) if variant == "paper" else (trained * 3 // 4, 8)
    local = local or max(1, (trained // part) if size is None else max(whole - size, 1))
    return size or max(1, whole - local), local


METHODS = (
    Method(
        name="dca",
        seam="bands",
        build=dca,
        parameters=(
            Parameter("chunk_size", int, "3/4 trained length", low=1),
            Parameter("local_window", int, "trained length - chunk_size", low=1),
            Parameter("variant", ("paper", "code"), "paper"),
        ),
        formula="Pk = j mod S; Pq = i mod S (own chunk), min(i mod S + S, c-1) (previous chunk), "
        "c-1 (earlier); c = S + local_window",
        claims="keeps perplexity flat to several times the trained length",
        source="An et al. 2024 (2402.17463), section 3; HKUNLP/ChunkLlama",
        differs="variant=code is the repository's: chunks of 5/8 and local window 1/8 of the "
        "trained length, positions capped at their sum (3/4), logits times (0.05 ln s + 1)^2 (s "
        "fixed for the cell)",
    ),
)
