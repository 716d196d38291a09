"""What may be seen at true positions: windows, by layer, the model's own, and the first keys."""

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
    Method(
        name="native-window",
        seam="visible",
        build=lambda: Patch(native_window=True),
        formula="layers with a window of their own stay as shipped; the patch acts on the others",
        claims="local layers never see a distance that training has not shown",
        source="HF sliding_window, attention_chunk_size, layer_types; without it they are lifted",
        exceptions={"range": "the other layers see every distance unless a patch says otherwise"},
    ),
)
