"""The two baselines: the untouched model, and the model that sees only its trained length."""

from patches.base import Extent, Patch
from patches.method import Method, Parameter


def truncate(cut: str = "beginning") -> Patch:
    """As many tokens as the model was trained at."""

    def keep(extent: Extent) -> int:
        return extent.original_max_position_embeddings

    return Patch(keep=keep, cuts_middle=cut == "middle")


METHODS = (
    Method(
        name="none",
        seam="input",
        build=Patch,
        formula="the model as it was loaded; frequencies that depend on the length (dynamic, "
        "longrope) are those of the context length, however the input is cut",
        claims="loss explodes soon after the trained length",
        source="Su Jianlin, kexue.fm/archives/9948",
    ),
    Method(
        name="truncate",
        seam="input",
        build=truncate,
        parameters=(Parameter("cut", ("beginning", "middle"), "beginning"),),
        formula="the model is given the newest original_max_position_embeddings tokens alone; "
        "cut=middle: as many of a prompt, half from its beginning and half from its end",
        claims="the line to beat: a method works if it is below this loss and falls with context",
        source="Su Jianlin, kexue.fm/archives/9948 (acceptance test); cut=middle as LongBench's "
        "pred.py cuts",
    ),
)
