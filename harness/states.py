"""States that a model keeps beside keys, as recurrences do: those of several sequences as one.

A state is that behind all tokens read so far and has no columns, so that those of sequences of
unequal length stand side by side. Keys that one layer keeps beside its state have columns.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from harness.errors import OF_MODELS

__all__ = ["KEYS_ALONE", "beside", "joined", "keeps_states", "own_layers"]

NOTHING = "DummyLayer"  # of a layer that reads another's keys; transformers 5.17 has none
KEYS_ALONE = (DynamicLayer, DynamicSlidingWindowLayer)
STATES = "recurrent_states"  # what layers of states have
COLUMNS = ("keys", "values")


def own_layers(config: Any) -> list[Any]:
    """The layers of the cache that transformers makes of a config; none where it makes none."""
    try:
        return [] if config is None else list(DynamicCache(config=config).layers)
    except OF_MODELS:
        return []


def is_plain(layer: Any) -> bool:
    return type(layer) in KEYS_ALONE or type(layer).__name__ == NOTHING


def keeps_states(config: Any) -> bool:
    """True if a model keeps something else than keys and values of each token.

    False where transformers makes no cache of the config; what the model does is measured then.
    """
    return not all(map(is_plain, own_layers(config)))


def beside(config: Any) -> bool:
    """True if what sequences keep can stand side by side: states, keys, and both in one layer.

    Windows beside states let go of keys, and an indexer keeps some of its own.
    """
    return all(
        is_plain(layer)
        or (hasattr(layer, STATES) and not isinstance(layer, DynamicSlidingWindowLayer))
        for layer in own_layers(config)
    )


def joined(layers: Sequence[Any], columns: int) -> Any:
    """One layer with the rows of several, keys flush right in so many columns."""
    layer = copy.copy(layers[0])
    for name in vars(layer):
        parts = [getattr(one, name) for one in layers]
        if name in COLUMNS and isinstance(parts[0], Tensor):
            parts = [pad(one, (0, 0, columns - one.shape[-2], 0)) for one in parts]
        setattr(layer, name, _side_by_side(parts))
    return layer


def _side_by_side(parts: Sequence[Any]) -> Any:
    """Tensors as rows of one, also in a dict by number; of all else the first."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, dict):
        return {key: _side_by_side([one[key] for one in parts]) for key in first}
    return first
