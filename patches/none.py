"""The two baselines: the untouched model, and the model that sees only its trained length."""

from patches.base import Patch
from patches.method import Method

METHODS = (
    Method(
        name="none",
        seam="input",
        build=Patch,
        formula="the model as it was loaded",
        claims="loss explodes soon after the trained length",
        source="Su Jianlin, kexue.fm/archives/9948",
    ),
    Method(
        name="truncate",
        seam="input",
        build=lambda: Patch(keep=lambda extent: extent.original_max_position_embeddings),
        formula="the model is given the newest original_max_position_embeddings tokens alone",
        claims="the line to beat: a method works if it is below this loss and falls with context",
        source="Su Jianlin, kexue.fm/archives/9948 (acceptance test)",
    ),
)
