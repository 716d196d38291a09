"""The fused attention calls of torch that return the log-sum-exp, one signature for each device."""

import functools

import torch
from torch import Tensor
from torch.nn.functional import pad

from patches.spec import PatchError

__all__ = ["fused_attention", "widest"]

MOST_SCORES = 1 << 22  # held at once where no kernel gives both the cap and the log-sum-exp
FEW = 4  # most queries that are few
UNEVEN = 1.25  # most work of the busiest thread, in shares, for heads that are not cut
BLOCK, MOST_BLOCKS = 512, 8  # least keys of a block, and most blocks, that a few queries fall into
NARROW, ROWS = 1024, 32  # widest window that is faster in one call, and its queries in a block


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    is_causal: bool,
    scaling: float,
    softcap: float | None = None,
    window: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention with its log-sum-exp; causal only for q_len == kv_len.

    Args:
        query: rotated queries [batch, heads, q_len, head_dim].
        key: rotated keys [batch, kv_heads, kv_len, head_dim].
        value: values [batch, kv_heads, kv_len, value_dim].
        is_causal: query r sees keys 0..r; otherwise every key.
        scaling: softmax scale.
        softcap: bound of the scores, softcap * tanh(score / softcap); None for no bound.
        window: query r sees the keys r..r + window - 1 of q_len + window - 1; `widest` at most.

    Returns:
        Output [batch, heads, q_len, value_dim] and log-sum-exp [batch, heads, q_len].

    Raises:
        PatchError: the tensors lie on a device without such a call.
    """
    if softcap is not None:
        return capped(query, key, value, is_causal, scaling, softcap)
    head_dim, value_dim = query.shape[-1], value.shape[-1]
    if head_dim != value_dim:
        query, key, value = (widened(x, max(head_dim, value_dim)) for x in (query, key, value))
    if window is None:
        out, lse = kernel(query, key, value, is_causal, scaling)
    else:
        out, lse = cpu_window(query, key, value, window, scaling)
    return (out if head_dim == value_dim else out[..., :value_dim]), lse


def widest(device: torch.device, softcap: float | None) -> int:
    """Most keys a query that a window of one call may have; 0 where there are no such calls."""
    return NARROW if device.type in ("cpu", "meta") and softcap is None else 0


def widened(x: Tensor, width: int) -> Tensor:
    """Zeros after the last channel, up to `width`: they add nothing to scores and are cut off."""
    return x if x.shape[-1] == width else pad(x, (0, width - x.shape[-1]))


def capped(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scaling: float, softcap: float
) -> tuple[Tensor, Tensor]:
    """Attention on softcap * tanh(score / softcap), a few queries at a time."""
    precision = torch.float64 if query.dtype == torch.float64 else torch.float32
    (batch, heads, q_len, _), (kv_heads, kv_len) = query.shape, key.shape[1:3]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads, q_len, -1)
    key, value = key[:, :, None].transpose(-1, -2), value[:, :, None].to(precision)
    rows = max(1, MOST_SCORES // (batch * heads * kv_len))
    columns = torch.arange(kv_len, device=query.device)
    outs, lses = [], []
    for first in range(0, q_len, rows):
        scores = (grouped[:, :, :, first : first + rows] @ key).to(precision) * scaling
        scores = softcap * (scores / softcap).tanh()
        if is_causal:
            hidden = columns > columns[first : first + rows, None]
            scores = scores.masked_fill(hidden, -torch.inf)
        lse = scores.logsumexp(-1)
        outs.append((scores - lse[..., None]).exp() @ value)
        lses.append(lse)
    return torch.cat(outs, 3).flatten(1, 2), torch.cat(lses, 3).flatten(1, 2)


def kernel(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """The device's fused call."""
    if query.device.type in ("cpu", "meta"):  # on meta: the shapes, to count with
        if query.shape[2] <= FEW and not is_causal:
            return cpu_few(query, key, value, scaling)
        return cpu_flash(query, key, value, is_causal, scaling)
    if query.device.type == "cuda":
        half = query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256
        if half and has_flash(query.device):
            return cuda_flash(query, key, value, is_causal, scaling)
        return cuda_efficient(query, key, value, is_causal, scaling)
    raise PatchError(
        f"device '{query.device.type}': patches that change attention run on cpu and cuda; "
        "choose one of them or a patch of frequencies alone"
    )


