"""Tasks: data and scoring. A task yields samples and scores outputs; it never sees a model."""

import importlib
import inspect
from dataclasses import dataclass

from tasks.base import Task, TaskError
from tasks.spec import build, did_you_mean, parameters, parse_call

__all__ = ["TASKS", "Entry", "Task", "TaskError", "describe", "in_role", "kind", "parse"]


@dataclass(frozen=True)
class Entry:
    """One line of the table: the module that holds the task, and what the task measures.

    `role` marks the one task that stands for its kind where a command chooses tasks by itself:
    loss or retrieval.
    """

    module: str
    summary: str
    role: str = ""


TASKS: dict[str, Entry] = {
    "continuation": Entry("continuation", "BLEU, ROUGE and token accuracy of what really follows"),
    "facts": Entry("facts", "where someone, or a thing they took, is by facts far apart"),
    "gain": Entry("gain", "what context beyond the trained length is worth, by position"),
    "infinitebench": Entry("infinitebench", "InfiniteBench: retrieval, books, maths and code"),
    "kv": Entry("kv", "the value of one key of a JSON object of random UUIDs"),
    "leval": Entry("leval", "L-Eval: questions about long documents, closed and open-ended"),
    "lines": Entry("lines", "the number of one of many labelled lines"),
    "longbench": Entry("longbench", "LongBench's 21 data sets, English, Chinese and code"),
    "longbench-e": Entry("longbench.extended", "13 of them, by the length of the row"),
    "longbench-v2": Entry("longbench.v2", "LongBench v2: multiple choice about long texts"),
    "masked": Entry("masked", "accuracy and loss on masked tokens, for models that fill them in"),
    "needle": Entry(
        "needle", "numbers hidden in real text: single, multi-key, -value, -query", "retrieval"
    ),
    "passkey": Entry("passkey", "a number hidden in sentences that say nothing"),
    "ppl": Entry(
        "ppl", "loss on real text: same last tokens, sliding window or by position", "loss"
    ),
    "repeat": Entry("repeat", "loss and token accuracy on later copies of a short text"),
    "ruler": Entry("ruler", "RULER's 13 tasks: needles, variables, word counts, questions"),
}


def in_role(role: str) -> str:
    """The name of the task that stands for its kind."""
    return next(name for name, entry in TASKS.items() if entry.role == role)


def kind(name: str) -> type[Task]:
    """Return the class of a task.

    Raises:
        TaskError: an unknown task.
    """
    if name not in TASKS:
        raise TaskError(
            f"unknown task '{name}'; expected one of {', '.join(TASKS)}"
            f"{did_you_mean(name, TASKS)} (python -m harness list tasks)"
        )
    task: type[Task] = importlib.import_module(f"tasks.{TASKS[name].module}").TASK
    return task


def parse(spec: str) -> Task:
    """Build the task that a spec names, such as `ppl` or `ppl(protocol=sliding,stride=2k)`.

    Raises:
        TaskError: text of another form, an unknown task or parameter, a value out of range.
    """
    name, values = parse_call(spec)
    try:
        return build(kind(name), values)
    except TaskError as error:
        raise error.within(spec) from None


def describe(name: str) -> str:
    """Return what the task measures, its parameters with their defaults, and its source.

    Raises:
        TaskError: an unknown task.
    """
    task = kind(name)
    lines = [f"{name}: {TASKS[name].summary}", "", inspect.getdoc(task) or "", "", "Parameters:"]
    return "\n".join(lines + [f"  {line}" for line in parameters(task)])
