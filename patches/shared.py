"""What the layers of one forward share.

Layers that follow the same position maps and frequencies turn their queries and keys by the same
angles, scale them by the same factors and have the same padding, so these are computed in the first
of them.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["Shared"]

Value = TypeVar("Value")


class Shared:
    """Values of the forward under way, by all that they depend on."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.found: dict[Hashable, Any] = {}
        self.layer = -1

    def enter(self, layer: int) -> None:
        """Forget an earlier forward's values: within one, the layers' numbers rise."""
        if layer <= self.layer:
            self.found.clear()
        self.layer = layer

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made if no layer of this forward has asked for it.

        Tensors in a key are told apart by identity; they stay alive with it.
        """
        if key not in self.found:
            self.found[key] = make()
        value: Value = self.found[key]
        return value
