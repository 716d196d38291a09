"""The two baselines: the untouched model, and the model that sees only its trained length."""

from patches.base import Extent, Patch
from patches.method import Method, Parameter


def truncate(cut: str = "auto") -> Patch:
    """As many tokens as the model was trained at."""

    def keep(extent: Extent) -> int:
        return extent.original_max_position_embeddings

    return Patch(keep=keep, cuts_middle=None if cut == "auto" else cut == "middle")


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
        parameters=(Parameter("cut", ("auto", "beginning", "middle"), "auto"),),
        formula="the model is given original_max_position_embeddings tokens alone: the newest "
        "(cut=beginning), or half from the beginning and half from the end of a prompt "
        "(cut=middle); cut=auto: the newest where given tokens are scored, both ends where an "
        "answer is all that is asked for",
        claims="the line to beat: a method works if it is below this loss and falls with context",
        source="Su Jianlin, kexue.fm/archives/9948 (acceptance test); cut=middle as LongBench's "
        "pred.py cuts",
    ),
)
