"""Time of one decoding step of each patch, as a ratio to the unpatched model of the same run.

    python scripts/bench_decode.py --len 8k --out results/bench_decode.csv

A Llama of some `--shape` with random weights takes `--steps` steps behind `--len` tokens of random
keys and values, in `--repeats` rounds that alternate between the patches. Medians and fastest steps
are written; the first step of a round, which rotates all keys once, is not counted. With the shape
`narrow` there is nothing to compute, and a step is the calls that it makes: what it costs on a
device that is faster than its calls.
The floor is the time that reading the weights and the visible keys and values once takes, at the
rate of a sum over 1 GiB (scripts/floors.py).
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from floors import read_rate, step_bytes
from rows import write_rows
from shapes import SHAPES, build

import patches
from harness.cache import RowCache
from harness.lengths import parse_lengths
from harness.options import use_large_pages
from harness.plan import resolve_device
from patches.apply import apply
from patches.spec import split_specs

PATCHES = "none,ntk,logn,rerope,rerope+logn,leaky-rerope,self-extend,dca,string,lm-infinite,"
PATCHES += "streaming"
FIELDS = ("patch", "device", "dtype", "threads", "width", "layers", "length", "median_ms", "ratio")
FIELDS += ("fastest_ms", "fastest_ratio", "mib", "floor_ms")
TRAINED = 2048


def filled(model: Any, length: int, room: int) -> RowCache:
    """A cache of random keys and values."""
    config = model.config
    shape = (
        1,
        config.num_key_value_heads,
        length,
        config.hidden_size // config.num_attention_heads,
    )
    states = torch.randn(shape, device=model.device, dtype=model.dtype)
    cache = RowCache(1, length + room)
    for layer in range(config.num_hidden_layers):
        cache.update(states, states, layer)
    return cache


@torch.inference_mode()
def steps(model: Any, spec: str, length: int, count: int) -> Iterator[float]:
    """Seconds of each step but the first."""
    ids = torch.tensor([[5]], device=model.device)
    with apply(model, patches.parse(spec), length + count + 1, trained=TRAINED):
        cache = filled(model, length, count + 1)
        for index in range(count + 1):
            start = time.perf_counter()
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            if index:
                yield time.perf_counter() - start


def main() -> None:
    """Measure all patches at all lengths, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patch", default=PATCHES)
    parser.add_argument("--len", default="8k")
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_large_pages()  # as every run does
    device = resolve_device(options.device)
    model = build(options.shape, None, getattr(torch, options.dtype), str(device))
    specs, rows = split_specs(options.patch), []
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    rate, size = read_rate(device), torch.empty(0, dtype=model.dtype).element_size()
    for length in parse_lengths(options.len):
        times: dict[str, list[float]] = {spec: [] for spec in specs}
        for _ in range(options.repeats):
            for spec in specs:
                times[spec] += steps(model, spec, length, options.steps)
        median = {spec: 1e3 * statistics.median(some) for spec, some in times.items()}
        fastest = {spec: 1e3 * min(some) for spec, some in times.items()}
        for spec in specs:
            read = step_bytes(model.config, spec, length, TRAINED, size)
            figures = (
                round(median[spec], 2),
                round(median[spec] / median[specs[0]], 3),
                round(fastest[spec], 2),
                round(fastest[spec] / fastest[specs[0]], 3),
                round(read / 2**20, 1),
                round(1e3 * read / rate, 2),
            )
            size_of = (model.config.hidden_size, model.config.num_hidden_layers)
            values = (spec, name, options.dtype, torch.get_num_threads(), *size_of, length)
            rows.append(dict(zip(FIELDS, (*values, *figures), strict=True)))
            print(f"{length:7} {spec:16} {figures[0]:9.2f} ms {figures[1]:6.3f} x", end="  ")
            print(f"fastest {figures[2]:9.2f} ms {figures[3]:6.3f} x", end="  ")
            print(f"{figures[4]:7.0f} MiB, floor {figures[5]:6.2f} ms", flush=True)
    if options.out:
        write_rows(options.out, rows)


if __name__ == "__main__":
    main()
