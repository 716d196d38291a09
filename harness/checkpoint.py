"""Opens a checkpoint: config, tokenizer and digests first, the weights when they are asked for."""

import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from harness.errors import DoesNotFit, HarnessError, Unavailable
from harness.memory import is_out_of_memory
from harness.models import Files, digest_of, find, open_gguf
from harness.splitting import split_as_learned
from harness.tokenizer import DIGITS, TextTokenizer
from patches.apply import trained_length

__all__ = ["ATTENTION", "Checkpoint", "cache_directory", "open_causal", "open_checkpoint"]

CONVERSION = 2  # raised where a GGUF is converted otherwise than before
ATTENTION = "sdpa"  # what transformers chooses wherever a model has it; a row holds what was used
BROKEN = (  # what transformers raises on files that are not what their names say
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError),
    *(SafetensorError, struct.error),
)


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
        """Length the model was trained at, in tokens.

        The config of a RoBERTa counts rows of its table that hold no position; its tokenizer knows.
        """
        length = trained_length(self.config)
        return min(length, self.tokenizer.longest) if self.is_masked else length

    @property
    def other_ends(self) -> list[int] | None:
        """What ends its answers by generation_config.json; None if that is what the config says."""
        own = self.config.get_text_config().eos_token_id
        try:
            ends = GenerationConfig.from_pretrained(
                self.directory, local_files_only=True
            ).eos_token_id
        except OSError:  # none there: the config's
            return None
        found = [sorted([one] if isinstance(one, int) else one or []) for one in (ends, own)]
        return found[0] if found[0] != found[1] else None

    @property
    def is_masked(self) -> bool:
        """True if its weights fill in masked tokens instead of continuing a text."""
        kind, names = self.config.model_type, getattr(self.config, "architectures", None) or []
        return (
            kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
            and MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) not in names[:1]
            and bool(names)
            and not self.config.is_encoder_decoder
        )

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
        kind = AutoModelForMaskedLM if self.is_masked else AutoModelForCausalLM
        with quiet():
            try:
                model, info = kind.from_pretrained(
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
        Unavailable: not there, damaged, not a language model, or in need of its own code.
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
    kind = config.model_type
    if kind not in {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_MASKED_LM_MAPPING_NAMES}:
        raise Unavailable(
            f"--model {name}: {kind} neither continues a text nor fills in masked tokens by what "
            "transformers has of it; give a causal or a masked language model"
        )
    config_digest = hashlib.sha256((directory / "config.json").read_bytes()).hexdigest()
    return Checkpoint(
        name=name,
        directory=directory,
        weights=digest[:DIGITS],
        config_digest=config_digest[:DIGITS],
        config=config,
        tokenizer=TextTokenizer(tokenizer, name, config.get_text_config().vocab_size),
    )


def open_causal(name: str) -> Checkpoint:
    """`open_checkpoint` of a model that continues a text.

    Raises:
        HarnessError: it fills in masked tokens.
    """
    checkpoint = open_checkpoint(name)
    if checkpoint.is_masked:
        raise HarnessError(
            f"--model {name}: {checkpoint.config.architectures[0]} fills in masked tokens and "
            "continues no text; give a causal language model"
        )
    return checkpoint


def cache_directory() -> Path:
    """The user's own cache of this program, made with mode 0700."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "length-harness"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    return root


def dequantised(files: Files, digest: str) -> Path:
    """Turn a GGUF into float32 safetensors once; later calls find them in the cache.

    Raises:
        Unavailable: the file is damaged, or of an architecture or tokenizer that transformers
            cannot read.
    """
    target = cache_directory() / "gguf" / f"{digest}-{CONVERSION}"
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
        except Unavailable as error:
            raise Unavailable(f"--model {files.path}: {error}") from None
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
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **common)
    split_as_learned(tokenizer, gguf)
    tokenizer.save_pretrained(made)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **common)
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(made)


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
