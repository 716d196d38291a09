"""Measures on which causal-LM types of the installed transformers patches work, and why not.

Every type of AutoModelForCausalLM's mapping is built small with random weights, in a process of
its own with a time limit, and compared with independent ways to the same logits:

    identity   the hook with the shipped frequencies against the untouched model, 24 tokens
    native     the same at 96 tokens, the model's own windows kept (native-window)
    chunked    rerope: prefill in pieces against one forward
    decode     rerope: token by token after a prefill against one forward
    frequency  ntk: native attention with other frequencies against the hook
    band       rerope: the first tokens, up to its window, against the untouched model
    window     window: the hook against the untouched model under a 4-D mask
    table      hierarchical: a longer table against a model built with that many positions
    engine     the harness: nll read in pieces and two answers generated together, without a patch
               and under rerope where the type takes it, against forwards of the whole

A column holds the largest difference of logits, divided by the largest logit if that is above 1;
`own fault` means that the untouched model does not do it either. A type works if all columns are
below 1e-4 or such and partly if the first is; of the others some take patches of frequencies alone
(`frequency` is then `native`), some those of their learned positions (`table`, measured where a
table is found), and the rest are refused.

    python scripts/model_matrix.py --csv results/models.csv
"""

import argparse
import copy
import csv
import dataclasses
import itertools
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from harness.engine import Engine
from harness.errors import HarnessError
from harness.generate import Prompt, generate
from patches import PatchError, parse
from patches.apply import apply, check_identity, measured
from patches.base import Extent
from patches.positions import position_tables
from patches.sets import rotary_sets
from patches.windows import hiding, unwindowed

LENGTH, TRAINED, WINDOW, VOCABULARY = 96, 32, 16, 128
TOLERANCE = 1e-4
MOST_PARAMETERS = 100_000_000
MEMORY = 12 << 30
CHECKS = ("identity", "native", "chunked", "decode", "frequency", "band", "window")
NATIVE = "native"  # only there
OWN_FAULT = "own fault"  # of the untouched model
HEADER = (
    *("model_type", "class", "rotary", "layers", "outcome"),
    *CHECKS,
    *("table", "engine"),
    *("reason", "seconds", "torch", "transformers"),
)
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


class OwnFault(ValueError):
    """What the untouched model does not do either."""


class NativeOnly(ValueError):
    """A patch of frequencies runs, on a model that takes no other."""


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


