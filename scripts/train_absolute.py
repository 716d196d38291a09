"""Train a small model with learned absolute positions on the CPU: a GPT-2, or a BERT as masked LM.

Its text are the docstrings of the standard library of this Python, without the language reference
that the harness measures on by default. The weights stay where --out says; results/absolute.csv
holds what was measured on them.

    python scripts/train_absolute.py --kind masked --out /tmp/absolute/masked
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import sys
import sysconfig
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny_source import BOS, EOS, IGNORED, Ints, encode, train_tokenizer
from tokenizers import Tokenizer, processors
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Muon
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

MASK = "<mask>"
LEFT_OUT = ("test", "tests", "site-packages", "pydoc_data", "idlelib", "lib2to3")
TABLES = {
    "causal": "transformer.wpe.weight",
    "masked": "bert.embeddings.position_embeddings.weight",
}
INITIAL = 0.09  # about width ** -0.5
LONGEST = 20_000  # characters of a docstring; a few hold tables


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, besides the text."""

    kind: str
    steps: int
    seed: int = 0
    length: int = 128
    batch: int = 16
    vocab: int = 384
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    share: float = 0.15  # of the tokens of a masked model's input that are masked
    rate: float = 2e-3
    embedding_rate: float = 2e-3
    decay: float = 0.1
    warmup: int = 50
    lessons: tuple[tuple[float, int], ...] = ((0.2, 16), (0.4, 32))  # up to this share: so short


def docstrings(root: Path) -> list[str]:
    """The docstrings of a library, each once, a text a file, in the order of paths."""
    seen, texts = set[str](), []
    for path in sorted(root.rglob("*.py")):
        if set(LEFT_OUT) & set(path.relative_to(root).parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue  # templates that are no Python
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = (node for node in ast.walk(tree) if isinstance(node, kinds))
        found = (text[:LONGEST] for node in nodes if (text := ast.get_docstring(node)))
        new = [text for text in dict.fromkeys(found) if text not in seen]
        seen.update(new)
        texts += ["\n\n".join(new)] if new else []
    return texts


def new_tokenizer(texts: list[str], recipe: Recipe) -> Tokenizer:
    """Byte-level BPE; a masked model's has a mask, and `</s>` behind every text."""
    tokenizer = train_tokenizer(texts, recipe.vocab)
    if recipe.kind == "masked":
        tokenizer.add_special_tokens([MASK])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    return tokenizer


def new_model(recipe: Recipe, vocab: int) -> PreTrainedModel:
    """A model with random weights from the seed and a table of `length` positions.

    The table begins as sinusoids and is trained like all else: from random rows a masked model of
    this size does not find its neighbours in 1500 steps (loss 5.6 of 1024 tokens, those of their
    frequencies).
    """
    torch.manual_seed(recipe.seed)
    model = causal(recipe, vocab) if recipe.kind == "causal" else masked(recipe, vocab)
    table = model.get_parameter(TABLES[recipe.kind])
    rates = torch.logspace(0, -2.5, recipe.hidden // 2)
    angles = torch.arange(recipe.length)[:, None] * rates
    table.data.copy_(torch.cat((angles.sin(), angles.cos()), 1) * 2**0.5 * INITIAL)
    return model


def causal(recipe: Recipe, vocab: int) -> PreTrainedModel:
    """A GPT-2 without dropout."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab,
            n_positions=recipe.length,
            n_embd=recipe.hidden,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            initializer_range=INITIAL,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    )


def masked(recipe: Recipe, vocab: int) -> PreTrainedModel:
    """A BERT without dropout and with one type of tokens."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocab,
            max_position_embeddings=recipe.length,
            hidden_size=recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=4 * recipe.hidden,
            type_vocab_size=1,
            initializer_range=INITIAL,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=None,
        )
    )


