"""What a model's config says, under the names that models give it."""

from typing import Any

from patches.spec import PatchError

__all__ = ["head_dim", "trained_length"]

LATENT = ("qk_nope_head_dim", "qk_rope_head_dim")  # the parts of a head of latent attention


def trained_length(config: Any) -> int:
    """Tokens a model was trained at: original_max_position_embeddings, else the maximum."""
    config = config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    entries = [parameters, *(entry for entry in parameters.values() if isinstance(entry, dict))]
    originals = [entry.get("original_max_position_embeddings") for entry in entries]
    return int(max((length for length in originals if length), default=0) or maximum(config))


def maximum(config: Any) -> int:
    """Tokens that a config allows for, under the names that models give it."""
    for name in ("max_position_embeddings", "max_seq_len", "seq_length"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    raise PatchError(
        f"{config.model_type}: its config names no max_position_embeddings; "
        "give the trained length (--trained-length)"
    )


def head_dim(model: Any) -> int:
    """Size of the vectors that queries and keys are compared as."""
    config = model.config.get_text_config()
    own = vars(config)  # some refuse to be asked: it differs from layer to layer
    parts = [own.get(name) or 0 for name in LATENT]
    if all(parts):  # head_dim is that of the turning part alone, or of nothing
        return int(sum(parts))
    for name in ("head_dim", "attention_head_dim", "kv_channels"):
        if own.get(name):
            return int(own[name])
    heads = getattr(config, "num_attention_heads", None) or 1  # a recurrence has none
    return int(config.hidden_size // heads)
