"""Shape, first weights and optimizers of the bundled model."""

from __future__ import annotations

import torch
from tiny_source import BOS, EOS, Recipe
from torch.optim import AdamW, Muon, Optimizer
from transformers import LlamaConfig, LlamaForCausalLM

THETA = 10000.0  # rope_theta


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """A plain Llama with random weights from the seed."""
    heads = recipe.hidden // recipe.head_dim
    config = LlamaConfig(
        vocab_size=recipe.vocab,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        intermediate_size=recipe.inner,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=recipe.head_dim,
        max_position_embeddings=recipe.length,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        bos_token_id=BOS,
        eos_token_id=EOS,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def new_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in named if p.dim() != 2 or "embed" in name]
    muon = Muon(matrices, lr=recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW(others, lr=recipe.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [muon, adamw]


def optimizer_of(optimizers: list[Optimizer], parameter: torch.nn.Parameter) -> Optimizer:
    """The one that updates `parameter`."""
    return next(
        optimizer
        for optimizer in optimizers
        if any(parameter is one for group in optimizer.param_groups for one in group["params"])
    )
