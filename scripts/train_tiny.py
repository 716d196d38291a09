"""Train the bundled model `tiny` on a folder of public-domain books, on a CPU, from a seed.

The model is a small Llama with plain RoPE. After a short course on repeated random tokens, most
sequences are book text; the rest hold something to retrieve (a repeated span, or key-value facts
asked for later), so that the model learns to use far context within its trained length.

    python scripts/train_tiny.py --data BOOKS --out harness/assets/tiny
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_model import new_model, new_optimizers, optimizer_of
from tiny_source import (
    BOS,
    HELD_OUT,
    IGNORED,
    Books,
    Ints,
    Lesson,
    Recipe,
    Source,
    TrainError,
    encode,
    read_books,
    train_tokenizer,
)
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM


def loss_of(model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean nll of the labelled tokens, in nats."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:].reshape(-1)
    return cross_entropy(logits.reshape(len(targets), -1), targets, ignore_index=IGNORED)


MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq")


class Run:
    """Model, optimizers and step count, which together can be saved and resumed."""

    def __init__(self, recipe: Recipe) -> None:
        """Start at step 0."""
        self.recipe, self.step = recipe, 0
        self.model = new_model(recipe)
        self.named = dict(self.model.named_parameters())
        self.optimizers = new_optimizers(self.model, recipe)
        self.rates = [group["lr"] for group in self.groups()]
        self.taught = sum(lesson.steps for lesson in recipe.lessons)

    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def share(self) -> float:
        """This step's share of the full rates: warm-up, lessons at 1, then a cosine down to 2 %."""
        recipe = self.recipe
        if self.step < self.taught:
            return min(1.0, (self.step + 1) / recipe.warmup)
        done = (self.step - self.taught) / max(1, recipe.steps - self.taught)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))

    def advance(self, source: Source) -> float:
        """One optimizer step; gives its loss."""
        for group, rate in zip(self.groups(), self.rates, strict=True):
            group["lr"] = rate * self.share()
        loss = loss_of(self.model, *source.batch(self.step))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad()
        self.step += 1
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write all state to `path`, whole or not at all."""
        state = {"step": torch.tensor(self.step)}
        for name, parameter in self.named.items():
            state[f"weight/{name}"] = parameter.detach()
            moments = optimizer_of(self.optimizers, parameter).state[parameter]
            state |= {f"{key}/{name}": moments[key] for key in MOMENTS if key in moments}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(state, partial)
        os.replace(partial, path)

    def resume(self, path: Path) -> None:
        """Take the state at `path` where there is one."""
        if not path.exists():
            return
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise TrainError(f"cannot read the state {str(path)!r} ({error}); delete it") from None
        self.step = int(state["step"])
        for name, parameter in self.named.items():
            parameter.data.copy_(state[f"weight/{name}"])
            optimizer_of(self.optimizers, parameter).state[parameter] = {
                "step": torch.tensor(float(self.step)),
                **{key: state[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in state},
            }


@torch.no_grad()
def measure(model: LlamaForCausalLM, stream: Ints, length: int) -> dict[str, float]:
    """Held-out nll, and token accuracy on the second copy of a repeated span."""
    half = (length - 1) // 2
    if len(stream) < length:
        return {}
    starts = np.linspace(0, len(stream) - length, 16).astype(int)
    plain = np.stack([np.append(BOS, stream[s : s + length - 1]) for s in starts])
    spans = [stream[s : s + half] for s in starts]
    twice = np.stack([np.concatenate([[BOS], span, span]) for span in spans])
    nll = float(loss_of(model, torch.from_numpy(plain), torch.from_numpy(plain)))
    logits = model(input_ids=torch.from_numpy(twice), use_cache=False).logits
    guess = logits[:, half + 1 : -1].argmax(-1).numpy()
    return {"nll": nll, "copy_accuracy": float((guess == twice[:, half + 2 :]).mean())}


def write_asset(run: Run, tokenizer: Tokenizer, out: Path, card: str) -> None:
    """Write config, tokenizer, weights and README; each file is replaced whole."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": run.recipe.length,
        "clean_up_tokenization_spaces": False,
    }
    weights = {name: parameter.detach() for name, parameter in run.named.items()}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        folder = Path(scratch)
        run.model.config.save_pretrained(folder)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        (folder / "README.md").write_text(card + digest + "\n", encoding="utf-8")
        for path in folder.iterdir():
            path.chmod(0o644)
            os.replace(path, out / path.name)


