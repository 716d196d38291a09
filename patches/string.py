"""STRING: the far positions are shifted down, away from the badly trained largest ones."""

from torch import Tensor

from patches.base import Band, Extent, Patch, PatchError, Region
from patches.method import Method, Parameter


def string(shift: int | None = None, window: int | None = None) -> Patch:
    """Shift far positions: i - j below the shift, i - j - shift + window from it on.

    Raises:
        PatchError: the window is larger than the shift, at the latest when they are resolved.
    """
    check(shift, window)

    def bands(extent: Extent) -> tuple[Band, ...]:
        s = shift or max(1, extent.original_max_position_embeddings // 3)
        w = window or max(1, min(128, s // 4))
        check(s, w)

        def query_position(i: Tensor) -> Tensor:
            return i - s + w

        far = Band(Region(distance=(s, None)), query_position)
        return Band(Region(distance=(0, s))), far

    return Patch(bands=bands)


def check(shift: int | None, window: int | None) -> None:
    """Refuse a window above the shift, which would make the position jump up at the border."""
    if shift and window and window > shift:
        raise PatchError(f"string: window={window} is above shift={shift}; expected at most shift")


METHODS = (
    Method(
        name="string",
        seam="bands",
        build=string,
        parameters=(
            Parameter("shift", int, "trained length / 3", low=1),
            Parameter("window", int, "128, at most shift / 4", low=1),
        ),
        formula="rel = i-j if i-j < shift else i-j-shift+window",
        claims="better use of the trained length; extends it only by shift - window",
        source="An et al. 2024 (2410.18745), section 4; HKUNLP/STRING",
        differs="the repository counts distance = shift twice in prefill and multiplies the logits "
        "by 1.143 at all lengths: string+yarn-scale(factor=2)",
        exceptions={
            "identity": "acts inside the trained length",
            "range": "positions grow with the context past trained length + shift - window",
        },
    ),
)
