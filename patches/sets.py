"""Where the frequencies of a model stand: in its rotary embeddings, or in tables made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from patches.base import Rope
from patches.config import head_dim

__all__ = [
    "PATCHED",
    "RotarySet",
    "SinusoidTable",
    "is_sinusoids",
    "rotary_sets",
    "standard_sets",
]

PATCHED = "patched"  # rope_type while a patch is on
SINE_CLOSE = 0.02  # half precision; other tables are off by as much as they hold


@dataclass(frozen=True)
class RotarySet:
    """One set of frequencies: all of a rotary embedding, or its part for one kind of layers.

    Attributes:
        module: the rotary embedding.
        kind: the layer type whose attributes these are; empty if it has one set.
    """

    module: Any
    kind: str = ""

    def name(self, attribute: str) -> str:
        """The module's name for an attribute of this set."""
        return f"{self.kind}_{attribute}" if self.kind else attribute

    @property
    def inv_freq(self) -> Tensor:
        """Rotation speed of each pair [rotary_dim/2]."""
        found: Tensor = getattr(self.module, self.name("inv_freq"))
        return found

    @property
    def attention_factor(self) -> float:
        """Multiplier of cos and sin."""
        return float(getattr(self.module, self.name("attention_scaling")))

    @property
    def rope_type(self) -> str:
        """Its kind of scaling in transformers' words."""
        types = self.module.rope_type
        return str(types[self.kind] if isinstance(types, dict) else types)

    @property
    def longest(self) -> int | None:
        """Positions that it can give; None for any number."""
        return None

    @property
    def theta(self) -> float:
        """Base of the geometric series."""
        return float(self.parameters["rope_theta"])

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Its entry of the config's rope_parameters."""
        found: Mapping[str, Any] = self.module.config.rope_parameters
        return found.get(self.kind) or found

    def attributes(self, rope: Rope) -> dict[str, Any]:
        """Attributes of its module for other frequencies, whatever its type recomputes."""
        inv_freq, types = rope.inv_freq.to(self.inv_freq), self.module.rope_type
        new = {
            self.name("inv_freq"): inv_freq,
            self.name("attention_scaling"): rope.attention_factor,
            "rope_type": types | {self.kind: PATCHED} if self.kind else PATCHED,
        }
        if "rope_init_fn" in vars(self.module):  # some call it at every forward
            new["rope_init_fn"] = partial(constant, (inv_freq, rope.attention_factor))
        return new


def constant(value: tuple[Tensor, float], *args: Any, **kwargs: Any) -> tuple[Tensor, float]:
    """The frequencies of a patch, for whoever computes them anew."""
    return value


@dataclass(frozen=True)
class SinusoidTable(RotarySet):
    """Frequencies that stand in a model as sines and cosines of its positions [length, 2 pairs].

    Attributes:
        kind: name of the table in its module.
        length: positions that a new table is to have at least.
    """

    length: int = field(default=0, compare=False)

    @property
    def table(self) -> Tensor:
        """Sines, then cosines."""
        found: Tensor = getattr(self.module, self.kind).detach()
        return found

    @property
    def inv_freq(self) -> Tensor:
        """Rotation speed of each pair, from position 1 [rotary_dim/2]."""
        sin, cos = self.table[1].double().chunk(2)
        return torch.atan2(sin, cos).float()

    @property
    def attention_factor(self) -> float:
        """Multiplier of cos and sin."""
        return float(self.table[0].max())

    @property
    def rope_type(self) -> str:
        """Plain RoPE but for a patch."""
        return PATCHED if hasattr(getattr(self.module, self.kind), PATCHED) else "default"

    @property
    def longest(self) -> int | None:
        """Rows of the table."""
        return len(self.table)

    @property
    def theta(self) -> float:
        """Base of the geometric series, from its second pair."""
        inv_freq = self.inv_freq.double()
        return float(inv_freq[1] ** -len(inv_freq)) if len(inv_freq) > 1 else 1.0

    def attributes(self, rope: Rope) -> dict[str, Any]:
        """The table of other frequencies, as long as the context."""
        old = getattr(self.module, self.kind)
        made = sinusoids(rope.inv_freq, max(len(old), self.length)) * rope.attention_factor
        new = made.to(old.device, old.dtype)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=False)
        setattr(new, PATCHED, True)
        return {self.kind: new}


def sinusoids(inv_freq: Tensor, length: int) -> Tensor:
    """Sines and cosines of positions 0 to length - 1 [length, rotary_dim]."""
    angles = torch.arange(length, device=inv_freq.device).float()[:, None] * inv_freq.float()
    return torch.cat((angles.sin(), angles.cos()), -1)


def rotary_sets(model: Any, length: int = 0) -> list[RotarySet]:
    """Every set of frequencies of a model; none if it has no rotary embedding that is known.

    Args:
        model: language model.
        length: positions that a table of sines and cosines is to have, if frequencies stand in one.
    """
    return standard_sets(model) or sinusoid_tables(model, length)


def standard_sets(model: Any) -> list[RotarySet]:
    """Sets that the rotary embeddings of transformers hold as frequencies."""
    return [
        RotarySet(module, name.removesuffix("inv_freq").removesuffix("_"))
        for module in model.modules()
        for name in (*vars(module), *dict(module.named_buffers(recurse=False)))
        if name.endswith("inv_freq")
        and isinstance(getattr(module, name), Tensor)
        and hasattr(module, name.removesuffix("inv_freq") + "attention_scaling")
        and hasattr(module, "rope_type")
    ]


def sinusoid_tables(model: Any, length: int) -> list[RotarySet]:
    """Sets that stand as tables no wider than a head; wider ones are added to the input."""
    return [
        found
        for module in model.modules()
        for name, table in (
            *module.named_buffers(recurse=False),
            *module.named_parameters(recurse=False),
        )
        if is_sinusoids(table, head_dim(model))
        and (found := SinusoidTable(module, name, length)).longest
    ]


def is_sinusoids(table: Tensor, width: int) -> bool:
    """True for sines and cosines of positions, in order, at most `width` wide."""
    if table.ndim != 2 or len(table) < 2 or table.shape[1] > width or table.shape[1] % 2:
        return False
    if not table.is_floating_point() or table.requires_grad:
        return False
    sin, cos = table[1].double().chunk(2)
    wanted = sinusoids(torch.atan2(sin, cos), len(table))
    factor = table[0].double().max()
    return bool(factor > 0 and (wanted * factor - table).abs().max() <= SINE_CLOSE * factor)