CARD = """# tiny

A small Llama with plain RoPE, made to show what happens beyond the trained length: {length} tokens.
Its weights and tokenizer come from the books below and nothing else.

| | |
|---|---|
| shape | {parameters} parameters: {layers} layers, {hidden} wide, heads of {head_dim} |
| first weights | random from the seed |
| tokenizer | byte-level BPE of {vocab} tokens, every digit one token |
| command | `{command}` |
| lessons | {taught} steps of 2048 repeated random tokens: 40 different ones, then up to all |
| steps | {step} of {steps}; after the lessons {batch} sequences of {length} tokens, `<s>` first |
| seed | {seed}; batches depend on the seed and the step alone |
| optimizer | Muon, decay {decay}, rate {rate} |
| of embedding and norms | AdamW, rate {embedding_rate} |
| rates | {warmup} steps of warm-up, full in the lessons, then a cosine down to 2 % |
| precision | float32, gradients clipped at 1 |
| sequences | {percent} % with repeated spans or key-value facts, the rest book text |
| result | {result} |

`loss` is the mean over the last interval of training, copies and facts included; `nll` is that of a
held-out book, and `copy_accuracy` the token accuracy on the second copy of its spans. All within
{length} tokens. Never trained on: {held_out}.

## Books

Plain text of Standard Ebooks editions (standardebooks.org), released under CC0 1.0. With each
title, the first 12 digits of the sha256 of its text.

{titles}

## Digest

sha256 of `model.safetensors`:
"""


def describe(run: Run, books: Books, metrics: dict[str, float]) -> str:
    """The README of the asset, up to the digest of the weights."""
    recipe = run.recipe
    digests = {title: hashlib.sha256(t.encode()).hexdigest() for title, t in books.training.items()}
    script = "python scripts/train_tiny.py --data BOOKS --out OUT"
    return CARD.format(
        **asdict(recipe),
        parameters=sum(parameter.numel() for parameter in run.named.values()),
        command=f"{script} --steps {recipe.steps} --seed {recipe.seed}",
        step=run.step,
        taught=run.taught,
        percent=round(100 * recipe.retrieval),
        result=", ".join(f"{name} {value:.3f}" for name, value in metrics.items()),
        held_out=", ".join(HELD_OUT),
        titles="\n".join(f"- {title} `{digest[:12]}`" for title, digest in digests.items()),
    )


def train(args: argparse.Namespace, recipe: Recipe) -> None:
    """Train, print metrics, and write the asset now and then and at the end."""
    books = read_books(args.data)
    texts = list(books.training.values())
    tokenizer = train_tokenizer(texts, recipe.vocab)
    source = Source(tokenizer, texts, recipe)
    held = next((text for title, text in books.held_out.items() if HELD_OUT[0] in title), "")
    stream = encode(tokenizer, held)
    identity = hashlib.sha256("".join([repr(recipe), *texts]).encode()).hexdigest()[:12]
    state = args.scratch / f"{identity}.safetensors"
    run = Run(recipe)
    run.resume(state)
    first, began = run.step, time.monotonic()
    saved, losses = began, list[float]()
    while run.step < recipe.steps:
        losses.append(run.advance(source))
        last = run.step == recipe.steps
        if run.step % args.every and not last:
            continue
        metrics = {"loss": float(np.mean(losses[-args.every :]))}
        metrics |= measure(run.model, stream, recipe.length)
        rate = (run.step - first) / (time.monotonic() - began)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"step {run.step}/{recipe.steps}  {shown}  {rate:.2f} steps/s", flush=True)
        if last or time.monotonic() - saved > args.save_seconds:
            saved = time.monotonic()
            write_asset(run, tokenizer, args.out, describe(run, books, metrics))
            if not last:
                run.save(state)
    state.unlink(missing_ok=True)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a whole number of at least 1")
    return value


def main(argv: list[str] | None = None) -> int:
    """Parse arguments and train; 0 when done, 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of books, *.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--steps", type=positive, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--every", type=positive, default=100, help="steps between metrics")
    parser.add_argument("--save-seconds", type=float, default=400.0, help="time between assets")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=Path(tempfile.gettempdir(), "train_tiny"),
        help="folder of the state that an interrupted run is resumed from",
    )
    parser.add_argument("--smoke", action="store_true", help="a far smaller model, for a test")
    args = parser.parse_args(argv)
    recipe = Recipe(steps=args.steps, seed=args.seed)
    if args.smoke:
        recipe = replace(recipe, length=64, batch=2, vocab=300, lessons=(Lesson(1, 8, 16, 2),))
        recipe = replace(recipe, hidden=32, layers=1, inner=64, head_dim=32)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    try:
        train(args, recipe)
    except TrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
