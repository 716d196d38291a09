"""Peak memory of reading a long document in chunks: each patch against the model without one.

    python scripts/bench_memory.py --len 8k,16k,32k,64k --out results/bench_memory.csv

A Llama of some `--shape` with random weights scores the last 256 of `--len` tokens.
Every measurement has a process of its own. The slope is what each 1k tokens more add, from one
length to the next; its floor is what the keys and values of 1k tokens take.
"""

import argparse
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
from floors import kept_bytes
from rows import write_rows
from shapes import SHAPES, TRAINED_LENGTH, build, shape

from harness.engine import Engine
from harness.lengths import parse_lengths
from harness.memory import free, peak_gib, reset_peak
from harness.options import use_large_pages
from patches import parse
from patches.apply import apply
from patches.spec import split_specs

PATCHES = (
    "none,yarn,logn,rerope(window=512)+logn,self-extend(neighbor_window=512,group_size=8),"
    "dca(chunk_size=512,local_window=128),streaming(window=508)"
)
SCORED = 256
MIB = 1024**2
LINE = "{:>7} {:<46} {:>9} {:>9} {:>9} {:>14} {:>9}"
FIELDS = ("length", "patch", "peak_gib", "times_native_peak", "added_gib", "slope_mib_per_1k")


def measure(job: tuple[int, str, int, str, int | None, str, str]) -> tuple[float, float]:
    """Peak of one reading, and what it adds to the weights and libraries, in GiB."""
    length, patch, chunk, name, layers, dtype, device_name = job
    device = torch.device(device_name)
    model = build(name, layers, getattr(torch, dtype), device_name)
    tokens = (torch.arange(length) * 7919 % model.config.vocab_size).tolist()
    with apply(model, parse(patch), length, TRAINED_LENGTH) as applied:
        free(device)
        reset_peak(device)
        before = peak_gib(device)
        Engine(model, chunk, device).score(tokens, length - SCORED, applied.keep)
    return peak_gib(device), peak_gib(device) - before


def main() -> int:
    """Measure, print, and write the table if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--len", default="8k,16k,32k,64k", help="lengths (default: %(default)s)")
    parser.add_argument(
        "--patch", default=PATCHES, help="patches; the first is what others are compared with"
    )
    parser.add_argument("--chunk", type=int, default=1024, help="tokens a forward (default: 1024)")
    parser.add_argument("--shape", choices=SHAPES, default="135m", help="of the model")
    parser.add_argument("--layers", type=int, help="layers (default: those of the shape)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--dtype", default="float32", help="torch dtype (default: float32)")
    parser.add_argument("--out", type=Path, help="CSV file")
    args = parser.parse_args()
    use_large_pages()  # as every run does, here in the processes that measure
    size = torch.empty(0, dtype=getattr(torch, args.dtype)).element_size()
    config = shape(args.shape, args.layers)
    about = {
        "floor_mib_per_1k": round(kept_bytes(config, 1024, size) / MIB, 3),
        "chunk": args.chunk,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "dtype": args.dtype,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(f"keys and values: {about['floor_mib_per_1k']} MiB for 1k tokens")
    print(LINE.format("length", "patch", "GiB", "x native", "added", "MiB for 1k", "x floor"))
    rows: list[dict[str, Any]] = []
    last: dict[str, tuple[int, float]] = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for length in parse_lengths(args.len):
            native = 0.0
            for patch in split_specs(args.patch):
                job = (length, patch, args.chunk, args.shape, args.layers, args.dtype, args.device)
                peak, added = pool.apply(measure, (job,))
                native = native or peak
                slope = None
                if patch in last:
                    shorter, less = last[patch]
                    slope = round((peak - less) * 1024 * 1024 / (length - shorter), 3)
                last[patch] = length, peak
                values = (
                    length,
                    patch,
                    round(peak, 3),
                    round(peak / native, 3),
                    round(added, 3),
                    slope,
                )
                rows.append(dict(zip(FIELDS, values, strict=True)) | about)
                times = "" if slope is None else round(slope / about["floor_mib_per_1k"], 2)
                print(LINE.format(*values[:5], "" if slope is None else slope, times), flush=True)
    if args.out:
        write_rows(args.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
