"""What code costs, counted while it runs on tensors without values: memory, operations, bytes.

A model on the device `meta` runs its own code and computes nothing; a dispatch mode sees every
operation with its shapes. Fused attention is put in the place of torch's choice for a device, as
the `meta` device itself would choose the form with a score matrix.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["Step", "Tracker", "Work", "tracking"]

aten = torch.ops.aten
FLASH = aten._scaled_dot_product_flash_attention_for_cpu  # has shapes alone on meta, as any other
ANSWERS = (aten._local_scalar_dense.default, aten.is_nonzero.default, aten.item.default)
QUICK = {aten.logaddexp.default: aten.add.Tensor}  # same shapes; its own meta form takes 9 ms
MAPPED = 32 << 20  # blocks of glibc that leave a process when they are freed
GAPS = 1.2  # resident bytes for each of smaller blocks: what is freed between others stays


class Step(NamedTuple):
    """One kind of operation: `matmul`, `attention` or `other`, its flops and the bytes it moves."""

    kind: str
    flops: float
    moved: float


Work = Counter[Step]  # how often each is run; fractions allowed


class Tracker(TorchDispatchMode):
    """Counts while it is on: `work`, `peak` bytes alive, and `resident` with gaps on a CPU."""

    def __init__(self) -> None:
        """Nothing is alive and nothing was done."""
        super().__init__()
        self.alive = self.peak = 0
        self.resident = self._resident = 0.0
        self.work: Work = Counter()
        self._known: set[int] = set()
        self._outside: list[torch.UntypedStorage] = []  # alive, so that their ids are not reused

    def outside(self, tensors: Iterable[Tensor]) -> None:
        """Leave tensors out of the count, as those of a model that stands there anyway."""
        self._outside += [tensor.untyped_storage() for tensor in tensors]
        self._known |= set(map(id, self._outside))

    def take_work(self) -> Work:
        """What was done since the last call."""
        work, self.work = self.work, Counter()
        return work

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it. Questions to a tensor's values are answered by yes.

        transformers asks whether a mask hides nothing and whether positions are in one piece.
        """
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        inputs = [one for one in leaves if isinstance(one, Tensor)]
        if func in ANSWERS and inputs[0].is_meta:
            if inputs[0].dtype != torch.bool:
                raise NotImplementedError(f"a value of a tensor is asked for ({func})")
            return True
        out = (QUICK.get(func, func) if inputs and inputs[0].is_meta else func)(*args, **kwargs)
        made = [one for one in tree_leaves(out) if isinstance(one, Tensor)]
        for one in made:
            self._hold(one)
        if not func.is_view:
            self.work[_step(func, args, kwargs, out, inputs, made)] += 1
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known or not tensor.is_meta:
            return
        self._known.add(key)
        self.alive += size
        self._resident += _with_gaps(size)
        self.peak = max(self.peak, self.alive)
        self.resident = max(self.resident, self._resident)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size
        self._resident -= _with_gaps(size)


def _with_gaps(size: int) -> float:
    return size if size >= MAPPED else GAPS * size


def _size(tensor: Tensor) -> int:
    """Bytes of its numbers, those that a view has several times counted once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _step(
    func: Any, args: Any, kwargs: Any, out: Any, inputs: list[Tensor], made: list[Tensor]
) -> Step:
    packet = func.overloadpacket
    read = [] if packet is aten.embedding else inputs
    moved = sum(map(_size, (*read, *made)))
    if packet is FLASH:
        query, key, value = args[:3]
        pairs = query.shape[2] * key.shape[2] / (1 + any(one is True for one in args[3:]))
        width = query.shape[3] + value.shape[3]
        return Step("attention", 2.0 * query.shape[0] * query.shape[1] * pairs * width, moved)
    if packet in flop_registry:
        return Step("matmul", float(flop_registry[packet](*args, **kwargs, out_val=out)), moved)
    return Step("other", 0.0, moved)


class _Fused(TorchFunctionMode):
    """torch's attention, as the kernels of a device do it."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention and args[0].is_meta:
            return self._attend(lambda: func(*args, **kwargs), *args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        dense: Callable[[], Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """By the rules of ATen's sdp_utils: `dense` runs where no fused kernel takes the inputs."""
        is_half = query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256
        if self.device == "cuda" and enable_gqa and (attn_mask is not None or not is_half):
            return dense()
        if query.shape[-1] != value.shape[-1] and (self.device == "cpu" or attn_mask is None):
            return dense()
        if attn_mask is not None and attn_mask.dtype == torch.bool:  # kernels add their masks
            hidden = attn_mask.logical_not()
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
            attn_mask.masked_fill_(hidden, -torch.inf)
            del hidden
        out: Tensor = FLASH(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )[0]
        return out


@contextmanager
def tracking(device: str) -> Iterator[Tracker]:
    """Count what the body of a `with` does on `meta`, as it would run on `cpu` or `cuda`."""
    with torch.no_grad(), Tracker() as tracker, _Fused(device):
        yield tracker
