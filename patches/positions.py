"""Tables of absolute positions: found by what a model looks up, lengthened, and put back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from patches.base import Extent, Patch, PatchError, TableRule
from patches.checks import IDENTITY_TOKENS, few_logits, has_values, name_of
from patches.config import head_dim, trained_length
from patches.rotary import changed
from patches.sets import is_sinusoids, rotary_sets

__all__ = ["PositionTable", "lengthened", "position_tables", "tables_for"]

FEW_WORDS = 256
SAME_NORM = 2e-3  # of the mean: rows of sinusoids are equally long, those of a learned table differ


class Longer(nn.Parameter):
    """The weight of a table while a patch is on."""


@dataclass(frozen=True)
class PositionTable:
    """An embedding of absolute positions.

    Attributes:
        name: its name in the model.
        module: the embedding.
        first: row of position 0; some models keep rows before it.
        is_learned: False for sinusoids that are not trained.
    """

    name: str
    module: nn.Embedding
    first: int
    is_learned: bool

    @property
    def positions(self) -> int:
        """Number of positions that it has."""
        return len(self.module.weight) - self.first


def position_tables(model: Any) -> list[PositionTable]:
    """The embeddings of which a few tokens look up consecutive rows, wherever these begin.

    A model without values has those of its small copy, by their names.
    """
    if not has_values(model):
        modules = dict(model.named_modules())
        return [replace(one, module=modules[one.name]) for one in position_tables(small(model))]
    seen: dict[str, tuple[nn.Embedding, Tensor]] = {}
    words = model.get_input_embeddings()

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Embedding, _: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                seen[name] = module, out.reshape(-1, out.shape[-1])

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, nn.Embedding) and module is not words:
                stack.enter_context(module.register_forward_hook(watch(name)))
        few_logits(model)
    return [
        PositionTable(name, module, first, is_learned(module.weight, first))
        for name, (module, rows) in seen.items()
        if (first := first_row(module.weight, rows)) is not None
    ]


def small(model: Any) -> Any:
    """A random model of the same code and tables, with few words and layers."""
    config = deepcopy(model.config)
    text = config.get_text_config()
    text.vocab_size = max(FEW_WORDS, 1 + (getattr(text, "pad_token_id", None) or 0))
    text.num_hidden_layers = min(2, int(text.num_hidden_layers))
    with torch.random.fork_rng(devices=[]):
        return type(model)(config).eval()


def is_learned(weight: Tensor, first: int) -> bool:
    """False for sinusoids that are not trained."""
    norms = weight.detach()[first:].double().norm(dim=-1)
    differ = float(norms.std()) > SAME_NORM * float(norms.mean())
    return differ or weight.requires_grad


def first_row(weight: Tensor, rows: Tensor) -> int | None:
    """Where in a table these rows stand one after the other; None if they do not."""
    if len(rows) != IDENTITY_TOKENS or rows.shape[-1] != weight.shape[-1]:
        return None
    for first in (weight == rows[0]).all(-1).nonzero().flatten().tolist():
        if torch.equal(weight[first : first + len(rows)], rows):
            return int(first)
    return None


def tables_for(
    model: Any, patch: Patch, extent: Extent, keep: int | None
) -> Sequence[PositionTable]:
    """The tables of a model; of one that rotates, none unless a patch lengthens them.

    Args:
        model: language model.
        patch: what goes on it.
        extent: lengths of the cell.
        keep: newest input tokens that the model is given; None for all.

    Raises:
        PatchError: the model has no learned table to lengthen, one that is longer already, or fewer
            positions than it needs.
    """
    need = keep or extent.context_length
    if patch.position_table is None and (sets := rotary_sets(model)):
        longest = sets[0].longest or need
        if need > longest and not (patch.rope or patch.maps_attention):
            raise PatchError(
                f"{name_of(model)}: its sines and cosines end at {longest} positions, fewer than "
                f"the {need} tokens of the context; give a patch of frequencies or truncate, or "
                "lower --len"
            )
        return ()
    tables, trained = position_tables(model), extent.original_max_position_embeddings
    if any(isinstance(table.module.weight, Longer) for table in tables):
        raise PatchError("the model already has a patch on; compose patches with '+' instead")
    if patch.position_table and not any(table.is_learned for table in tables):
        kind = "rotary embeddings" if rotary_sets(model) else "no table of learned positions"
        raise PatchError(
            f"{name_of(model)}: has {kind}, so that '{patch}' has nothing to lengthen; choose "
            "another patch"
        )
    for table in tables:
        check_size(table, name_of(model), patch, trained, need)
    check_sinusoids(model, need)
    return tables


def check_size(table: PositionTable, model: str, patch: Patch, trained: int, need: int) -> None:
    """Refuse a table with fewer positions than a model was trained at, or than a context needs.

    Raises:
        PatchError: it has fewer.
    """
    has = f"{model}: {table.name} has {table.positions} positions"
    if trained > table.positions:
        raise PatchError(
            f"{has}, fewer than the trained length {trained}; give --trained-length "
            f"{table.positions}"
        )
    if not patch.position_table and need > table.positions:
        more = "hierarchical, which makes more, or " if table.is_learned else ""
        raise PatchError(
            f"{has}, fewer than the {need} tokens of the context; give {more}truncate, or "
            "lower --len"
        )


def check_sinusoids(model: Any, need: int) -> None:
    """Refuse sines and cosines that are added to the input and end before a context does.

    They are wider than a head, unlike those of RoPE, and as long as the config says; tables that
    models make longer themselves begin with more rows. No token is read to see: beyond the end of a
    table, CUDA would not go on.

    Raises:
        PatchError: they end.
    """
    for name, table in model.named_buffers():
        is_wide = table.ndim == 2 and table.shape[1] > head_dim(model) and need > len(table)
        if is_wide and is_sinusoids(table, table.shape[1]):
            if len(table) != trained_length(model.config):
                continue
            raise PatchError(
                f"{name_of(model)}: {name} has {len(table)} positions, fewer than the {need} "
                "tokens of the context; give truncate, or lower --len"
            )


@contextmanager
def lengthened(
    model: Any, tables: Sequence[PositionTable], rule: TableRule | None, extent: Extent
) -> Iterator[None]:
    """Give a model longer tables for the body of a `with`, and what it keeps beside them.

    Raises:
        PatchError: the model's own code reads no more than the positions that it had.
    """
    trained, length = extent.original_max_position_embeddings, extent.context_length
    if rule is None or length <= trained:
        yield
        return
    had = min(table.positions for table in tables)
    with ExitStack() as stack:
        for table in tables:
            weight = table.module.weight.detach()
            before, learned = weight[: table.first], weight[table.first :][:trained]
            longer = torch.cat((before, rule(learned.double(), length).to(weight)))
            sizes = {len(weight): len(longer), table.positions: length}
            for module in model.modules():
                for name, buffer in module.named_buffers(recurse=False):
                    if buffer.shape and buffer.shape[-1] in sizes:
                        new = continued(buffer, sizes[buffer.shape[-1]])
                        stack.enter_context(changed(module, {name: new}))
            new_weight = Longer(longer, table.module.weight.requires_grad)
            values = {"weight": new_weight, "num_embeddings": len(longer)}
            stack.enter_context(changed(table.module, values))
        if length > had and has_values(model):
            check_reads(model, had)
        yield


def continued(buffer: Tensor, size: int) -> Tensor:
    """A buffer that is as long as the table, made longer: counted on, or by distance.

    Models keep position and token type ids [.., length], which rise by a constant, and masks
    [.., length, length], which depend on the distance alone; anything else stays as it is.
    """
    had = buffer.shape[-1]
    if not buffer.is_floating_point() and buffer.dtype != torch.bool and buffer.numel() == had:
        counted = buffer[..., :1] + (buffer[..., 1:2] - buffer[..., :1]) * torch.arange(
            max(size, had), device=buffer.device
        )
        return counted if torch.equal(counted[..., :had], buffer) else buffer
    if buffer.ndim > 1 and buffer.shape[-2] == had:
        if not torch.equal(buffer[..., 1:, 1:], buffer[..., :-1, :-1]):
            return buffer
        far = torch.cat((buffer[..., 0, 1:].flip(-1), buffer[..., :, 0]), -1)  # by distance
        at = torch.arange(size, device=buffer.device)
        return far[..., (at[:, None] - at).clamp(1 - had, had - 1) + had - 1]
    return buffer


def check_reads(model: Any, had: int) -> None:
    """Read one token more than a model had positions.

    Raises:
        PatchError: it cannot.
    """
    try:
        few_logits(model, had + 1)
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError, ValueError, AssertionError) as error:
        raise PatchError(
            f"{name_of(model)}: its own code reads no more than {had} tokens "
            f"({' '.join(str(error).split())[:120]}); model not supported"
        ) from error
