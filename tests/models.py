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
WIDE = 1 << 20  # hides nothing
KINDS = ["sliding_attention", "full_attention"]
MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
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
    "cohere": {},  # interleaved pairs
    "glm": {"head_dim": 16},  # interleaved pairs in half of the channels
    "nanochat": {},  # turns the other way
    "deepseek_v3": MLA,  # the last channels turn; values are narrower than keys
    "gemma2": {"head_dim": 16, "attn_logit_softcapping": 2.0, "sliding_window": WIDE},
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "sliding_window": WIDE},  # sink logits
    "smollm3": {"no_rope_layers": [1, 0]},
    "gemma3_text": {"head_dim": 16, "layer_types": KINDS, "sliding_window": WIDE},  # two sets
    "lfm2": {"layer_types": ["conv", "full_attention"]},  # a layer without attention
}
WINDOWED: dict[str, dict[str, Any]] = {  # as they come: with windows on some layers
    "mistral": {"sliding_window": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 16},
    "gemma3_text": {"head_dim": 16, "layer_types": KINDS, "sliding_window": 16},
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "sliding_window": 16},
    "llama4_text": {
        "head_dim": 16,
        "attention_chunk_size": 16,
        "num_local_experts": 4,
        "intermediate_size_mlp": 96,
        "no_rope_layers": [1, 0],
    },
}


def windowed(family: str) -> PreTrainedModel:
    """A random model with the windows of its family."""
    return tiny(family, **{name: frozen(value) for name, value in WINDOWED[family].items()})


def frozen(value: Any) -> Any:
    """A value that can key a cache."""
    return tuple(value) if isinstance(value, list) else value


@functools.cache
def tiny(family: str, **settings: Any) -> PreTrainedModel:
    """A random model with weights large enough for attention to matter. Leave it as it was."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    config = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES.get(family, {}), **settings})
    torch.manual_seed(0)
    capped = getattr(config, "attn_logit_softcapping", None)  # transformers 5.17's sdpa drops it
    attention = "eager" if capped else None  # None: sdpa where the model has it
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
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


def state(model) -> dict[str, object]:
    """Everything that a patch could leave behind."""
    attributes: dict[str, object] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if not key.startswith("_") or key in ("_forward_hooks", "_forward_pre_hooks"):
                attributes[f"{name}.{key}"] = repr(value)
        for key, value in module.named_buffers(recurse=False):
            attributes[f"{name}.{key}"] = value.tolist()
        for key, value in module.named_parameters(recurse=False):
            attributes[f"{name}.{key}"] = id(value)
    return attributes | {f"config.{k}": repr(v) for k, v in vars(model.config).items()}
