"""Memory and work of a cell before it runs: its forwards on the device `meta`, counted.

The model class, the patch and the KV cache run as in a measurement, and compute nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from harness.checkpoint import Checkpoint, quiet
from harness.engine import Engine
from harness.errors import HarnessError
from harness.forecast.rehearsal import META, Group, Rehearsal, groups_of, times
from harness.forecast.tracker import Work, tracking
from harness.plan import Cell
from patches.apply import Applied, apply

__all__ = ["Forecast", "Predictor", "shape_model", "weight_bytes"]

FEW = (2, 3)  # layers that tell what each further one costs; the first keeps its own input alive


@dataclass(frozen=True)
class Forecast:
    """What a cell will cost.

    Attributes:
        tensors: bytes of the weights and of all that is alive with them at the peak.
        resident: the same with the gaps that freed blocks leave in a CPU process.
        work: operations of all samples; an answer counts as long as it may become.
    """

    tensors: int
    resident: int
    work: Work = field(hash=False)


class Predictor:
    """Predicts cells; a model is made once, and what has one shape is run once."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._models: dict[tuple[str, str], Any] = {}
        self._groups: dict[tuple[object, ...], tuple[Group, ...]] = {}
        self._known: dict[tuple[object, ...], Forecast] = {}
        self._alive: list[object] = []  # samples, so that their ids are not reused

    def forecast(self, cell: Cell) -> Forecast:
        """Run the forwards of a cell without values.

        Raises:
            PatchError: the patch does not go on the model, as far as shapes tell.
            HarnessError: the model cannot be read with, a prompt not be cut, or no sample be made.
            RuntimeError: the model's code asks for values; others of OF_MODELS likewise.
        """
        if cell.fault:
            raise HarnessError(cell.fault)
        row = cell.template
        setting = (row.weights, row.dtype, row.chunk, row.batch, row.context_length)
        asked = (*setting, row.trained_length, row.device == "cpu", row.patch, id(cell.samples))
        if asked not in self._known:
            self._alive.append(cell.samples)
            model = self._model(cell.checkpoint, row.dtype)
            with apply(model, cell.patch, row.context_length, row.trained_length) as applied:
                tokenizer = cell.checkpoint.tokenizer
                mask_id = tokenizer.mask_id if cell.checkpoint.is_masked else None
                engine = Engine(model, row.chunk, META, tokenizer.bos_id, mask_id)
                self._known[asked] = self._run(cell, engine, applied, setting)
        return self._known[asked]

    def _model(self, checkpoint: Checkpoint, dtype: str) -> Any:
        wanted = (checkpoint.weights + checkpoint.config_digest, dtype)
        if wanted not in self._models:
            self._models[wanted] = shape_model(checkpoint, getattr(torch, dtype))
        return self._models[wanted]

    def _run(
        self, cell: Cell, engine: Engine, applied: Applied, setting: tuple[object, ...]
    ) -> Forecast:
        row, decoding = cell.template, cell.patch.decoding
        device = "cpu" if row.device == "cpu" else "cuda"
        if decoding is not None:
            return _forecast(engine, device, applied, lambda run: run.decoded(cell, applied))
        read = (applied.keep, row.batch, id(cell.samples))
        if read not in self._groups:
            self._groups[read] = tuple(groups_of(cell, engine, applied.keep))
        groups = self._groups[read]
        patch = row.patch if applied.attention == "blockwise" else applied.attention
        shape = (*setting, device, patch, *map(repr, groups))
        if shape not in self._known:
            self._known[shape] = _forecast(
                engine,
                device,
                applied,
                lambda run: sum((run.group(one) for one in groups), Counter()),
            )
        return self._known[shape]


def shape_model(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """A model of a checkpoint's config, its weights without values; frequencies have theirs."""
    capped = getattr(checkpoint.config, "attn_logit_softcapping", None)
    kind = AutoModelForMaskedLM if checkpoint.is_masked else AutoModelForCausalLM
    with quiet(), init_empty_weights(include_buffers=False):
        model = kind.from_config(
            checkpoint.config, dtype=dtype, attn_implementation="eager" if capped else None
        )
    model.tie_weights()  # what was made without values came apart
    return model.eval()


def weight_bytes(model: Any) -> int:
    """Bytes of parameters and buffers, what is tied counted once."""
    tensors = {id(one): one for one in (*model.parameters(), *model.buffers())}
    return sum(one.numel() * one.element_size() for one in tensors.values())


def _forecast(
    engine: Engine, device: str, applied: Applied, run: Callable[[Rehearsal], Work]
) -> Forecast:
    """Count a run; of a stack of equal layers, from few of them."""
    model, weights = engine.model, weight_bytes(engine.model)
    stack = _equal_layers(model, applied)
    counted = []
    for layers in FEW if stack else (0,):
        with _only(stack, layers), tracking(device) as tracker:
            tracker.outside((*model.parameters(), *model.buffers()))
            work = run(Rehearsal(tracker, engine))
        counted.append((tracker.peak, tracker.resident, work))
    (peak, resident, work), *more = counted
    for other_peak, other_resident, other_work in more:
        rest = len(stack) - FEW[0]
        peak += rest * (other_peak - peak)
        resident += rest * (other_resident - resident)
        each = times(other_work, rest)
        each.subtract(times(work, rest))
        work += each
    return Forecast(weights + peak, weights + round(resident), work)


def _equal_layers(model: Any, applied: Applied) -> nn.ModuleList:
    """The model's layers, if they are one stack of equal ones, and more than few; else none."""
    config = model.config.get_text_config()
    count = int(config.num_hidden_layers)
    stacks = [
        one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == count
    ]
    plans = {tuple(band.region for band in plan.bands) for plan in applied.plans.values()}
    if len(stacks) != 1 or count <= sum(FEW) or len(plans) > 1:
        return nn.ModuleList()
    if len(set(getattr(config, "layer_types", None) or [""])) > 1:
        return nn.ModuleList()
    kinds = {
        (type(layer), *((name, one.shape) for name, one in layer.named_parameters()))
        for layer in stacks[0]
    }
    return stacks[0] if len(kinds) == 1 else nn.ModuleList()


@contextmanager
def _only(stack: nn.ModuleList, layers: int) -> Iterator[None]:
    """Let the first layers of a stack be all of them; all if there is no stack."""
    all_of_them = list(stack)
    del stack[layers:]
    try:
        yield
    finally:
        stack.extend(all_of_them[len(stack) :])
