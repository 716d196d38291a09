"""How fast a device does what `tracker` counts, measured within a fraction of a second."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from harness.checkpoint import quiet
from harness.forecast.tracker import Step, Tracker, Work
from harness.twin import small_model

__all__ = ["Rates", "fastest", "measure_rates"]

BUDGET = 0.07  # seconds of each of the four measurements, beyond its first run
TOKENS = 512
FLOPS = 1e10  # of one product at most, so that it ends soon on a CPU
COPIED = 64 << 20


@dataclass(frozen=True)
class Rates:
    """What a device does.

    Attributes:
        matmul: flops a second of a product of the model's own widths.
        attention: flops a second of fused causal attention with its heads.
        moved: bytes a second, read and written, of an operation that computes next to nothing.
        call: seconds that an operation takes at least, the model's Python around it included.
    """

    matmul: float
    attention: float
    moved: float
    call: float

    def seconds(self, work: Work) -> float:
        """An operation takes as long as its flops or its bytes do, whichever is longer."""
        return sum(count * self._one(step) for step, count in work.items())

    def _one(self, step: Step) -> float:
        rate = {"matmul": self.matmul, "attention": self.attention}.get(step.kind, math.inf)
        return self.call + max(step.flops / rate, step.moved / self.moved)

    def __str__(self) -> str:
        """The rates in one line."""
        return (
            f"{self.matmul / 1e9:.0f} GFLOP/s products, {self.attention / 1e9:.0f} attention, "
            f"{self.moved / 1e9:.1f} GB/s moved, {self.call * 1e6:.0f} us an operation"
        )


@torch.inference_mode()
def measure_rates(config: Any, dtype: torch.dtype, device: torch.device) -> Rates:
    """Time a product, attention and a copy of a model's shapes, and a small model of its class.

    Args:
        config: of a causal LM.
        dtype: of its weights.
        device: where it will run.

    Raises:
        HarnessError: no small model can be made of the config.
    """
    config = config.get_text_config()
    heads, width = int(getattr(config, "num_attention_heads", None) or 1), int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    head_dim = int(vars(config).get("head_dim") or width // heads)
    rows = max(16, min(TOKENS, int(FLOPS / (2 * width * inner))))
    a, b = (
        torch.ones(shape, dtype=dtype, device=device) for shape in ((rows, width), (width, inner))
    )
    query = torch.ones(1, heads, 2 * TOKENS, head_dim, dtype=dtype, device=device)
    block = torch.ones(COPIED, dtype=torch.uint8, device=device)
    product = fastest(lambda: a @ b, device)
    attention = fastest(
        lambda: functional.scaled_dot_product_attention(query, query, query, is_causal=True), device
    )
    copy = fastest(block.clone, device)
    return Rates(
        matmul=2 * rows * width * inner / product,
        attention=2 * heads * (2 * TOKENS) ** 2 * head_dim / attention,
        moved=2 * COPIED / copy,
        call=_call(config, dtype, device),
    )


def _call(config: Any, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds an operation of a small model that reads one token."""
    with quiet():
        model = small_model(config).to(device, dtype)
    token = torch.ones(1, 1, dtype=torch.long, device=device)
    with (tracker := Tracker()):
        model(token, use_cache=False)
    seconds = fastest(lambda: model(token, use_cache=False), device)
    return seconds / sum(tracker.work.values())


def fastest(run: Callable[[], object], device: torch.device, budget: float = BUDGET) -> float:
    """Seconds of the fastest run, of as many as `budget` seconds allow behind a first one."""
    run()
    best, spent = math.inf, 0.0
    while spent < budget:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, took := time.perf_counter() - start)
        spent += took
    return best
