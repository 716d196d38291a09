"""What `recommend` tries: patches that need no training, and parameters that their sources advise.

A method that a recommendation should try has a line here. Imports no torch.
"""

__all__ = ["candidates"]


def candidates(trained_length: int, context_length: int) -> tuple[str, ...]:
    """Specs from cheap to dear: frequencies, windows, frequencies with log n, then bands.

    Left out is what needs training (pi), what a later method of its source replaces (ntk-old,
    ntk-fixed), what equals another here (ntk-dynamic), what reaches little beyond the trained
    length (string), and parts of other methods.

    Args:
        trained_length: tokens the model was trained at.
        context_length: tokens it is to read, more than those.
    """
    factor = context_length / trained_length
    half = max(1, trained_length // 2)
    return (
        "yarn",
        "yarn(ramp=code)",
        f"yarn(factor={2 * factor:g})",
        "ntk-by-parts",
        "ntk",
        f"ntk(factor={2 * factor:g})",
        "ntk-mixed",
        "llama3",
        "rope-base",
        "streaming",
        "lm-infinite",
        "window",
        "ntk+logn",
        "dca",
        "self-extend",
        "leaky-rerope",
        "rerope",
        "rerope+logn",
        f"rerope(window={half})+logn",
        "self-extend+logn",
        "dca+logn",
    )
