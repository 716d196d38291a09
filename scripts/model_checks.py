"""The checks of model_matrix.py: what patches and the harness do to a model, by other ways."""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from small_models import LENGTH, TRAINED, WINDOW
from torch import Tensor
from transformers import AutoModelForCausalLM

from harness.engine import Engine
from harness.generate import Prompt, generate
from patches import PatchError, parse
from patches.apply import apply, check_identity
from patches.base import Extent
from patches.positions import position_tables
from patches.sets import rotary_sets
from patches.windows import hiding, unwindowed

__all__ = ["MEASURES", "TOLERANCE", "NativeOnly", "OwnFault", "engine", "learned_table", "whole"]

TOLERANCE = 1e-4


class OwnFault(ValueError):
    """What the untouched model does not do either."""


class NativeOnly(ValueError):
    """A patch of frequencies runs, on a model that takes no other."""


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
