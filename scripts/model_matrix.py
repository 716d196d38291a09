"""Measures on which causal-LM types of the installed transformers patches work, and why not.

Every type of AutoModelForCausalLM's mapping is built small with random weights, in a process of
its own with a time limit, and compared with independent ways to the same logits:

    identity   the hook with the shipped frequencies against the untouched model, 24 tokens
    native     the same at 96 tokens, the model's own windows kept (native-window)
    chunked    rerope: prefill in pieces against one forward
    decode     rerope: token by token after a prefill against one forward
    frequency  ntk: native attention with other frequencies against the hook
    band       rerope: the first tokens, up to its window, against the untouched model
    window     window: the hook against the untouched model under a 4-D mask
    table      hierarchical: a longer table against a model built with that many positions
    engine     the harness: nll read in pieces and two answers generated together, without a patch
               and under rerope where the type takes it, against forwards of the whole

A column holds the largest difference of logits, divided by the largest logit if that is above 1;
`own fault` means that the untouched model does not do it either. A type works if all columns are
below 1e-4 or such and partly if the first is; of the others some take patches of frequencies alone
(`frequency` is then `native`), some those of their learned positions (`table`, measured where a
table is found), and the rest are refused.

    python scripts/model_matrix.py --csv results/models.csv
"""

import argparse
import csv
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import transformers
from model_checks import (
    MEASURES,
    TOLERANCE,
    NativeOnly,
    OwnFault,
    engine,
    learned_table,
    whole,
)
from small_models import LENGTH, TRAINED, VOCABULARY, build
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from harness.errors import HarnessError
from patches import PatchError
from patches.apply import measured
from patches.sets import rotary_sets

MEMORY = 12 << 30
NATIVE = "native"  # only there
OWN_FAULT = "own fault"  # of the untouched model
HEADER = (
    *("model_type", "class", "rotary", "layers", "outcome"),
    *MEASURES,
    *("table", "engine"),
    *("reason", "seconds", "torch", "transformers"),
)


def describe(model: Any) -> tuple[str, str]:
    """How a model rotates, and which of its layers have attention."""
    if not rotary_sets(model):
        own = any("rotary" in name for name in vars(model.config))
        return "its own code" if own else "no", ""
    try:
        rotations = measured(model)
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError):
        return "yes", ""
    words = Counter()
    for rotary, layout in rotations.values():
        if rotary is None:
            words["none"] += 1
            continue
        word = "interleaved" if layout.interleaved else "halves"
        words[
            f"{word} of {2 * rotary.inv_freq.numel()}{' last' if layout.last else ''} channels"
        ] += 1
    total = model.config.get_text_config().num_hidden_layers
    used = len({rotary for rotary, _ in rotations.values() if rotary})
    text = ", ".join(f"{count} {word}" for word, count in words.items())
    return f"{text or 'yes'}{f'; {used} sets' if used > 1 else ''}", f"{len(rotations)}/{total}"


def examine(model_type: str) -> dict[str, Any]:
    """The row of one type."""
    row: dict[str, Any] = {"model_type": model_type, "outcome": "not built"}
    try:
        model = build(model_type)
        ids = torch.randint(3, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(1))
        whole(model, ids[:, : TRAINED - 8])
    except Exception as error:  # the models of a library: anything may be raised
        return row | {"reason": one_line(error)}
    row["class"] = type(model).__name__
    row["rotary"], row["layers"] = describe(model)
    reasons = {}
    for name, measure in MEASURES.items():
        try:
            difference = measure(model, ids)
            row[name] = f"{difference:.0e}"
            if not difference <= TOLERANCE:
                reasons[name] = f"{name}: differs by {difference:.0e}"
        except Exception as error:
            kinds = {PatchError: "refused", OwnFault: OWN_FAULT, NativeOnly: NATIVE}
            row[name] = kinds.get(type(error), "failed")
            reasons[name] = one_line(error)
    row["engine"], said = of_harness(model, ids)
    fails = [name for name in reasons if row[name] != OWN_FAULT]
    row["outcome"] = "refused" if "identity" in fails else "partly" if fails else "works"
    row["reason"] = "; ".join(dict.fromkeys(reasons.values()))
    if row["outcome"] == "refused":
        row["reason"] = reasons["identity"]
        row["outcome"] = "frequencies" if row["frequency"] == NATIVE else "refused"
        row |= of_table(model, ids) if row["outcome"] == "refused" else {}
    row["reason"] = "; ".join(text for text in (row["reason"], said) if text)
    return row