def batch(stream: Ints, recipe: Recipe, step: int, mask: int) -> dict[str, torch.Tensor]:
    """Inputs and labels of one step, which depend on the seed and the step alone.

    The first ones are short, at any place of the table: a table learns late that neighbours are
    neighbours where a whole input has to be searched for them.
    """
    rng = np.random.default_rng([recipe.seed, step])
    done = step / recipe.steps
    length = next((size for share, size in recipe.lessons if done < share), recipe.length)
    count = recipe.batch * recipe.length // length
    room = length - (1 if recipe.kind == "causal" else 2)
    text = np.stack([stream[at : at + room] for at in rng.integers(0, len(stream) - room, count)])
    rows = np.insert(text, 0, BOS, axis=1)
    hidden = np.zeros(rows.shape, dtype=bool)
    if recipe.kind == "masked":
        rows = np.insert(rows, rows.shape[1], EOS, axis=1)
        hidden = rng.random(rows.shape) < recipe.share
        hidden[:, 0] = hidden[:, -1] = False
        labels = np.where(hidden, rows, IGNORED)
    else:
        labels = np.append(rows[:, 1:], np.full((count, 1), IGNORED), axis=1)
    first = rng.integers(0, recipe.length - length + 1, (count, 1))
    return {
        "input_ids": torch.from_numpy(np.where(hidden, mask, rows)),
        "position_ids": torch.from_numpy(first + np.arange(length)),
        "labels": torch.from_numpy(labels),
    }


def train(model: PreTrainedModel, stream: Ints, recipe: Recipe, mask: int) -> float:
    """Muon for the matrices of the layers, AdamW for the rest; gives the mean of the last."""
    named = list(model.named_parameters())
    inner = [p.ndim == 2 and (".h." in name or ".layer." in name) for name, p in named]
    matrices = [p for (_, p), is_inner in zip(named, inner, strict=True) if is_inner]
    others = [p for (_, p), is_inner in zip(named, inner, strict=True) if not is_inner]
    optimizers = [
        Muon(matrices, lr=recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, lr=recipe.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    full, losses, began = [group["lr"] for group in groups], list[float](), time.monotonic()
    for step in range(recipe.steps):
        done = step / recipe.steps
        share = min((step + 1) / recipe.warmup, 0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        for group, rate in zip(groups, full, strict=True):
            group["lr"] = rate * share
        inputs = batch(stream, recipe, step, mask)
        labels = inputs.pop("labels")
        logits = model(**inputs, use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            rate = (step + 1) / (time.monotonic() - began)
            print(f"step {step + 1}  loss {np.mean(losses[-100:]):.3f}  {rate:.2f} steps/s")
            sys.stdout.flush()
    return float(np.mean(losses[-100:]))


def save(model: PreTrainedModel, tokenizer: Tokenizer, recipe: Recipe, out: Path) -> None:
    """Write config, tokenizer and weights as transformers reads them."""
    model.save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    masked = {"mask_token": MASK, "sep_token": "</s>", "cls_token": "<s>"}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": recipe.length,
        "clean_up_tokenization_spaces": False,
        **(masked if recipe.kind == "masked" else {}),
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Parse arguments, train, and write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kind", choices=("causal", "masked"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    if options.steps < 1:
        parser.error(f"--steps {options.steps}: expected at least 1")
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    recipe = Recipe(options.kind, options.steps, options.seed)
    texts = docstrings(Path(sysconfig.get_path("stdlib")))
    tokenizer = new_tokenizer(texts, recipe)
    stream = np.concatenate([np.append(encode(tokenizer, text), EOS) for text in texts])
    model = new_model(recipe, tokenizer.get_vocab_size())
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size:,} parameters, {len(stream):,} tokens of {len(texts)} files")
    loss = train(model, stream, recipe, tokenizer.token_to_id(MASK) or -1)
    save(model, tokenizer, recipe, options.out)
    print(f"{options.out}: loss {loss:.3f} in the last 100 steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
