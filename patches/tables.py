"""Cosines and sines that the layers of one forward share.

Layers that follow the same position maps and frequencies turn their queries and keys by the same
angles, so these are computed in the first of them.
"""

from collections.abc import Callable, Hashable

from torch import Tensor

__all__ = ["CosSin", "Tables"]

CosSin = tuple[Tensor, Tensor]  # cosine and sine of each pair's angle [length, rotary_dim/2]


class Tables:
    """The tables of the forward under way, by all that they depend on."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.found: dict[Hashable, CosSin] = {}
        self.layer = -1

    def enter(self, layer: int) -> None:
        """Forget an earlier forward's tables: within one, the layers' numbers rise."""
        if layer <= self.layer:
            self.found.clear()
        self.layer = layer

    def get(self, key: Hashable, make: Callable[[], CosSin]) -> CosSin:
        """The tables of a key, made if no layer of this forward has asked for them."""
        if key not in self.found:
            self.found[key] = make()
        return self.found[key]
