"""Shape and first weights of the bundled model; these already hold an induction circuit.

A small model finds induction (look for the last place where this token stood, and copy what came
after it) only late in training. Here it starts with one: head 0 of layer 0 looks at the previous
token and writes it to dimensions of its own; heads 0 and 1 of layer 1 look for keys whose previous
token is the query's token, and copy. Training refines it like any other weights.

The previous token is found with the fast pairs of RoPE, the match with pairs that turn by little
within the trained length, as trained models do.
"""

from __future__ import annotations

import math

import torch
from tiny_source import BOS, EOS, Recipe
from transformers import LlamaConfig, LlamaForCausalLM

THETA = 10000.0  # rope_theta
DEVIATION = 0.02  # of all other first weights
WIDTH = 128  # dimensions of the embeddings; the rest starts empty, for the previous token
FAST = 10  # pairs of RoPE that find the previous token
SLOW = 1.2  # radians within the trained length that a pair of the match may turn by
CONSTANT = 6.0  # of every embedding, in one dimension, in units of their standard deviation
SHARP = 60.0  # logit of the previous token
MATCH = 20.0  # sets the logit of a match
COPY = 0.75  # how much of the copied token is added
QUIET = 0.1  # factor on what every other head and layer adds
LOUD = 5.0  # factor on the embeddings, so that the first steps do not wipe the circuit out
FINAL = 0.3  # weight of the last norm, which undoes LOUD in the logits
SINK = 11.0  # logit of `<s>`, where the heads of the match look when there is none


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """A random matrix; its rows, or its columns if fewer, are orthonormal."""
    wide, narrow = max(rows, columns), min(rows, columns)
    basis: torch.Tensor = torch.linalg.qr(torch.randn(wide, narrow, generator=generator))[0]
    return basis if rows > columns else basis.T.contiguous()


def projections(model: LlamaForCausalLM, layer: int, size: int) -> list[torch.Tensor]:
    """q, k, v, o of a layer, with the heads that the first `size` dimensions belong to cleared."""
    attention = model.model.layers[layer].self_attn
    q, k, v, o = (getattr(attention, f"{name}_proj").weight for name in "qkvo")
    for rows in (q, k, v):
        rows[:size] = 0
    o[:, :size] = 0
    return [q, k, v, o]


@torch.no_grad()
def add_induction(model: LlamaForCausalLM, recipe: Recipe) -> None:
    """Write the circuit into the fresh weights of `model`, in place."""
    dim, half = recipe.head_dim, recipe.head_dim // 2
    deviation = LOUD * DEVIATION
    generator = torch.Generator().manual_seed(recipe.seed)
    inv_freq = THETA ** (-torch.arange(half) / half)
    for name, parameter in model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            parameter.mul_(QUIET)

    last = WIDTH - 1
    model.model.norm.weight.fill_(FINAL)
    embedding = model.model.embed_tokens.weight
    embedding.mul_(LOUD)
    embedding[:, WIDTH:] = 0
    embedding[BOS] = 0
    embedding[:, last] = CONSTANT * deviation
    size = embedding.norm(dim=1).mean() / math.sqrt(recipe.hidden)
    noise, constant = deviation / size, CONSTANT * deviation / size

    q, k, v, o = projections(model, 0, dim)
    amplitude = math.sqrt(SHARP * math.sqrt(dim) / FAST) / constant
    q[:FAST, last] = amplitude * inv_freq[:FAST].cos()
    q[half : half + FAST, last] = -amplitude * inv_freq[:FAST].sin()
    k[:FAST, last] = amplitude
    seen = orthonormal(dim, last, generator)
    v[:dim, :last] = seen
    o[WIDTH : WIDTH + dim, :dim] = deviation / noise * 1.5 * torch.eye(dim)

    q, k, v, o = projections(model, 1, 2 * dim)
    pairs = [i for i in range(half) if inv_freq[i] * recipe.length < SLOW]
    slowest = pairs.pop()
    slow = torch.tensor(pairs + [i + half for i in pairs])
    bos = math.sqrt(recipe.hidden)
    sink = math.sqrt(SINK * math.sqrt(dim) / (constant * (bos - constant)))
    gain = math.sqrt(MATCH * math.sqrt(dim) / len(slow) / noise)
    copied = orthonormal(2 * dim, last, generator)
    for head in range(2):
        matched = orthonormal(len(slow), dim, generator)
        q[head * dim + slow, :last] = gain * (matched @ seen)
        k[head * dim + slow, WIDTH : WIDTH + dim] = gain * matched
        q[head * dim + slowest, last] = k[head * dim + slowest, last] = sink
    v[: 2 * dim, :last] = copied
    o[:last, : 2 * dim] = COPY * copied.T


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """A plain Llama with fresh weights from the seed."""
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
        initializer_range=DEVIATION,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        bos_token_id=BOS,
        eos_token_id=EOS,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(config)
    if recipe.circuit:
        add_induction(model, recipe)
    return model
