"""Attention Buckets: the prompt is read once a RoPE base, the surer reading counts more.

Bases move the waves of attention over distance, so that what one reading overlooks another sees.
"""

from functools import partial

from torch import Tensor

from patches.base import SINGLE, Extent, Patch, Rope
from patches.decoding import Decoding
from patches.method import Method, Parameter
from patches.ntk import rebased

PUBLISHED = (1e4, 1.75e4, 1.8e4, 1.9e4, 2e4, 2.5e4)  # of Llama-2-7B, whose own base is the first


def weighted(log_probs: Tensor, last: int | None) -> tuple[Tensor, int | None]:
    """Logarithm of sum_j w_j p_j, w_j = c_j / sum_j c_j, c_j = max p_j."""
    confidence = log_probs.amax(dim=-1, keepdim=True)
    return (confidence.log_softmax(dim=0) + log_probs).logsumexp(dim=0), None


def weighted_logits(logits: Tensor, last: int | None) -> tuple[Tensor, int | None]:
    """sum_j w_j z_j, w_j = exp(c_j) / sum_j exp(c_j), c_j = max z_j of the logits z_j."""
    weights = logits.amax(dim=-1).softmax(dim=0)
    return weights @ logits, None


def with_base(base: float | None, multiple: float, rope: Rope, extent: Extent) -> Rope:
    """inv_freq'[d] = inv_freq[d] * (theta'/theta)^(-2d/D), theta' the base or a multiple."""
    ratio = base / rope.theta if base else multiple
    return rope.scaled(rebased(rope, ratio).to(rope.inv_freq))


def attention_buckets(bases: tuple[float, ...] | None = None, mean: str = "probabilities") -> Patch:
    """A reading a base; multiples of the model's base where none are given."""
    if bases is None:
        ropes = tuple(partial(with_base, None, base / PUBLISHED[0]) for base in PUBLISHED)
    else:
        ropes = tuple(partial(with_base, base, 1.0) for base in bases)
    clash = ("rope", f"both {SINGLE['rope']}; keep one of them")
    is_code = mean == "logits"
    combine = weighted_logits if is_code else weighted
    return Patch(decoding=Decoding(combine, ropes=ropes, excludes=(clash,), takes_logits=is_code))


METHODS = (
    Method(
        name="attention-buckets",
        seam="decoding",
        build=attention_buckets,
        parameters=(
            Parameter(
                "bases",
                "numbers",
                "1, 1.75, 1.8, 1.9, 2 and 2.5 times the model's",
                low=1,
                above=True,
            ),
            Parameter("mean", ("probabilities", "logits"), "probabilities"),
        ),
        formula="p = sum_j c_j p_j / sum_j c_j, c_j = max p_j, p_j the prediction with base j; "
        "mean=logits: z = sum_j exp(c_j) z_j / sum_j exp(c_j), c_j = max z_j, z_j its logits",
        claims="tool use and retrieval from places that one base overlooks; costs a pass a base",
        source="Chen et al. 2023 (2312.04455), bases searched for Llama-2-7B: 10000 to 25000; "
        "AlibabaResearch/DAMO-ConvAI:attention-buckets/modeling_llama.py@ef1f2e1d",
        differs="the paper's words are followed: distributions averaged by their confidence, here "
        "the largest probability; the authors' code averages logits instead, by the softmax of the "
        "largest logits, which is mean=logits; a base changes the shipped frequencies "
        "by the ratio of the bases; the default multiples were searched for base 10000 within 4k",
    ),
)
