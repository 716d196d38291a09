"""Rectified position embeddings: exact up to a window, constant or slow beyond it."""

from torch import Tensor

from patches.base import Band, Extent, Patch, Region
from patches.method import Method, Parameter

WINDOW = Parameter("window", int, "trained length / 4", low=1)


def near_and_far(window: int, far: Band) -> tuple[Band, Band]:
    """Exact positions at distance < window, `far`'s maps beyond."""
    return Band(Region(distance=(0, window))), far


def rerope(window: int | None = None) -> Patch:
    """Clip distances: rel = min(i - j, window)."""

    def bands(extent: Extent) -> tuple[Band, ...]:
        w = window or max(1, extent.original_max_position_embeddings // 4)
        region = Region(distance=(w, None))
        return near_and_far(w, Band(region, lambda i: i.new_full(i.shape, w), None))

    return Patch(bands=bands)


def leaky_rerope(window: int | None = None, k: float | None = None) -> Patch:
    """Slow far distances: rel = i - j below the window, window + (i - j - window) / k beyond."""

    def bands(extent: Extent) -> tuple[Band, ...]:
        trained = extent.original_max_position_embeddings
        w = window or max(1, trained // 4)
        slow = default_k(extent, w) if k is None else k
        if slow == 1.0:
            return (Band(),)

        def query_position(i: Tensor) -> Tensor:
            return (i - w) / slow + w

        far = Band(Region(distance=(w, None)), query_position, lambda j: j / slow)
        return near_and_far(w, far)

    return Patch(bands=bands)


def default_k(extent: Extent, window: int) -> float:
    """The k that brings the largest position to half of the trained length, 1 within it."""
    trained = extent.original_max_position_embeddings
    if extent.context_length <= trained:
        return 1.0
    room = max(trained / 2 - window, 1.0)
    return max(1.0, (extent.context_length - 1 - window) / room)


METHODS = (
    Method(
        name="rerope",
        seam="bands",
        build=rerope,
        parameters=(WINDOW,),
        formula="rel = min(i-j, window)",
        claims="loss falls past the trained length without training; window L_train/4 to L_train/2",
        source="Su Jianlin, kexue.fm/archives/9708; bojone/rerope",
        differs="log n, which the repository multiplies in, is a patch of its own: rerope+logn",
        exceptions={"identity": "the window is shorter than the trained length"},
    ),
    Method(
        name="leaky-rerope",
        seam="bands",
        build=leaky_rerope,
        parameters=(
            WINDOW,
            Parameter("k", float, "brings the largest position to trained length / 2", low=1),
        ),
        formula="rel = i-j if i-j < window else window + (i-j-window)/k",
        claims="between rerope (k = infinity) and plain (k = 1); not better than rerope in 9708",
        source="Su Jianlin, kexue.fm/archives/9708; bojone/rerope",
    ),
)
