"""Time and peak memory of one forward: native attention, each band method, two dense matrices.

    python scripts/bench_attention.py --len 1k,2k,4k,8k --out results/bench_attention.csv

A Llama of some `--shape` with random weights reads `--len` tokens; every method is run in turn,
`--repeats` times, in one process, and compared with the native attention of that process.
Attention alone is what a forward takes longer than one whose attention returns its queries.
The dense form is the usual one of the methods' repositories: one full score matrix for each band,
chosen from by a mask, then a softmax. It is left out above `--dense-up-to`. The floor is the time
that the least operations (scripts/floors.py) take at the rate of a square product of this machine.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from floors import forward_flops, product_rate
from rows import write_rows
from shapes import SHAPES, TRAINED_LENGTH, build
from torch import Tensor

from harness.lengths import parse_lengths
from harness.memory import free, peak_gib, reset_peak
from harness.options import use_large_pages
from patches import parse, spec
from patches.apply import Applied, apply, attention_function
from patches.base import Band, Extent, Plan, Rope
from patches.rotary import frequencies, still
from patches.rotation import rotate
from patches.sets import rotary_sets

DENSE = "dense:"
REST = "a forward without attention"
METHODS = (
    "none,logn,rerope(window=512),dense:rerope(window=512),leaky-rerope(window=512,k=16),"
    "self-extend(neighbor_window=512,group_size=8),dca(chunk_size=512,local_window=128),"
    "string(shift=512,window=128),lm-infinite(window=512),streaming(window=508),window(size=512)"
)
LINE = "{:>7} {:<46} {:<11} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>7}"


@dataclass(frozen=True)
class Run:
    """One forward: attention used, seconds, peak, and what the forward added to the memory before.

    On CPU the peak is the resident size of the process, weights and libraries included.
    """

    attention: str
    seconds: float
    peak_gib: float
    forward_gib: float


def region_mask(band: Band, length: int, device: torch.device) -> Tensor:
    """The band's pairs as a mask [length, length]."""
    bounds = torch.tensor([band.region.interval(i) for i in range(length)], device=device)
    columns = torch.arange(length, device=device)
    return (columns >= bounds[:, :1]) & (columns < bounds[:, 1:])


