"""What a command line asks for, checked and spelled out as cells before any weights are loaded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import patches
import tasks
from harness.checkpoint import ATTENTION, Checkpoint, open_checkpoint
from harness.decoding import check_decoding, cuts_middle
from harness.environment import code, device_name, versions
from harness.errors import HarnessError, Unavailable
from harness.lengths import render_length
from harness.results import Row, cell_id
from patches.base import Patch
from tasks.base import RowError, Sample, Task
from tasks.corpus import Corpus, load

__all__ = ["Cell", "Request", "cuts", "plan", "resolve_device"]

NOT_COLUMNS = (
    "config",
    "parallel",
    "device",
    "chat",
    "ends",
)  # parts of the key that a row has not, or in words


@dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        models: names of models.
        patches: specs.
        tasks: specs.
        lengths: context lengths in tokens; None for the trained length of each model.
        data: where the documents are; None for the default corpus.
        n: documents.
        seed: of samples and intervals.
        dtype: name of a torch dtype, or auto.
        device: name of a torch device, or auto.
        chunk: tokens a prefill forward; None for one forward.
        trained_length: tokens the models were trained at; None for what their configs say.
        batch: answers that are generated together.
        retry: statuses of stored cells that are measured again.
        shard: the cells i, i + N, i + 2 N, … of the grid are measured, as (i, N).
    """

    models: tuple[str, ...]
    patches: tuple[str, ...]
    tasks: tuple[str, ...]
    lengths: tuple[int, ...] | None
    data: str | None
    n: int
    seed: int
    dtype: str
    device: str
    chunk: int | None
    trained_length: int | None = None
    batch: int = 1
    retry: tuple[str, ...] = ()
    shard: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Cell:
    """One measurement: a model with a patch on a task at a length.

    Attributes:
        checkpoint: the model.
        patch: what is put on it.
        task: what it is given.
        samples: the task's samples at this length.
        template: a row with all settings filled in, and nothing measured.
        key: every setting that the values depend on.
        fault: why its samples cannot be made, if they cannot: it fails without a model.
    """

    checkpoint: Checkpoint
    patch: Patch
    task: Task
    samples: tuple[Sample, ...]
    template: Row
    key: dict[str, Any]
    fault: str = ""


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device that is there.

    Raises:
        HarnessError: another name, or a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise HarnessError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise HarnessError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices that "
            f"torch {torch.__version__} can use; give --device cpu or leave it out"
        )
    return torch.device(name)


def plan(request: Request, device: torch.device) -> list[Cell]:
    """Check everything that can be checked without weights, and list the cells in order.

    Raises:
        PatchError: a patch that cannot be read.
        HarnessError: data for tasks that read none, or a patch or model that cannot do a task.
        TaskError: a task that cannot be read, or data too short for a length.
        Unavailable: a model or the data is not there.
    """
    chosen_patches = [patches.parse(spec) for spec in request.patches]
    chosen_tasks = [tasks.parse(spec) for spec in request.tasks]
    if request.data is not None and all(task.reads == "nothing" for task in chosen_tasks):
        raise HarnessError(
            f"--data {request.data}: {', '.join(request.tasks)} makes its own text; leave it out"
        )
    corpora: dict[str, Corpus] = {}
    for task in chosen_tasks:
        if _reading(task) not in corpora:
            corpora[_reading(task)] = _load(request, task)
    cells = []
    for name in dict.fromkeys(request.models):
        checkpoint = open_checkpoint(name)
        trained_length = request.trained_length or checkpoint.original_max_position_embeddings
        for task in chosen_tasks:
            _check_kind(checkpoint, task, request.chunk)
            corpus = corpora[_reading(task)]
            for length in request.lengths or (trained_length,):
                made = _Maker(request, device, checkpoint, corpus, trained_length)
                cells += made.cells(task, length, chosen_patches)
    return list({cell.template.cell: cell for cell in cells}.values())


def _check_kind(checkpoint: Checkpoint, task: Task, chunk: int | None) -> None:
    """Refuse a task of another kind of model."""
    if checkpoint.is_masked != task.masks:
        does = "fills in masked tokens" if checkpoint.is_masked else "continues a text"
        fit = [name for name in tasks.TASKS if tasks.kind(name).masks == checkpoint.is_masked]
        raise HarnessError(
            f"--model {checkpoint.name} --task {task.spec}: the model {does} and the task asks for "
            f"the other; give {', '.join(fit)} or another model"
        )
    if checkpoint.is_masked and checkpoint.tokenizer.mask_id is None:
        raise HarnessError(f"--model {checkpoint.name}: its tokenizer has no mask token")
    if checkpoint.is_masked and chunk is not None:
        raise HarnessError(
            f"--chunk {chunk}: --model {checkpoint.name} reads its input at once; leave it out"
        )


