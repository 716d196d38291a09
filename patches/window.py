"""What may be seen at true positions: windows, by layer, and the first keys in spite of them."""

from patches.base import Extent, Patch, Window
from patches.method import Method, Parameter


def window(size: int | None = None, layers: tuple[int, int | None] = (0, None)) -> Patch:
    """Key j is visible to query i iff i - j < size (the current token counts)."""

    def visible(extent: Extent) -> Window:
        return Window(size or extent.original_max_position_embeddings, layers)

    return Patch(visible=(visible,))


METHODS = (
    Method(
        name="window",
        seam="visible",
        build=window,
        parameters=(
            Parameter("size", int, "trained length", low=1),
            Parameter("layers", "layers", "all layers"),
        ),
        formula="visible iff i-j < size, on layers first ... stop-1",
        claims="Su's first super baseline, withdrawn in 9948: loss breaks once the first keys go",
        source="Su Jianlin, kexue.fm/archives/9431 and 9948; per layer: QwenLM/Qwen",
    ),
    Method(
        name="sinks",
        seam="visible",
        build=lambda size=4: Patch(sinks=size),
        parameters=(Parameter("size", int, "4", low=1),),
        formula="key j is visible iff a window shows it or j < size, at its true position",
        claims="window+sinks is the lambda mask: the ablation between window and streaming",
        source="Su Jianlin, kexue.fm/archives/9948 (lambda mask)",
        exceptions={"range": "sinks keep their true distance beyond the trained length"},
    ),
)
