"""Every causal-LM type of transformers, built small with random weights."""

import dataclasses
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

__all__ = ["LENGTH", "TRAINED", "VOCABULARY", "WINDOW", "TooBig", "build"]

LENGTH, TRAINED, WINDOW, VOCABULARY = 96, 32, 16, 128
MOST_PARAMETERS = 100_000_000
LAYERS = 4
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "hidden_size_global"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"), 96),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "expert_ffn_hidden_size"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "kv_n_heads"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "zero_expert_num"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), TRAINED),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "local_attention"), WINDOW),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("hidden_size_per_layer_input", "state_size", "mamba_d_state"), 16),
    **dict.fromkeys(("rotary_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("index_topk",), 2 * LENGTH),
    **dict.fromkeys(("max_window_layers",), 2),
    **dict.fromkeys(("mamba_d_ssm",), 64),
    **{name: i for i, name in enumerate(("pad_token_id", "bos_token_id", "eos_token_id"))},
}
MLA = {"head_dim": 8, "num_key_value_heads": 4}
HYBRID = ["linear_attention", "full_attention"] * (LAYERS // 2)
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
EXTRA: dict[str, dict[str, Any]] = {  # what does not follow from sizes alone
    **dict.fromkeys(("axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"), MLA),
    **dict.fromkeys(("glm_moe_dsa", "minicpm3", "youtu", "longcat_flash"), MLA),
    **{name: {"head_dim": 16} for name in ("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")},
    **dict.fromkeys(("deepseek_v2", "dots1"), MLA | {"num_experts_per_tok": 2}),
    "bamba": {"attn_layer_indices": [1, 3]},
    "bailing_hybrid": MLA | {"layer_types": HYBRID},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dbrx": {"rope_parameters": ROPE},
    "dots1": {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "granitemoehybrid": {"layer_types": HYBRID, "position_embedding_type": "rope"},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": MLA | {"layer_types": HYBRID},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "lfm3": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "reformer": {"is_decoder": True},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * (LAYERS // 2),
        "use_mem_rope": True,
    },
    "zaya": {"num_experts_per_tok": 1},
}


class TooBig(ValueError):
    """The small config still gives a large model."""


def small_config(model_type: str, everything: bool = False) -> PreTrainedConfig:
    """The type's default config with small sizes; all that is no size stays as it ships.

    Args:
        model_type: a key of CONFIG_MAPPING.
        everything: make the parts for images and sound small too.
    """
    kind = CONFIG_MAPPING[model_type]
    default = kind()
    text = default.get_text_config(decoder=True)
    values = {
        name: sizes(part) | {"model_type": part.model_type}
        for name, part in vars(default).items()
        if isinstance(part, PreTrainedConfig) and (part is text or everything)
    }
    extra = EXTRA.get(model_type, {})
    return kind(**(values | extra if values else sizes(default) | extra))


def sizes(config: Any) -> dict[str, Any]:
    """The small values of the sizes that a config has; one layer of each kind it alternates."""
    own = {field.name: vars(config).get(field.name) for field in dataclasses.fields(config)}
    values = {
        name: size
        for name, size in SIZES.items()
        if name in own and (own[name] is not None or name in ("num_key_value_heads", "n_inner"))
    }
    kinds = list(dict.fromkeys(own.get("layer_types") or ()))
    if kinds:
        values["layer_types"] = [kinds[layer % len(kinds)] for layer in range(LAYERS)]
    return values


def build(model_type: str) -> Any:
    """A small random model whose attention, norms and biases all matter.

    Raises:
        TooBig: it would have more than MOST_PARAMETERS parameters.
    """
    config = small_config(model_type)
    if parameters(config) > MOST_PARAMETERS:
        config = small_config(model_type, everything=True)
    if parameters(config) > MOST_PARAMETERS:
        raise TooBig(f"{parameters(config) / 1e6:.0f} M parameters with small sizes")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
            elif parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(4)
            elif parameter.ndim == 1:
                parameter.mul_(0.5 + torch.rand_like(parameter))
    return model


def parameters(config: PreTrainedConfig) -> int:
    """Number of parameters of a config's model."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