def _reading(task: Task) -> str:
    return repr((task.reads, task.sources, task.tables))


def _load(request: Request, task: Task) -> Corpus:
    try:
        return load(request.data, request.n, task.reads, task.sources, task.tables)
    except tasks.TaskError as error:
        raise Unavailable(str(error)) from None


@dataclass(frozen=True)
class _Maker:
    """What the cells of one model have in common."""

    request: Request
    device: torch.device
    checkpoint: Checkpoint
    corpus: Corpus
    trained_length: int

    def cells(self, task: Task, length: int, chosen: Sequence[Patch]) -> list[Cell]:
        """A cell a patch; a row of the data that lacks something is the fault of all."""
        tokenizer, trained = self.checkpoint.tokenizer, self.trained_length
        samples, fault = tuple[Sample, ...](), ""
        try:
            documents = self.corpus.documents
            samples = tuple(task.samples(documents, tokenizer, length, trained, self.request.seed))
        except RowError as error:
            fault = str(error)
        cells = []
        for patch in chosen:
            if not fault:
                check_decoding(patch, task, samples, trained)
            key = self._key(task, length, samples, patch) | self._answering(samples)
            template = replace(self._template(key, task, samples), patch=str(patch))
            cells.append(Cell(self.checkpoint, patch, task, samples, template, key, fault))
        return cells

    def _key(
        self, task: Task, length: int, samples: tuple[Sample, ...], patch: Patch
    ) -> dict[str, Any]:
        checkpoint = self.checkpoint
        is_unsaid = patch.cuts_middle is None and cuts_middle(patch, samples)
        dtype = checkpoint.dtype(self.request.dtype, self.device)
        return {
            "model": checkpoint.name,
            "weights": checkpoint.weights,
            "config": checkpoint.config_digest,
            "tokenizer": checkpoint.tokenizer.digest,
            "patch": f"{patch}, middle cut" if is_unsaid else str(patch),  # that alone: beginning
            "task": task.spec,
            "data_digest": self.corpus.digest,
            "trained_length": self.trained_length,
            "context_length": length,
            "n": self.request.n,
            "seed": self.request.seed,
            "dtype": str(dtype).removeprefix("torch."),
            "attention": ATTENTION,
            "chunk": self.request.chunk,
            "parallel": "single process",
            "device": self.device.type,
            **({"batch": self.request.batch} if self._is_batched(patch) else {}),
        }

    def _answering(self, samples: tuple[Sample, ...]) -> dict[str, Any]:
        """What prompts and answers rest on that config and tokenizer's rules leave open."""
        found: dict[str, Any] = {}
        if any(sample.chat for sample in samples):
            found["chat"] = self.checkpoint.tokenizer.chat_digest
        answers = any(sample.until is not None for sample in samples)
        ends = self.checkpoint.other_ends if answers else None
        return found if ends is None else found | {"ends": ends}

    def _is_batched(self, patch: Patch) -> bool:
        return self.request.batch > 1 and patch.decoding is None

    def _template(self, key: dict[str, Any], task: Task, samples: tuple[Sample, ...]) -> Row:
        taken = {name: value for name, value in key.items() if name not in NOT_COLUMNS}
        asked = {sample.document for sample in samples} or self.corpus.documents
        taken["n"] = len(asked)
        return Row(
            **taken,
            metric="",
            value=None,
            ci_low=None,
            ci_high=None,
            status="",
            seconds=0.0,
            peak_memory_gib=0.0,
            position="",
            better="",
            data=self.corpus.name,
            n_scored_tokens=sum(map(task.scored_tokens, samples)),
            n_cut=sum(sample.cut != "" for sample in samples),
            metric_detail="",
            error="",
            device=device_name(self.device),
            versions=versions(),
            code=code(),
            cell=cell_id(key),
        )


def cuts(cells: Sequence[Cell]) -> list[str]:
    """What prompts of each task and length have lost, a line each where some have."""
    first = {(cell.template.task, cell.template.context_length): cell for cell in cells}
    lines = []
    for (task, length), cell in first.items():
        kinds = Counter(sample.cut for sample in cell.samples if sample.cut)
        if kinds:
            wording = f", {kinds['wording']} of them in question or instruction"
            lines.append(
                f"{task} at {render_length(length)}: {sum(kinds.values())} of {len(cell.samples)} "
                f"prompts are too long and cut{wording if kinds['wording'] else ''}"
            )
    return lines
