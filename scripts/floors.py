"""The least that a Llama has to do, and how fast a machine can: what times are held against.

    operations of a forward = layers * (2 * tokens * weights of one + 4 * width * visible pairs)
    bytes of a decoding step = weights + keys and values that the newest query sees

Norms, rotations, softmax and activations are left out, so that no time can reach the floor.
"""

import torch
from transformers import LlamaConfig

from harness.forecast.rates import fastest
from patches import parse
from patches.base import Extent, Rope

__all__ = ["forward_flops", "kept_bytes", "product_rate", "read_rate", "step_bytes", "visible"]

SIDE, READ = {"cpu": 2048, "cuda": 8192}, 1 << 28  # of a square product, and numbers that are read
BUDGET = 1.0  # seconds of runs


def visible(config: LlamaConfig, spec: str, length: int, trained: int) -> list[int]:
    """Number of keys that each query sees under a patch [length]."""
    dim = config.hidden_size // config.num_attention_heads
    plan = parse(spec).resolve(Rope(torch.ones(dim // 2), 1.0, 1e4), Extent(length, trained, dim))
    bounds = [[band.region.interval(i) for band in plan.bands] for i in range(length)]
    return [sum(max(0, stop - start) for start, stop in each) for each in bounds]


def layer_weights(config: LlamaConfig) -> int:
    """Weights of one layer's products."""
    width = config.hidden_size
    kv_width = width // config.num_attention_heads * config.num_key_value_heads
    return width * (2 * width + 2 * kv_width + 3 * config.intermediate_size)


def forward_flops(config: LlamaConfig, spec: str, length: int, trained: int) -> float:
    """Operations of reading `length` tokens, logits of the last one alone."""
    width, layers = config.hidden_size, config.num_hidden_layers
    pairs = sum(visible(config, spec, length, trained))
    last = 2.0 * width * config.vocab_size
    return 2.0 * layers * length * layer_weights(config) + last + 4.0 * layers * width * pairs


def kept_bytes(config: LlamaConfig, tokens: int, size: int) -> int:
    """Bytes of the keys and values of some tokens, with numbers of `size` bytes."""
    kv_width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    return 2 * size * config.num_hidden_layers * tokens * kv_width


def step_bytes(config: LlamaConfig, spec: str, length: int, trained: int, size: int) -> int:
    """Bytes that a step behind `length` tokens reads, with numbers of `size` bytes."""
    weights = config.num_hidden_layers * layer_weights(config)
    weights += config.hidden_size * config.vocab_size
    keys = visible(config, spec, length + 1, trained)[-1]
    return size * weights + kept_bytes(config, keys, size)


def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a square product, the fastest of some."""
    side = SIDE[device.type]
    a = torch.ones(side, side, dtype=dtype, device=device)
    return 2 * side**3 / fastest(lambda: a @ a, device, BUDGET)


def read_rate(device: torch.device) -> float:
    """Bytes a second of a sum over 1 GiB, the fastest of some."""
    block = torch.ones(READ, device=device)
    return 4 * READ / fastest(block.sum, device, BUDGET)
