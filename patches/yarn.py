"""Ramps over the pairs by their number of turns: NTK-by-parts, YaRN and Llama 3.

With r[d] the turns of pair d within the trained length: pairs that turn often are kept, pairs
that never complete a turn are interpolated by the factor, between them runs a ramp g.
"""

import math

import torch
from torch import Tensor

from patches.base import Extent, Patch, PatchError, Rope, RopeParameters
from patches.method import Method, Parameter
from patches.pi import FACTOR


def ramped(kept: Tensor, factor: float) -> Tensor:
    """Multiplier kept + (1 - kept) / factor."""
    return kept + (1 - kept) / factor


def check_ramp(alpha: float, beta: float) -> None:
    """Refuse bounds that make no ramp.

    Raises:
        PatchError: not 0 < alpha < beta.
    """
    if not 0 < alpha < beta:
        raise PatchError(f"alpha={alpha:g}, beta={beta:g}: expected 0 < alpha < beta, in turns")


def turns_ramp(rope: Rope, length: int, alpha: float, beta: float) -> Tensor:
    """g[d] = clip((r[d] - alpha) / (beta - alpha), 0, 1), linear in turns."""
    return ((rope.turns(length) - alpha) / (beta - alpha)).clamp(0, 1)


def index_ramp(rope: Rope, length: int, alpha: float, beta: float, truncate: bool) -> Tensor:
    """Ramp linear in the pair index, from 1 at the pair of beta turns to 0 at that of alpha."""
    dim = rope.rotary_dim
    low, high = (
        dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))
        for turns in (beta, alpha)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    index = torch.arange(dim // 2, dtype=rope.inv_freq.dtype, device=rope.inv_freq.device)
    return 1 - ((index - low) / (high - low or 1e-3)).clamp(0, 1)


def ntk_by_parts(factor: float | None = None, alpha: float = 1.0, beta: float = 32.0) -> Patch:
    """inv_freq' = (1 - g) inv_freq / s + g inv_freq, g the ramp in turns."""
    check_ramp(alpha, beta)

    def rope(rope: Rope, extent: Extent) -> Rope:
        kept = turns_ramp(rope, extent.original_max_position_embeddings, alpha, beta)
        return rope.scaled(ramped(kept, factor or extent.factor))

    def parameters(rope: Rope, extent: Extent) -> RopeParameters:
        return {
            "rope_type": "llama3",
            "factor": factor or extent.factor,
            "low_freq_factor": alpha,
            "high_freq_factor": beta,
            "original_max_position_embeddings": extent.original_max_position_embeddings,
        }

    return Patch(rope=rope, rope_parameters=parameters)


def yarn(
    factor: float | None = None,
    ramp: str = "paper",
    alpha: float = 1.0,
    beta: float = 32.0,
    truncate: str = "yes",
    attention_factor: float | None = None,
) -> Patch:
    """NTK-by-parts with cos and sin times 0.1 ln s + 1."""
    check_ramp(alpha, beta)

    def rope(rope: Rope, extent: Extent) -> Rope:
        s, length = factor or extent.factor, extent.original_max_position_embeddings
        if ramp == "paper":
            kept = turns_ramp(rope, length, alpha, beta)
        else:
            kept = index_ramp(rope, length, alpha, beta, truncate == "yes")
        scale = 0.1 * math.log(s) + 1 if attention_factor is None else attention_factor
        return rope.scaled(ramped(kept, s), scale)

    def parameters(rope: Rope, extent: Extent) -> RopeParameters:
        given: RopeParameters = {
            "rope_type": "yarn",
            "factor": factor or extent.factor,
            "beta_fast": beta,
            "beta_slow": alpha,
            "truncate": truncate == "yes",
            "original_max_position_embeddings": extent.original_max_position_embeddings,
        }
        return given if attention_factor is None else given | {"attention_factor": attention_factor}

    return Patch(rope=rope, rope_parameters=parameters if ramp == "code" else None)


ALPHA = Parameter("alpha", float, "1", low=0, above=True)
BETA = Parameter("beta", float, "32", low=0, above=True)
PENG = "Peng et al. 2023, YaRN (2309.00071)"

METHODS = (
    Method(
        name="ntk-by-parts",
        seam="frequencies",
        build=ntk_by_parts,
        parameters=(FACTOR, ALPHA, BETA),
        formula="inv_freq' = (1-g) inv_freq/s + g inv_freq, g = clip((r-alpha)/(beta-alpha), 0, 1)",
        claims="keeps the pairs that turn often, interpolates those that never complete a turn",
        source=f"{PENG}, section 3.2; bloc97",
    ),
    Method(
        name="yarn",
        seam="frequencies",
        build=yarn,
        parameters=(
            FACTOR,
            Parameter("ramp", ("paper", "code"), "paper"),
            ALPHA,
            BETA,
            Parameter("truncate", ("yes", "no"), "yes"),
            Parameter("attention_factor", float, "0.1 ln s + 1", low=0, above=True),
        ),
        formula="ntk-by-parts, and cos, sin times 0.1 ln s + 1 (logits get its square)",
        claims="best of the frequency methods after tuning; untrained results disagree by paper",
        source=f"{PENG}, section 3.4; jquesnelle/yarn; HF `yarn`",
        differs="ramp=paper is linear in turns; ramp=code (the yarn repository, HF, vLLM) is "
        "linear in the pair index between the pairs of 32 turns and of 1 turn, rounded outwards "
        "unless truncate=no; frequencies differ by up to 1.7x. factor given: static YaRN; omitted: "
        "dynamic YaRN, resolved once for a cell",
    ),
    Method(
        name="llama3",
        seam="frequencies",
        build=lambda factor=None, alpha=1.0, beta=4.0: ntk_by_parts(factor, alpha, beta),
        parameters=(
            FACTOR,
            Parameter("alpha", float, "1", low=0, above=True),
            Parameter("beta", float, "4", low=0, above=True),
        ),
        formula="inv_freq' = (1-g) inv_freq/s + g inv_freq, g = clip((r-1)/(4-1), 0, 1)",
        claims="the ramp that Llama 3.1 was trained on, applied to any model",
        source="Llama 3.1 model card and HF `llama3` (low_freq_factor 1, high_freq_factor 4)",
    ),
)