def forward(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    """Logits in fp32."""
    with torch.inference_mode():
        logits: Tensor = model(ids, **inputs).logits
    return logits.float()


def whole(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    """Logits of one forward without a cache."""
    return forward(model, ids, use_cache=False, **inputs)


def pieces(model: Any, ids: Tensor, bounds: list[int]) -> Tensor:
    """Logits of a forward in pieces through the model's own cache."""
    cache, logits = None, []
    with torch.inference_mode():
        for first, stop in itertools.pairwise(bounds):
            out = model(ids[:, first:stop], past_key_values=cache, use_cache=True)
            cache = getattr(out, "past_key_values", None)
            logits.append(out.logits.float())
    return torch.cat(logits, dim=1)


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference, divided by the largest logit if that is above 1."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1))


def window_mask(size: int) -> Tensor:
    """What a causal window of `size` lets be seen, added to scores [1, 1, LENGTH, LENGTH]."""
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    hidden = (distance < 0) | (distance >= size)
    return torch.zeros(LENGTH, LENGTH).masked_fill(hidden, torch.finfo(torch.float32).min)[
        None, None
    ]


@contextmanager
def patched(model: Any, spec: str) -> Iterator[None]:
    """A patch with the window of the model, if any, lifted."""
    with apply(model, parse(spec), LENGTH, TRAINED):
        yield


def native(model: Any, ids: Tensor) -> float:
    """Hook with the model's own windows against the untouched model.

    Raises:
        OwnFault: its attention does not apply the window of its config.
    """
    plain = whole(model, ids)
    config = model.config.get_text_config()
    windows = hiding(config, Extent(LENGTH, TRAINED, 1))
    with unwindowed(config):
        if windows and apart(whole(model, ids), plain) == 0:
            raise OwnFault("the untouched model does not apply its own window")
    with patched(model, f"rerope(window={2 * LENGTH})+native-window"):
        return apart(whole(model, ids), plain)


def in_pieces(model: Any, ids: Tensor, bounds: list[int]) -> float:
    """Reading in pieces against one forward, under rerope.

    Raises:
        OwnFault: they differ without a patch too.
    """
    with unwindowed(model.config.get_text_config()):
        if apart(pieces(model, ids, bounds), whole(model, ids)) > TOLERANCE:
            raise OwnFault("the untouched model does not read in pieces as at once")
    with patched(model, "rerope(window=8)"):
        return apart(pieces(model, ids, bounds), whole(model, ids))


def chunked(model: Any, ids: Tensor) -> float:
    """Prefill in pieces."""
    return in_pieces(model, ids, [0, 29, 64, LENGTH])


def decode(model: Any, ids: Tensor) -> float:
    """Token by token after a prefill."""
    return in_pieces(model, ids, [0, *range(LENGTH - 8, LENGTH + 1)])


def frequency(model: Any, ids: Tensor) -> float:
    """New frequencies in the native attention against the hook with the same.

    Raises:
        NativeOnly: the hook refuses the model.
    """
    with patched(model, "ntk"):
        wanted = whole(model, ids)
    try:
        check_identity(model)
    except PatchError as error:
        raise NativeOnly("frequencies reach the logits, in the native attention") from error
    with patched(model, f"ntk+rerope(window={2 * LENGTH})"):
        return apart(whole(model, ids), wanted)


def band(model: Any, ids: Tensor) -> float:
    """The tokens that a rerope does not touch; the others have to change."""
    with unwindowed(model.config.get_text_config()):
        plain = whole(model, ids)
    with patched(model, f"rerope(window={LENGTH // 2})"):
        logits = whole(model, ids)
    half = LENGTH // 2
    moved = apart(logits[:, half:], plain[:, half:])
    return apart(logits[:, :half], plain[:, :half]) if moved > 1e-6 else float("nan")


def window(model: Any, ids: Tensor) -> float:
    """A window by the hook against the model's own attention under a mask.

    Raises:
        OwnFault: the model does not read such masks.
    """
    with unwindowed(model.config.get_text_config()):
        causal = whole(model, ids, attention_mask=window_mask(LENGTH))
        if apart(causal, whole(model, ids)) > TOLERANCE:
            raise OwnFault("the untouched model does not read a 4-D mask")
        wanted = whole(model, ids, attention_mask=window_mask(WINDOW))
    with patched(model, f"window(size={WINDOW})"):
        return apart(whole(model, ids), wanted)


def learned_table(model: Any, ids: Tensor) -> float | None:
    """A longer table against a model that was built with it; None where no table is learned.

    Raises:
        OwnFault: a model with other positions than these cannot be built of the type.
    """
    tables = [table for table in position_tables(model) if table.is_learned]
    if rotary_sets(model) or not tables:
        return None
    (table,) = tables
    config = copy.deepcopy(model.config)
    rows = len(table.module.weight)
    if not hasattr(config, "max_position_embeddings"):
        raise OwnFault("its config names no max_position_embeddings")
    config.max_position_embeddings += LENGTH - table.positions
    long = AutoModelForCausalLM.from_config(config).eval()
    weights = model.state_dict()
    learned = weights[f"{table.name}.weight"][table.first :].double()
    n, alpha = len(learned), 0.4
    made = [
        (alpha * learned[at // n] + (1 - alpha) * learned[at % n] - alpha * learned[0])
        / (1 - alpha)
        for at in range(LENGTH)
    ]
    start = weights[f"{table.name}.weight"][: table.first]
    longer = torch.cat((start, torch.stack(made).float()))
    if len(longer) != len(long.get_submodule(table.name).weight):
        raise OwnFault(f"its table of {rows} rows does not grow with its config")
    long.load_state_dict(weights | {f"{table.name}.weight": longer}, strict=False)
    with apply(model, parse("hierarchical"), LENGTH, table.positions):
        return apart(whole(model, ids), whole(long, ids))


def engine(model: Any, ids: Tensor) -> float:
    """Nll and answers of the harness in pieces, against forwards of the whole without a cache.

    Raises:
        HarnessError: the harness refuses to read the model in pieces.
        ValueError: it generates other tokens.
    """
    sets = rotary_sets(model)
    length = LENGTH if sets and (sets[0].longest or LENGTH) >= LENGTH else TRAINED - 8
    trained = min(length, TRAINED)
    tokens, patches = ids[0, :length].tolist(), [parse("none")]
    try:
        with apply(model, parse("rerope(window=8)"), length, trained):
            patches.append(parse("rerope(window=8)"))
    except PatchError:  # the other columns say why
        pass
    differences = []
    for patch in patches:
        with apply(model, patch, length, trained):
            differences.append(of_engine(model, tokens))
    return max(differences)


def of_engine(model: Any, tokens: list[int]) -> float:
    """Largest difference of an nll, in nats, under what is on the model."""
    reader = Engine(model, len(tokens) // 3, torch.device("cpu"))
    ids = torch.tensor([tokens])
    wanted = torch.nn.functional.cross_entropy(
        whole(model, ids)[0, -len(tokens) : -1], ids[0, 1:], reduction="none"
    )
    nll, _ = reader.score(tokens, 1)
    prompts = [Prompt(tokens[:-10], 3), Prompt(tokens[:-5], 3)]
    for prompt, answer in zip(prompts, generate(reader, prompts, batch=2), strict=True):
        longer = list(prompt.tokens)
        for _ in answer:
            longer.append(int(whole(model, torch.tensor([longer]))[0, -1].argmax()))
        if longer[len(prompt.tokens) :] != answer:
            raise ValueError("it generates other tokens than forwards of the whole do")
    return float((torch.tensor(nll) - wanted).abs().max())


MEASURES: dict[str, Callable[[Any, Tensor], float]] = {
    "identity": lambda model, ids: check_identity(model),
    "native": native,
    "chunked": chunked,
    "decode": decode,
    "frequency": frequency,
    "band": band,
    "window": window,
}


def describe(model: Any) -> tuple[str, str]:
    """How a model rotates, and which of its layers have attention."""
    if not rotary_sets(model):
        own = any("rotary" in name for name in vars(model.config))
        return "its own code" if own else "no", ""
    try:
        rotations = measured(model)
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError):
        return "yes", ""
    words = Counter()
    for rotary, layout in rotations.values():
        if rotary is None:
            words["none"] += 1
            continue
        word = "interleaved" if layout.interleaved else "halves"
        words[
            f"{word} of {2 * rotary.inv_freq.numel()}{' last' if layout.last else ''} channels"
        ] += 1
    total = model.config.get_text_config().num_hidden_layers
    used = len({rotary for rotary, _ in rotations.values() if rotary})
    text = ", ".join(f"{count} {word}" for word, count in words.items())
    return f"{text or 'yes'}{f'; {used} sets' if used > 1 else ''}", f"{len(rotations)}/{total}"


def examine(model_type: str) -> dict[str, Any]:
    """The row of one type."""
    row: dict[str, Any] = {"model_type": model_type, "outcome": "not built"}
    try:
        model = build(model_type)
        ids = torch.randint(3, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(1))
        whole(model, ids[:, : TRAINED - 8])
    except Exception as error:  # the models of a library: anything may be raised
        return row | {"reason": one_line(error)}
    row["class"] = type(model).__name__
    row["rotary"], row["layers"] = describe(model)
    reasons = {}
    for name, measure in MEASURES.items():
        try:
            difference = measure(model, ids)
            row[name] = f"{difference:.0e}"
            if not difference <= TOLERANCE:
                reasons[name] = f"{name}: differs by {difference:.0e}"
        except Exception as error:
            kinds = {PatchError: "refused", OwnFault: OWN_FAULT, NativeOnly: NATIVE}
            row[name] = kinds.get(type(error), "failed")
            reasons[name] = one_line(error)
    row["engine"], said = of_harness(model, ids)
    fails = [name for name in reasons if row[name] != OWN_FAULT]
    row["outcome"] = "refused" if "identity" in fails else "partly" if fails else "works"
    row["reason"] = "; ".join(dict.fromkeys(reasons.values()))
    if row["outcome"] == "refused":
        row["reason"] = reasons["identity"]
        row["outcome"] = "frequencies" if row["frequency"] == NATIVE else "refused"
        row |= of_table(model, ids) if row["outcome"] == "refused" else {}
    row["reason"] = "; ".join(text for text in (row["reason"], said) if text)
    return row


def of_harness(model: Any, ids: Tensor) -> tuple[str, str]:
    """The column `engine`, and why it holds no small difference."""
    try:
        difference = engine(model, ids)
    except Exception as error:
        kinds = {PatchError: "refused", HarnessError: "refused"}
        return kinds.get(type(error), "failed"), one_line(error)
    larger = "" if difference <= TOLERANCE else f"engine: differs by {difference:.0e}"
    return f"{difference:.0e}", larger


def of_table(model: Any, ids: Tensor) -> dict[str, Any]:
    """What changes in the row of a type by its learned positions, if it has some."""
    try:
        difference = learned_table(model, ids)
    except Exception as error:
        kinds = {PatchError: "refused", OwnFault: OWN_FAULT}
        return {"table": kinds.get(type(error), "failed"), "reason": one_line(error)}
    if difference is None:
        return {}
    works = difference <= TOLERANCE
    return {"table": f"{difference:.0e}", "outcome": "positions" if works else "refused"}


def one_line(error: Exception) -> str:
    """An error's message, short."""
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, PatchError | HarnessError | OwnFault)
        else f"{type(error).__name__}: {text}"
    )[:240]


def worker(model_type: str, sender: Connection) -> None:
    """Examine a type in this process and send its row."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
    sender.send(examine(model_type))


def examine_all(model_types: list[str], jobs: int, limit: float) -> Iterator[dict[str, Any]]:
    """Rows of all types, each from its own process; a crash or a hang is a row too."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(model_types)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            model_type = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=worker, args=(model_type, sender))
            process.start()
            sender.close()
            running[receiver] = (process, model_type, time.monotonic())
        ready = wait(list(running), timeout=0.5)
        for receiver, (process, model_type, start) in list(running.items()):
            seconds = time.monotonic() - start
            row = {"model_type": model_type, "outcome": "not built"}
            if receiver in ready:
                try:
                    row = receiver.recv()
                except EOFError:
                    process.join()
                    row["reason"] = f"its process died with code {process.exitcode}"
            elif seconds > limit:
                process.kill()
                row["reason"] = f"not done after {limit:.0f} s"
            else:
                continue
            process.join()
            del running[receiver]
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            yield row | versions | {"seconds": f"{seconds:.1f}"}


def main() -> int:
    """Write the table and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("types", nargs="*", help="model types, the rows to replace; all by default")
    parser.add_argument("--csv", help="file to write")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=120, help="seconds a type")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    types = arguments.types or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    rows = []
    for row in examine_all(types, arguments.jobs, arguments.limit):
        rows.append(row)
        cells = " ".join(f"{name}={row[name]}" for name in CHECKS if name in row)
        print(f"{row['model_type']:22} {row['outcome']:11} {cells} {row.get('reason', '')}")
    if arguments.types and arguments.csv and os.path.exists(arguments.csv):
        with open(arguments.csv, newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["model_type"] not in types]
    rows.sort(key=lambda row: row["model_type"])
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, HEADER, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    rotary = [row for row in rows if row.get("rotary", "no") != "no"]
    print("all types: ", dict(Counter(row["outcome"] for row in rows)))
    print("with rotary embeddings: ", dict(Counter(row["outcome"] for row in rotary)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
