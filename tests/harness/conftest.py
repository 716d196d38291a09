import csv
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TRAINED_LENGTH = 64


def make_model(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TRAINED_LENGTH,
        initializer_range=0.3,
        bos_token_id=256,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def save(directory: Path, seed: int = 0) -> Path:
    make_model(seed).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--model", str(model), "--data", str(data), "--out", str(out), "--device", "cpu"]
    grid = ["--len", "64,128", "--patch", "none,truncate"]
    return [*fixed, *grid, "--in-process", *more]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def journals(out: Path) -> list[Path]:
    return sorted((out / "journal").glob("*.jsonl"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def own_checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "own")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    words = ["alpha", "beta", "gamma", "delta", "omega"]
    for number in range(3):
        text = " ".join(words[(number + step * step) % 5] for step in range(200))
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    return tmp_path / "texts"
