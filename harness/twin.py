"""Small random models of a config, whose logits tell two settings of rotation apart."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from harness.errors import HarnessError

__all__ = ["FARTHEST", "far_logits", "small_model"]

VOCABULARY = 256
SMALL = 64
TOKENS = 64
FARTHEST = 32768  # beyond it, float32 rounds the angles of two equal tables apart
UNBUILDABLE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def small_model(
    config: Any,
    parameters: Mapping[str, Any] | None = None,
    length: int = 0,
    weights: Mapping[str, Any] | None = None,
) -> Any:
    """A random model of a config with a layer of each kind, its attention neither flat nor hard.

    Args:
        config: of a causal LM; left as it is.
        parameters: rope_parameters to take instead of the config's.
        length: max_position_embeddings then.
        weights: state dict of another such model; without it, always the same random weights.

    Raises:
        HarnessError: the config cannot be made small.
    """
    config = copy.deepcopy(config)
    text = config.get_text_config()
    changes = _changes(text)
    if parameters:
        changes |= {"rope_parameters": dict(parameters), "max_position_embeddings": length}
    try:
        for name, value in changes.items():
            setattr(text, name, value)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        if weights:
            model.load_state_dict(weights)
    except UNBUILDABLE as error:
        raise HarnessError(
            f"{config.model_type}: no small model can be made of its config "
            f"({type(error).__name__}: {error}), so that nothing can be checked"
        ) from error
    return model


def _changes(text: Any) -> dict[str, Any]:
    """What makes a config small."""
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or []))
    changes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "intermediate_size": SMALL,
        "moe_intermediate_size": SMALL,
    }
    changes = {name: value for name, value in changes.items() if hasattr(text, name)}
    changes |= {"num_hidden_layers": max(2, len(kinds)), "pad_token_id": None}
    changes |= {"initializer_range": math.sqrt(2 / text.hidden_size)}
    if kinds:
        changes["layer_types"] = (kinds * 2)[: max(2, len(kinds))]
    return changes


def far_logits(model: Any, length: int) -> Tensor:
    """Logits of a few tokens at positions spread over the context [1, tokens, vocabulary]."""
    ids = torch.arange(1, TOKENS + 1)[None] * 7919 % VOCABULARY
    positions = torch.linspace(0, min(length, FARTHEST) - 1, TOKENS).long()[None]
    with torch.inference_mode():
        logits: Tensor = model(
            ids,
            position_ids=positions,
            attention_mask=torch.ones_like(ids),  # without it, jumps would part the sequence
            use_cache=False,
        ).logits
    return logits
