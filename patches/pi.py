"""Position interpolation: all frequencies divided by the factor."""

from patches.base import Extent, Patch, Rope, RopeParameters
from patches.method import Method, Parameter

FACTOR = Parameter("factor", float, "max(1, context_length / trained length)", low=1)


def pi(factor: float | None = None) -> Patch:
    """Slow every pair by the factor: inv_freq' = inv_freq / factor."""

    def rope(rope: Rope, extent: Extent) -> Rope:
        return rope.scaled(1.0 / (factor or extent.factor))

    def parameters(rope: Rope, extent: Extent) -> RopeParameters:
        return {"rope_type": "linear", "factor": factor or extent.factor}

    return Patch(rope=rope, rope_parameters=parameters)


METHODS = (
    Method(
        name="pi",
        seam="frequencies",
        build=pi,
        parameters=(FACTOR,),
        formula="inv_freq' = inv_freq / factor   (the same as positions / factor)",
        claims="extends with a short fine-tuning; untrained it loses local resolution",
        source="Chen et al. 2023 (2306.15595), section 3; kaiokendev's blog; HF `linear`",
    ),
)
