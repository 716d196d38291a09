"""Random tiny models of every supported family, for tests."""

import functools
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

TRAINED_LENGTH = 32
VOCABULARY = 128
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": TRAINED_LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4},
    "qwen2": {},
    "qwen2_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "phi": {},
    "phi3": {},
    "gpt_neox": {},
    "olmo2": {},
    "stablelm": {},
    "granite": {},
    "starcoder2": {"sliding_window": None},
}


@functools.cache
def tiny(family: str, **settings: Any) -> PreTrainedModel:
    """A random model with weights large enough for attention to matter. Leave it as it was."""
    config = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES.get(family, {}), **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def tokens(length: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Random token ids without the special ones [batch, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


def logits(model: PreTrainedModel, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Logits of one forward without a cache."""
    with torch.inference_mode():
        return model(ids, use_cache=False, **inputs).logits