def of_harness(model: Any, ids: Tensor) -> tuple[str, str]:
    """The column `engine`, and why it holds no small difference."""
    try:
        difference = engine(model, ids)
    except Exception as error:
        kinds = {PatchError: "refused", HarnessError: "refused"}
        return kinds.get(type(error), "failed"), one_line(error)
    larger = "" if difference <= TOLERANCE else f"engine: differs by {difference:.0e}"
    return f"{difference:.0e}", larger


def of_table(model: Any, ids: Tensor) -> dict[str, Any]:
    """What changes in the row of a type by its learned positions, if it has some."""
    try:
        difference = learned_table(model, ids)
    except Exception as error:
        kinds = {PatchError: "refused", OwnFault: OWN_FAULT}
        return {"table": kinds.get(type(error), "failed"), "reason": one_line(error)}
    if difference is None:
        return {}
    works = difference <= TOLERANCE
    return {"table": f"{difference:.0e}", "outcome": "positions" if works else "refused"}


def one_line(error: Exception) -> str:
    """An error's message, short."""
    text = " ".join(str(error).split())
    return (
        text
        if isinstance(error, PatchError | HarnessError | OwnFault)
        else f"{type(error).__name__}: {text}"
    )[:240]


def worker(model_type: str, sender: Connection) -> None:
    """Examine a type in this process and send its row."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
    sender.send(examine(model_type))


def examine_all(model_types: list[str], jobs: int, limit: float) -> Iterator[dict[str, Any]]:
    """Rows of all types, each from its own process; a crash or a hang is a row too."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(model_types)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            model_type = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=worker, args=(model_type, sender))
            process.start()
            sender.close()
            running[receiver] = (process, model_type, time.monotonic())
        ready = wait(list(running), timeout=0.5)
        for receiver, (process, model_type, start) in list(running.items()):
            seconds = time.monotonic() - start
            row = {"model_type": model_type, "outcome": "not built"}
            if receiver in ready:
                try:
                    row = receiver.recv()
                except EOFError:
                    process.join()
                    row["reason"] = f"its process died with code {process.exitcode}"
            elif seconds > limit:
                process.kill()
                row["reason"] = f"not done after {limit:.0f} s"
            else:
                continue
            process.join()
            del running[receiver]
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            yield row | versions | {"seconds": f"{seconds:.1f}"}


def main() -> int:
    """Write the table and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("types", nargs="*", help="model types, the rows to replace; all by default")
    parser.add_argument("--csv", help="file to write")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=120, help="seconds a type")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    types = arguments.types or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    rows = []
    for row in examine_all(types, arguments.jobs, arguments.limit):
        rows.append(row)
        cells = " ".join(f"{name}={row[name]}" for name in MEASURES if name in row)
        print(f"{row['model_type']:22} {row['outcome']:11} {cells} {row.get('reason', '')}")
    if arguments.types and arguments.csv and os.path.exists(arguments.csv):
        with open(arguments.csv, newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["model_type"] not in types]
    rows.sort(key=lambda row: row["model_type"])
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, HEADER, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    rotary = [row for row in rows if row.get("rotary", "no") != "no"]
    print("all types: ", dict(Counter(row["outcome"] for row in rows)))
    print("with rotary embeddings: ", dict(Counter(row["outcome"] for row in rotary)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
