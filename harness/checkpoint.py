"""Opens a checkpoint: config, tokenizer and digests first, the weights when they are asked for."""

import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from harness.errors import DoesNotFit, HarnessError, Unavailable
from harness.memory import is_out_of_memory
from harness.models import Files, digest_of, find, open_gguf
from patches.apply import trained_length

__all__ = ["ATTENTION", "Checkpoint", "TextTokenizer", "cache_directory", "open_checkpoint"]

ATTENTION = "sdpa"  # what transformers chooses wherever a model has it; a row holds what was used
BROKEN = (OSError, ValueError, RuntimeError, LookupError, SafetensorError, struct.error)
DIGITS = 12
MESSAGE = "(what the user says)"


class TextTokenizer:
    """A HuggingFace tokenizer as tasks see it: plain token ids and a BOS only where it is used."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer; BOS counts only if the tokenizer puts it in front by default."""
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}
        default = tokenizer("x").input_ids
        bos = tokenizer.bos_token_id
        self.bos_id: int | None = bos if bos is not None and default[:1] == [bos] else None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        if text not in self._ids:  # a grid asks for the same documents at every length
            self._ids[text] = self._tokenizer(
                text, add_special_tokens=False, verbose=False
            ).input_ids
        return self._ids[text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, without special tokens."""
        ids: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, verbose=False
        ).input_ids
        return ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters [start, end) of each token of the text.

        Raises:
            HarnessError: the tokenizer does not say, or says it wrongly.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            raise HarnessError("this model's tokenizer gives no character offsets; use another")
        spans = self._tokenizer(
            text, add_special_tokens=False, verbose=False, return_offsets_mapping=True
        ).offset_mapping
        empty = sum(start >= end for start, end in spans)
        if empty > len(spans) // 100:
            raise HarnessError(
                f"this model's tokenizer gives empty character offsets for {empty} of {len(spans)} "
                "tokens; update the package tokenizers"
            )
        return [(int(start), int(end)) for start, end in spans]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included, as they are."""
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    @cached_property
    def chat(self) -> tuple[str, str] | None:
        """Texts before and behind a user's message, by the model's chat template; None without.

        A BOS at its beginning is left out: whoever makes a prompt puts one there.

        Raises:
            HarnessError: the template cannot take one message of a user as it is.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            return None
        messages = [{"role": "user", "content": MESSAGE}]
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (ValueError, TypeError, TemplateError) as error:
            raise HarnessError(f"this model's chat template fails: {error}") from None
        before, found, behind = str(text).partition(MESSAGE)
        if not found:
            raise HarnessError(
                "this model's chat template changes the user's message; not supported"
            )
        bos = self._tokenizer.bos_token
        return before.removeprefix(bos) if bos and self.bos_id is not None else before, behind

    @cached_property
    def digest(self) -> str:
        """sha256 of vocabulary and rules, 12 hex digits."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        rules = backend.to_str() if backend else repr(sorted(self._tokenizer.get_vocab().items()))
        return hashlib.sha256(f"{self.bos_id} {rules}".encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Checkpoint:
    """A model that was found, its weights not loaded yet.

    Attributes:
        name: what the user called it.
        directory: config, tokenizer and safetensors.
        weights: sha256 of the weights, 12 hex digits.
        config_digest: sha256 of config.json, 12 hex digits.
        config: the HuggingFace config.
        tokenizer: its tokenizer, as tasks see it.
    """

    name: str
    directory: Path
    weights: str
    config_digest: str
    config: Any
    tokenizer: TextTokenizer

    @property
    def original_max_position_embeddings(self) -> int:
        """Length the model was trained at, in tokens."""
        return trained_length(self.config)

    def dtype(self, wanted: str, device: torch.device) -> torch.dtype:
        """Resolve `auto`: float32 on CPU, else the checkpoint's, bfloat16 where it names none."""
        if wanted != "auto":
            chosen: torch.dtype = getattr(torch, wanted)
            return chosen
        if device.type == "cpu":
            return torch.float32
        own = getattr(self.config, "dtype", None)
        return own if isinstance(own, torch.dtype) else torch.bfloat16

    def load(self, dtype: torch.dtype, device: torch.device) -> Any:
        """Load the weights in eval mode.

        Raises:
            Unavailable: files are damaged, or a tensor is missing or of another shape.
            DoesNotFit: the device has no memory for them.
        """
        try:
            model = self._complete(dtype)
            return model.to(device).eval()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DoesNotFit(
                f"--model {self.name}: weights in {dtype} do not fit on {device}; give a smaller "
                "model, --dtype bf16 or another --device"
            ) from None

    def _complete(self, dtype: torch.dtype) -> Any:
        capped = getattr(self.config, "attn_logit_softcapping", None)  # some sdpa drop the cap
        with quiet():
            try:
                model, info = AutoModelForCausalLM.from_pretrained(
                    self.directory,
                    attn_implementation="eager" if capped else None,
                    dtype=dtype,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                    local_files_only=True,
                )
            except BROKEN as error:
                if is_out_of_memory(error):
                    raise
                raise Unavailable(
                    f"--model {self.name}: cannot be loaded ({_one_line(error)}); "
                    f"restore the files of {self.directory}"
                ) from None
        wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        if wrong:
            raise Unavailable(
                f"--model {self.name}: {len(wrong)} tensors are missing or of another shape, the "
                f"first is {wrong[0]}; restore the files of {self.directory}"
            )
        return model


def open_checkpoint(name: str) -> Checkpoint:
    """Find a model and read all of it but its weights.

    Raises:
        HarnessError: not a model's name.
        Unavailable: not there, damaged, not a causal language model, or in need of its own code.
    """
    files = find(name)
    digest = digest_of(files)
    directory = dequantised(files, digest) if files.is_gguf else files.path
    with quiet():
        try:
            config = AutoConfig.from_pretrained(
                directory, trust_remote_code=False, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(
                directory, trust_remote_code=False, local_files_only=True
            )
        except BROKEN as error:
            raise Unavailable(
                f"--model {name}: config or tokenizer cannot be read ({_one_line(error)})"
            ) from None
    config_digest = hashlib.sha256((directory / "config.json").read_bytes()).hexdigest()
    return Checkpoint(
        name=name,
        directory=directory,
        weights=digest[:DIGITS],
        config_digest=config_digest[:DIGITS],
        config=config,
        tokenizer=TextTokenizer(tokenizer),
    )


def cache_directory() -> Path:
    """The user's own cache of this program, made with mode 0700."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "length-harness"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    return root


def dequantised(files: Files, digest: str) -> Path:
    """Turn a GGUF into float32 safetensors once; later calls find them in the cache.

    Raises:
        Unavailable: the file is damaged or of an architecture that transformers cannot read.
    """
    target = cache_directory() / "gguf" / digest
    if target.is_dir():
        return target
    target.parent.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        gguf = Path(work) / "model.gguf"
        with open_gguf(files.path) as source, gguf.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        made = Path(work) / "made"
        try:
            with quiet():
                _convert(gguf, made)
        except BROKEN as error:
            raise Unavailable(f"--model {files.path}: not converted ({_one_line(error)})") from None
        try:
            made.rename(target)
        except OSError:  # another process was faster
            if not target.is_dir():
                raise
    return target


def _convert(gguf: Path, made: Path) -> None:
    common = {"gguf_file": gguf.name, "trust_remote_code": False, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **common)
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(made)
    AutoTokenizer.from_pretrained(gguf.parent, **common).save_pretrained(made)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing reports and bars to stderr; its errors still raise."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