@functools.cache
def has_flash(device: torch.device) -> bool:
    """True if FlashAttention-2 runs there; asked once, as a step calls it in every layer."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def in_one_call(key: Tensor) -> bool:
    """True if keys are too few to be cut, or its heads enough to keep all threads at work."""
    heads, threads = key.shape[0] * key.shape[1], torch.get_num_threads()
    busiest = -(-heads // threads)
    return key.shape[2] < 2 * BLOCK or busiest * threads <= UNEVEN * heads


def cpu_flash(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """The CPU's flash attention; takes grouped heads as they are."""
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = op(query, key, value, 0.0, is_causal, scale=scaling)
    return out, lse


def cpu_few(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """A few queries; blocks of many keys side by side, if that gives every thread work.

    The heads of a group stand as queries of one head, so that its keys are read once.
    """
    (batch, heads, q_len, _), (kv_heads, kv_len) = query.shape, key.shape[1:3]
    grouped, shape = query.reshape(batch, kv_heads, -1, query.shape[-1]), (batch, heads, q_len)
    if in_one_call(key):
        out, lse = cpu_flash(grouped, key, value, False, scaling)
        return out.reshape(*shape, -1), lse.reshape(shape)
    count = min(MOST_BLOCKS, kv_len // BLOCK)
    whole = kv_len // count * count
    fold = (kv_heads, count, whole // count, -1)
    outs, lses = [], []
    for row in range(batch):  # blocks of several rows are no one tensor without a copy
        q, k, v = (x[row : row + 1] for x in (grouped, key, value))
        blocks_k, blocks_v = (x[0, :, :whole].reshape(fold).transpose(0, 1) for x in (k, v))
        out, lse = cpu_flash(q.expand(count, -1, -1, -1), blocks_k, blocks_v, False, scaling)
        if whole < kv_len:
            rest = cpu_flash(q, k[:, :, whole:], v[:, :, whole:], False, scaling)
            out, lse = torch.cat((out, rest[0])), torch.cat((lse, rest[1]))
        lses.append(lse.logsumexp(0))
        outs.append(((lse - lses[-1]).exp()[..., None] * out).sum(0))
    return torch.stack(outs).reshape(*shape, -1), torch.stack(lses).reshape(shape)


def cpu_window(
    query: Tensor, key: Tensor, value: Tensor, window: int, scaling: float
) -> tuple[Tensor, Tensor]:
    """A window that moves along: blocks of queries, each with its stretch of keys and one mask.

    The stretches overlap and are views, so that a row of the batch goes alone: folded into one
    tensor they would be copied. The mask is that of a block, [ROWS, ROWS + window - 1].
    """
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    batch, heads, rows, _ = query.shape
    out = query.new_empty(batch, rows, heads, value.shape[-1]).transpose(1, 2)
    lse = out.new_empty(batch, heads, rows, dtype=torch.promote_types(out.dtype, torch.float32))
    whole = rows - rows % ROWS
    for first, stop in ((0, whole), (whole, rows)):
        if first == stop:
            continue
        size = min(ROWS, stop - first)
        offset = torch.arange(size + window - 1, device=query.device)
        offset = offset - torch.arange(size, device=query.device)[:, None]
        hidden = (offset < 0) | (offset >= window)
        mask = query.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
        for row in range(batch):
            q = query[row, :, first:stop].unfold(1, size, size)
            k, v = (
                x[row, :, first : stop + window - 1].unfold(1, size + window - 1, size)
                for x in (key, value)
            )
            blocks = (x.permute(1, 0, 3, 2) for x in (q, k, v))  # [blocks, heads, length, channels]
            parts = op(*blocks, 0.0, False, attn_mask=mask, scale=scaling)
            for into, part in zip((out, lse), parts, strict=True):
                torch.unflatten(into[row, :, first:stop], 1, (-1, size)).copy_(part.transpose(0, 1))
    return out, lse


def cuda_flash(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """FlashAttention-2; wants a head_dim divisible by 8, takes grouped heads as they are."""
    head_dim = query.shape[-1]
    if head_dim % 8:
        query, key, value = (pad(x, (0, -head_dim % 8)) for x in (query, key, value))
    op = torch.ops.aten._scaled_dot_product_flash_attention
    out, lse, *_ = op(query, key, value, 0.0, is_causal, False, scale=scaling)
    return out[..., :head_dim], lse


def cuda_efficient(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """The memory-efficient kernel, for fp32; wants as many key heads as query heads."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    op = torch.ops.aten._scaled_dot_product_efficient_attention
    out, lse, *_ = op(query, key, value, None, True, 0.0, is_causal, scale=scaling)
    return out, lse[:, :, : query.shape[2]]
