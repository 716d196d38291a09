"""How inference engines take rope parameters: which kinds, and in which words.

Sources, read in 2026:
    hf: config.json, transformers/modeling_rope_utils.py.
    vllm: docs.vllm.ai/en/stable/features/context_extension, vllm-project/vllm:
        vllm/model_executor/layers/rotary_embedding (the factor of longrope is short_mscale and
        long_mscale; that of yarn has had several names; yarn's table ends at factor * original).
    sglang: sgl-project/sglang:python/sglang/srt/layers/rotary_embedding/factory.py, likewise;
        the flags with rope_parameters are in the model card of Qwen3.5.
    llama.cpp: ggml-org/llama.cpp:tools/server/README.md and ggml/src/ggml-cpu/ops.cpp rope_yarn
        (cos and sin times 1 + 0.1 ln factor, the ramp rounded outwards); src/llama-context.cpp
        overwrites --yarn-attn-factor; other kinds are written into the GGUF as it is converted.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ENGINES", "Engine", "Setting"]

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """What an engine has to be told.

    Attributes:
        model: what the user called the model.
        length: tokens that it must take.
        parameters: the whole rope_parameters of the config.
    """

    model: str
    length: int
    parameters: Parameters

    def overrides(self, more: Mapping[str, Any] | None = None) -> str:
        """JSON of the entries of config.json that change, on one line."""
        parameters = {**self.parameters, **(more or {})}
        return json.dumps(
            {"max_position_embeddings": self.length, "rope_parameters": parameters}, sort_keys=True
        )


@dataclass(frozen=True)
class Engine:
    """One line of the table.

    Attributes:
        refuses: why it cannot take parameters at a length; empty if it can.
        render: the setting in its words.
        note: what else has to be known.
        converted: kinds that a model has in its converted weights already, whatever flags say.
    """

    refuses: Callable[[Parameters, int], str]
    render: Callable[[Setting], str]
    note: str = ""
    converted: tuple[str, ...] = ()


def _server_refuses(parameters: Parameters, length: int) -> str:
    if parameters["rope_type"] == "yarn":
        end = int(parameters["factor"] * parameters["original_max_position_embeddings"])
        if "attention_factor" in parameters:
            return "versions differ in how yarn is given an attention factor"
        if end < length:
            return f"its yarn ends at factor * trained length = {end} tokens"
    return ""


def _llama_cpp_refuses(parameters: Parameters, length: int) -> str:
    kind = parameters["rope_type"]
    if kind not in ("default", "linear", "yarn"):
        return f"rope_type {kind} is no flag, it is written into the GGUF at conversion"
    if "attention_factor" in parameters:
        return "its yarn has an attention factor of its own"
    if not parameters.get("truncate", True):
        return "its yarn rounds the ramp outwards"
    return ""


def _mscales(parameters: Parameters) -> dict[str, Any]:
    if parameters["rope_type"] != "longrope":
        return {}
    factor = parameters["attention_factor"]
    return {"short_mscale": factor, "long_mscale": factor}


def _vllm(setting: Setting) -> str:
    json_text = shlex.quote(setting.overrides(_mscales(setting.parameters)))
    return (
        f"vllm serve {shlex.quote(setting.model)} --hf-overrides {json_text} "
        f"--max-model-len {setting.length}"
    )


def _sglang(setting: Setting) -> str:
    json_text = shlex.quote(setting.overrides(_mscales(setting.parameters)))
    return (
        f"python -m sglang.launch_server --model-path {shlex.quote(setting.model)} "
        f"--json-model-override-args {json_text} --context-length {setting.length}"
    )


def _llama_cpp(setting: Setting) -> str:
    given = setting.parameters
    kind = given["rope_type"]
    flags = [
        f"--ctx-size {setting.length}",
        f"--rope-scaling {'none' if kind == 'default' else kind}",
        f"--rope-freq-base {given['rope_theta']!r}",
    ]
    if kind != "default":
        flags.append(f"--rope-freq-scale {1 / given['factor']!r}")
    if kind == "yarn":
        flags += [
            f"--yarn-orig-ctx {given['original_max_position_embeddings']}",
            f"--yarn-beta-fast {given['beta_fast']!r}",
            f"--yarn-beta-slow {given['beta_slow']!r}",
        ]
    return f"llama-server --model MODEL.gguf {' '.join(flags)}"


ENGINES: dict[str, Engine] = {
    "hf": Engine(
        lambda parameters, length: "",
        lambda setting: setting.overrides(),
        "entries to replace in config.json",
    ),
    "vllm": Engine(_server_refuses, _vllm),
    "sglang": Engine(_server_refuses, _sglang),
    "llama.cpp": Engine(
        _llama_cpp_refuses,
        _llama_cpp,
        "llama-server caps its slots at the GGUF's context_length; raise that too, by "
        "--override-kv ARCHITECTURE.context_length=int:LENGTH",
        converted=("llama3", "longrope"),
    ),
}