def dense_attention(plan: Plan, length: int, device: torch.device) -> Any:
    """An attention function that holds one score matrix for each band."""
    masks = [region_mask(band, length, device) for band in plan.bands]
    at = torch.arange(length, device=device, dtype=torch.float64)

    def function(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any
    ) -> tuple[Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = None
        for band, visible in zip(plan.bands, masks, strict=True):
            q = rotate(query, band.query_position(at), plan.rope)
            k = key if band.key_position is None else rotate(key, band.key_position(at), plan.rope)
            own = q @ k.transpose(2, 3) * scaling  # [batch, heads, q_len, kv_len]
            scores = own if scores is None else torch.where(visible, own, scores)
        assert scores is not None
        hidden = ~torch.stack(masks).any(0)
        out = scores.masked_fill_(hidden, -torch.inf).float().softmax(-1).to(value.dtype) @ value
        return out.transpose(1, 2).contiguous(), None

    return function


def without_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """The queries where an attention's output would be."""
    return query.transpose(1, 2).contiguous(), None


@contextmanager
def patched(model: Any, method: str, length: int) -> Iterator[Applied]:
    """The method on the model, in its dense form if its name says so."""
    if method == REST:
        with attention_function(model, without_attention, None):
            yield Applied("none")
        return
    if not method.startswith(DENSE):
        with apply(model, parse(method), length) as applied:
            yield applied
        return
    (rotary,) = rotary_sets(model)
    rope = Rope(rotary.inv_freq.clone(), 1.0, 10000.0)
    plan = parse(method.removeprefix(DENSE)).resolve(rope, Extent(length, TRAINED_LENGTH, 64))
    function = dense_attention(plan, length, model.device)
    with frequencies({rotary: still(rotary)}), attention_function(model, function, None):
        yield Applied("dense")


@torch.inference_mode()
def measure(model: Any, method: str, ids: Tensor) -> Run:
    """One forward."""
    with patched(model, method, ids.shape[1]) as applied:
        free(ids.device)
        reset_peak(ids.device)
        before = peak_gib(ids.device)
        start = time.perf_counter()
        model(ids, use_cache=False, logits_to_keep=1)
        if ids.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    peak = peak_gib(ids.device)
    return Run(applied.attention, seconds, peak, peak - before)


def bench(model: Any, length: int, methods: list[str], repeats: int) -> list[dict[str, Any]]:
    """One row a method; methods take turns, so that a slow spell hits them all."""
    ids = torch.arange(length, device=model.device)[None] * 7919 % model.config.vocab_size
    rate = product_rate(model.dtype, model.device)
    measure(model, methods[0], ids)  # warm-up
    runs: dict[str, list[Run]] = {method: [] for method in [REST, *methods]}
    for _, method in itertools.product(range(repeats), runs):
        runs[method].append(measure(model, method, ids))
    rest, native = medians(runs.pop(REST)).seconds, medians(runs[methods[0]])
    rows = []
    for method, measured in runs.items():
        own = medians(measured)
        flops = forward_flops(model.config, method.removeprefix(DENSE), length, TRAINED_LENGTH)
        rows.append(
            {
                "length": length,
                "patch": method,
                "attention": own.attention,
                "seconds": round(own.seconds, 3),
                "times_native": round(own.seconds / native.seconds, 3),
                "attention_seconds": round(own.seconds - rest, 3),
                "times_native_attention": round((own.seconds - rest) / (native.seconds - rest), 3),
                "peak_gib": round(own.peak_gib, 3),
                "times_native_peak": round(own.peak_gib / native.peak_gib, 3),
                "forward_gib": round(own.forward_gib, 3),
                "times_native_forward": round(own.forward_gib / native.forward_gib, 3),
                "gflop": round(flops / 1e9, 1),
                "floor_seconds": round(flops / rate, 3),
                "of_product_rate": round(flops / rate / own.seconds, 3),
                "runs": repeats,
                "width": model.config.hidden_size,
                "layers": model.config.num_hidden_layers,
                "dtype": str(model.dtype).removeprefix("torch."),
                "device": torch.cuda.get_device_name() if ids.is_cuda else "cpu",
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    return rows


def medians(measured: list[Run]) -> Run:
    """Medians of the runs of one method."""
    return Run(
        measured[0].attention,
        statistics.median(run.seconds for run in measured),
        statistics.median(run.peak_gib for run in measured),
        statistics.median(run.forward_gib for run in measured),
    )


def main() -> int:
    """Run the benchmark and write its table to stdout and, if asked, to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--len", default="1k,2k,4k,8k", help="lengths (default: %(default)s)")
    parser.add_argument("--patch", default=METHODS, help="methods (default: %(default)s)")
    parser.add_argument("--dense-up-to", default="4k", help="longest dense run (default: 4k)")
    parser.add_argument("--shape", choices=SHAPES, default="135m", help="of the model")
    parser.add_argument("--layers", type=int, help="layers (default: those of the shape)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--dtype", default="float32", help="torch dtype (default: float32)")
    parser.add_argument("--out", type=Path, help="CSV file")
    args = parser.parse_args()
    use_large_pages()  # as every run does
    model = build(args.shape, args.layers, getattr(torch, args.dtype), args.device)
    (dense_up_to,) = parse_lengths(args.dense_up_to)
    rows: list[dict[str, Any]] = []
    print(
        LINE.format(
            "length",
            "patch",
            "attention",
            "seconds",
            "x native",
            "attention",
            "x native",
            "GiB",
            "x native",
            "forward",
            "x native",
            "GFLOP",
            "floor",
            "of rate",
        )
    )
    for length in parse_lengths(args.len):
        methods = spec.split_specs(args.patch)
        methods = [m for m in methods if not m.startswith(DENSE) or length <= dense_up_to]
        for row in bench(model, length, methods, args.repeats):
            rows.append(row)
            print(LINE.format(*list(row.values())[:14]), flush=True)
    if args.out:
        write_rows(args.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
