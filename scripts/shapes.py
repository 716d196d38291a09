"""The Llamas with random weights that benchmarks run."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

__all__ = ["SHAPES", "TRAINED_LENGTH", "build", "shape"]

TRAINED_LENGTH = 8192
NAMES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
SHAPES: dict[str, tuple[int, ...]] = {
    "135m": (49152, 576, 1536, 30, 9, 3, True),  # SmolLM2-135M
    "8b": (128256, 4096, 14336, 32, 32, 8, False),  # Llama 3 (2407.21783), table 3
    "narrow": (256, 64, 96, 32, 8, 2, True),  # nothing to compute: a forward is its calls
}


def shape(name: str, layers: int | None = None) -> LlamaConfig:
    """The config of a shape, with other layers if given."""
    values = dict(zip(NAMES, SHAPES[name], strict=True))
    values |= {} if layers is None else {"num_hidden_layers": layers}
    return LlamaConfig(**values, max_position_embeddings=TRAINED_LENGTH)


def build(name: str, layers: int | None, dtype: torch.dtype, device: str) -> Any:
    """A Llama of that shape with random weights, made where it runs."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            shape(name, layers), attn_implementation="sdpa", dtype=dtype
        )
    return model.eval()
