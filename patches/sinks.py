"""Attention sinks: recent keys and the first ones, in positions that training has shown."""

from torch import Tensor

from patches.base import Band, Extent, Patch, Region
from patches.method import Method, Parameter


def lm_infinite(window: int | None = None, sinks: int = 10) -> Patch:
    """Distance < window exact; the first keys all at distance window; nothing else visible."""

    def bands(extent: Extent) -> tuple[Band, ...]:
        w = window or extent.original_max_position_embeddings
        far = Region(distance=(w, None), keys=(0, sinks))
        return (
            Band(Region(distance=(0, w))),
            Band(far, lambda i: i.new_full(i.shape, w), None),
        )

    return Patch(bands=bands)


def streaming(window: int | None = None, sinks: int = 4) -> Patch:
    """Distance < window exact; sinks at cache slots: Pq = min(i, sinks + window - 1)."""

    def bands(extent: Extent) -> tuple[Band, ...]:
        w = window or max(1, extent.original_max_position_embeddings - sinks)

        def query_position(i: Tensor) -> Tensor:
            return i.clamp(max=sinks + w - 1)

        far = Region(distance=(w, None), keys=(0, sinks))
        return Band(Region(distance=(0, w))), Band(far, query_position)

    return Patch(bands=bands)


METHODS = (
    Method(
        name="lm-infinite",
        seam="bands",
        build=lm_infinite,
        parameters=(
            Parameter("window", int, "trained length", low=1),
            Parameter("sinks", int, "10", low=1),
        ),
        formula="rel = i-j if i-j < window; window if j < sinks; other keys hidden",
        claims="bounded loss at any length; the middle is not read",
        source="Han et al. 2023 (2308.16137), section 3",
        differs="the optional top-k middle tokens are left out",
        exceptions={"range": "sinks sit at distance L_train, one above the largest trained"},
    ),
    Method(
        name="streaming",
        seam="bands",
        build=streaming,
        parameters=(
            Parameter("window", int, "trained length - sinks", low=1),
            Parameter("sinks", int, "4", low=1),
        ),
        formula="rel = i-j if i-j < window; min(i, sinks+window-1) - j if j < sinks; others hidden",
        claims="bounded loss at any length; the context is not extended",
        source="Xiao et al. 2023 (2309.17453), section 3.2; mit-han-lab/streaming-llm",
    ),
)
