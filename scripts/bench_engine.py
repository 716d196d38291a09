"""Speed of generation: answers together against one by one, a step's and a second question's cost.

    python scripts/bench_engine.py --len 2k --batch 8 --out results/bench_engine.csv

All figures are ratios within one run, medians of `--repeats` rounds that alternate between the
ways. Prompts are as long as leaves room for the longest answer. "Prompts alone" is what no batch
saves: they are read one by one either way. Rows of unequal length lack up to a quarter of the
prompt. The first row is that of the command itself: a cell of one document from the start of Python
to its line in the journal. Writes a CSV with a row a measurement.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rows import write_rows

import patches
from harness.checkpoint import open_checkpoint
from harness.engine import Engine
from harness.generate import Batch, Prompt, Row, generate
from harness.lengths import parse_lengths
from harness.options import use_large_pages
from harness.plan import resolve_device
from patches.apply import apply
from patches.spec import split_specs
from tasks.corpus import load

FIELDS = ("model", "patch", "device", "threads", "length", "measure", "seconds", "ratio", "to")
QUESTION, QUESTIONS = 32, 9  # tokens, questions about one document
SHORT = 512  # tokens of the command's cell


def documents(tokenizer: Any, length: int, count: int) -> list[list[int]]:
    """Prompts of `length` tokens from neighbouring places of the default corpus."""
    text = tokenizer.encode(load(None, 1).documents[0].text)
    head = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    size = length - len(head)
    return [[*head, *text[place * size : (place + 1) * size]] for place in range(count)]


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each way; the rounds alternate, the first one is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(some) for name, some in times.items()}


@torch.inference_mode()
def steps(engine: Engine, prompts: Sequence[list[int]], new: int) -> list[Any]:
    """A decoding step of rows of equal and of unequal length, which take turns."""

    def stepping(prompts: Sequence[list[int]]) -> Callable[[], object]:
        batch = Batch(engine, [Row(Prompt(one, new), one) for one in prompts])
        chosen = batch.read().argmax(-1)
        return lambda: batch.step(chosen)

    cut = [one[index * len(one) // (4 * len(prompts)) :] for index, one in enumerate(prompts)]
    equal, unequal = (f"a step of {len(prompts)} {kind} rows" for kind in ("equal", "unequal"))
    times = medians({equal: stepping(prompts), unequal: stepping(cut)}, new - 1)
    return [(name, found, found / times[equal], equal) for name, found in times.items()]


def measure(engine: Engine, tokenizer: Any, length: int, options: argparse.Namespace) -> list[Any]:
    """(measure, seconds, ratio, to what) of one patch at one length."""
    news = parse_lengths(options.new)
    several = documents(tokenizer, length - max(news), options.batch)
    first, other = documents(tokenizer, length - QUESTION - 1, 2)
    starts = range(0, QUESTIONS * QUESTION, QUESTION)
    asked = [[*first, *other[start : start + QUESTION]] for start in starts]

    def run(prompts: Sequence[list[int]], new: int = 1, batch: int = 1) -> Callable[[], object]:
        given = [Prompt(one, new) for one in prompts]
        return lambda: list(generate(engine, given, None, batch))

    alone = {new: f"{new} tokens each, one by one" for new in news}
    together = {new: f"{new} tokens each, {options.batch} together" for new in news}
    times = medians(
        {"prompts alone": run(several)}
        | {alone[new]: run(several, new) for new in news}
        | {together[new]: run(several, new, options.batch) for new in news}
        | {"one question": run(asked[:1]), "all questions": run(asked)},
        options.repeats,
    )
    found = []
    for new in news:
        base = times[alone[new]]
        found += [
            (name, times[name], times[name] / base, alone[new])
            for name in (alone[new], together[new], "prompts alone")
        ]
    one = times["one question"]
    more = (times["all questions"] - one) / (QUESTIONS - 1)
    return [
        *found,
        *steps(engine, several, max(news)),
        ("a document's first question", one, 1.0, "itself"),
        ("a further question", more, more / one, "its first"),
    ]


def whole_command(options: argparse.Namespace) -> float:
    """Median seconds of a run of one cell in a new process."""
    command = [sys.executable, "-m", "harness", "--model", options.model, "--patch", "none"]
    command += ["--len", str(SHORT), "--n", "1", "--device", options.device]

    def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([*command, "--out", directory], check=True, capture_output=True)

    return medians({"": run}, options.repeats)[""]


def main() -> None:
    """Measure all patches at all lengths, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--patch", default="none,ntk,rerope+logn,streaming")
    parser.add_argument("--len", default="2k")
    parser.add_argument("--new", default="64,128", help="tokens of an answer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_large_pages()  # as every run does
    device = resolve_device(options.device)
    checkpoint = open_checkpoint(options.model)
    model = checkpoint.load(checkpoint.dtype(options.dtype, device), device)
    engine = Engine(model, None, device, checkpoint.tokenizer.bos_id)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    seconds = whole_command(options)
    values = (options.model, "none", name, torch.get_num_threads(), SHORT, "load and first row")
    rows = [dict(zip(FIELDS, (*values, round(seconds, 5), 1.0, "itself"), strict=True))]
    print(f"{SHORT:6} {'none':14} {'load and first row':40} {seconds:9.4f} s")
    for length in parse_lengths(options.len):
        for spec in split_specs(options.patch):
            with apply(model, patches.parse(spec), length):
                found = measure(engine, checkpoint.tokenizer, length, options)
            for what, seconds, ratio, to in found:
                values = (options.model, spec, name, torch.get_num_threads(), length, what)
                figures = (round(seconds, 5), round(ratio, 3), to)
                rows.append(dict(zip(FIELDS, (*values, *figures), strict=True)))
                print(f"{length:6} {spec:14} {what:40} {seconds:9.4f} s {ratio:7.3f} x {to}")
    if options.out:
        write_rows(options.out, rows)
        print(options.out, file=sys.stderr)


if __name__ == "__main__":
    main()
