"""The fused calls: against a plain softmax on CPU, and CUDA against CPU."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.forecast.tracker import tracking
from patches import kernels, parse
from patches.attention import attend
from patches.base import Extent, Rope
from patches.kernels import fused_attention, widest
from patches.spec import PatchError

SHAPES = [  # heads, kv_heads, q_len, kv_len, head_dim, is_causal
    (4, 4, 33, 33, 16, True),
    (6, 2, 65, 65, 20, True),
    (6, 2, 1, 77, 64, False),
    (8, 1, 1, 1, 64, True),
    (9, 3, 50, 131, 64, False),
    (4, 2, 7, 40, 128, False),
    (9, 3, 1, 1024, 64, False),  # few queries, many keys: in blocks
    (4, 4, 1, 5003, 16, False),
    (6, 2, 4, 1537, 20, False),
    (6, 2, 3, 40, 20, False),
]
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(heads: int, kv_heads: int, q_len: int, kv_len: int, head_dim: int) -> Tensors:
    """Random query, key and value, batch 2, not contiguous."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int, length: int) -> torch.Tensor:
        return torch.randn(2, length, count, head_dim, generator=generator).transpose(1, 2)

    return draw(heads, q_len), draw(kv_heads, kv_len), draw(kv_heads, kv_len)


@pytest.mark.parametrize("uneven", [1000, 0], ids=["in one call", "in blocks"])
@pytest.mark.parametrize(("heads", "kv_heads", "q_len", "kv_len", "head_dim", "is_causal"), SHAPES)
def test_cpu_equals_a_plain_softmax(
    heads: int,
    kv_heads: int,
    q_len: int,
    kv_len: int,
    head_dim: int,
    is_causal: bool,
    uneven: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "UNEVEN", uneven)
    query, key, value = inputs(heads, kv_heads, q_len, kv_len, head_dim)
    out, lse = fused_attention(query, key, value, is_causal=is_causal, scaling=0.3)
    key, value = (x.repeat_interleave(heads // kv_heads, 1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * 0.3
    if is_causal:
        scores = scores.masked_fill(torch.ones(q_len, kv_len).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ value, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rows", [1, 5, 32, 33, 64, 131])
@pytest.mark.parametrize("window", [1, 2, 31, 40, 600])
def test_a_window_equals_a_plain_softmax(rows: int, window: int) -> None:
    query, key, value = inputs(6, 2, rows, rows + window - 1, 20)
    out, lse = fused_attention(query, key, value, is_causal=False, scaling=0.3, window=window)
    key, value = (x.repeat_interleave(3, 1) for x in (key, value))
    seen = torch.ones(rows, rows + window - 1).tril(window - 1).triu().bool()
    assert seen.sum(1).tolist() == [window] * rows
    scores = (query @ key.transpose(2, 3) * 0.3).masked_fill(~seen, -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ value, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse, scores.logsumexp(-1), atol=1e-5, rtol=0)


def test_only_narrow_windows_of_plain_scores_on_cpu_are_one_call() -> None:
    assert widest(torch.device("cpu"), None) == widest(torch.device("meta"), None) >= 512
    assert widest(torch.device("cuda"), None) == widest(torch.device("cpu"), 20.0) == 0


def test_a_window_holds_no_copy_of_its_keys() -> None:
    query, key, value = (x.to("meta") for x in inputs(6, 2, 4096, 4096 + 511, 64))
    with tracking("cpu") as tracker:
        fused_attention(query, key, value, is_causal=False, scaling=0.3, window=512)
    assert tracker.peak < 5 * query.numel() * 4


def test_other_devices_are_refused() -> None:
    with FakeTensorMode():
        x = torch.empty(1, 1, 2, 8, device="xpu")
        with pytest.raises(PatchError, match=r"device 'xpu': .* run on cpu and cuda"):
            fused_attention(x, x, x, is_causal=True, scaling=1.0)


def test_without_values_the_shapes_are_those_of_the_cpu() -> None:
    shapes = []
    for device in ("cpu", "meta"):
        query, key = (torch.ones(2, heads, 5, 8, device=device) for heads in (4, 2))
        out, lse = fused_attention(query, key, key, is_causal=True, scaling=1.0)
        assert out.device.type == device
        shapes.append((out.shape, lse.shape))
    assert shapes[0] == shapes[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "kv_heads", "q_len", "kv_len", "head_dim", "is_causal"), SHAPES)
def test_cuda_kernels_equal_cpu(
    heads: int,
    kv_heads: int,
    q_len: int,
    kv_len: int,
    head_dim: int,
    is_causal: bool,
    dtype: torch.dtype,
) -> None:
    tensors = [x.to(dtype) for x in inputs(heads, kv_heads, q_len, kv_len, head_dim)]
    wanted = fused_attention(*(x.float() for x in tensors), is_causal=is_causal, scaling=0.3)
    got = fused_attention(*(x.cuda() for x in tensors), is_causal=is_causal, scaling=0.3)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.float().cpu(), other, atol=tolerance, rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "spec",
    ["rerope(window=9)+logn", "window(size=1)", "window(size=37)+sinks", "dca", "self-extend"],
)
def test_cuda_bands_equal_cpu_whole_in_pieces_and_decoding(spec: str, dtype: torch.dtype) -> None:
    length = 203
    query, key, value = (x.to(dtype) for x in inputs(6, 2, length, length, 32))
    rope = Rope(1e4 ** -(torch.arange(0, 32, 2) / 32), 1.0, 1e4)
    plan = parse(spec).resolve(rope, Extent(length, 64, 32))
    wanted = attend(query.float(), key.float(), value.float(), plan, scaling=0.2)
    q, k, v = (x.cuda() for x in (query, key, value))
    bounds = [0, 50, 131, 202, 203]
    pieces = [
        attend(q[:, :, a:b], k[:, :, :b], v[:, :, :b], plan, scaling=0.2, q_start=a)
        for a, b in itertools.pairwise(bounds)
    ]
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    for got in (attend(q, k, v, plan, scaling=0.2), torch.cat(pieces, 2)):
        torch.testing.assert_close(got.float().cpu(), wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_memory_grows_with_the_length_not_its_square() -> None:
    rope = Rope(1e4 ** -(torch.arange(0, 64, 2) / 64), 1.0, 1e4)
    peaks = []
    for length in (8192, 32768):
        x = torch.randn(1, 4, length, 64, device="cuda", dtype=torch.bfloat16)
        plan = parse("rerope").resolve(rope, Extent(length, 2048, 64))
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend(x, x, x, plan, scaling=0.1)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 5 * peaks[0]
