"""How the tokenizer of a GGUF splits text before its merges, by rules that transformers lacks."""

from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import pre_tokenizers

from harness.errors import Unavailable

__all__ = ["split_as_learned"]

# By name in a GGUF, as llama.cpp (llama-vocab.cpp) reads them: rules that take each digit alone
# before they split as GPT-2's does, and names of GPT-2's.
DIGITS_APART = frozenset(
    ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"]
)
AS_GPT2 = frozenset(
    [
        *("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat", "mellum", "a.x-4.0"),
        *("trillion", "granite-docling"),
    ]
)


def split_as_learned(tokenizer: Any, gguf: Path) -> None:
    """Have a tokenizer split text as the merges of its GGUF were learned.

    transformers splits by the rules of Llama 3, Qwen 2 and some more, and by GPT-2's whatever else
    a file names. With that, white space before a digit is split from the white space before it,
    and blank lines before a number become tokens that SmolLM has hardly seen there.

    Args:
        tokenizer: as transformers made it.
        gguf: the file it was made of.

    Raises:
        Unavailable: the file names another rule.
    """
    backend = tokenizer.backend_tokenizer
    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    rule = None if field is None else str(field.contents())
    if rule in DIGITS_APART:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
        return
    is_gpt2 = isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel)
    if is_gpt2 and rule is not None and rule not in AS_GPT2:
        raise Unavailable(
            f"its tokenizer splits text by the rule '{rule}', which transformers does not know and "
            "would take for GPT-2's; give a directory with the model's tokenizer.json"
        )
