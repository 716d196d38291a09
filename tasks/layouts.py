"""Answers as the files of predictions that each benchmark's own code writes, and scores.

Source: pred.py of LongBench and of LongBench v2 (github.com/THUDM/LongBench), RULER's
scripts/pred/call_api.py (github.com/NVIDIA/RULER), L-Eval's Baselines/llama2-chat-test.py
(github.com/OpenLMLab/LEval).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.base import Sample
from tasks.official.longbench_v2 import extract_answer
from tasks.spec import TaskError, did_you_mean

__all__ = ["LAYOUTS", "Answer", "Files", "find_layout"]

Files = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Answer:
    """What a model said to a sample: `text`; `tail` is the end of its prompt of `tokens` tokens."""

    sample: Sample
    text: str
    tail: str = ""
    tokens: int = 0


Layout = Callable[[Sequence[Answer], str], Files]


def find_layout(name: str) -> Layout:
    """Return what makes the files of the task of this name: answers and a model's name to rows.

    Raises:
        TaskError: an unknown one.
    """
    if name not in LAYOUTS:
        raise TaskError(
            f"unknown format '{name}'; expected one of {', '.join(LAYOUTS)}"
            f"{did_you_mean(name, LAYOUTS)}"
        )
    return LAYOUTS[name]


def _part(answer: Answer) -> str:
    """The data set: the first word of a sample's position."""
    return answer.sample.position.split(" ")[0]


def _longbench(answers: Sequence[Answer], model: str) -> Files:
    """pred/MODEL/DATASET.jsonl, of LongBench-E pred_e/MODEL/DATASET.jsonl."""
    files: Files = {}
    for answer in answers:
        sample = answer.sample
        classes = [*sample.classes] or None
        row = {"pred": answer.text, "answers": [*sample.references], "all_classes": classes}
        files.setdefault(f"{_part(answer)}.jsonl", []).append({**row, **sample.fields})
    return files


def _longbench_v2(answers: Sequence[Answer], model: str) -> Files:
    """results/MODEL.jsonl.

    Differs: an empty answer is a row, where the benchmark leaves it out; the context is left out.
    """
    rows = []
    for answer in answers:
        response, right = answer.text.strip(), answer.sample.fields["answer"]
        letter = extract_answer(response)
        rows.append({**answer.sample.fields, "response": response, "pred": letter})
        rows[-1]["judge"] = letter == right
    return {f"{model}.jsonl": rows}


def _ruler(answers: Sequence[Answer], model: str) -> Files:
    """MODEL/BENCHMARK/LENGTH/pred/TASK.jsonl. Differs: `input` is the end of the prompt."""
    files: Files = {}
    for answer in answers:
        rows = files.setdefault(f"{_part(answer)}.jsonl", [])
        row = {"index": len(rows), "pred": answer.text, "input": answer.tail}
        rows.append({**row, "outputs": [*answer.sample.references], "length": answer.tokens})
    return files


def _leval(answers: Sequence[Answer], model: str) -> Files:
    """Predictions/METRIC/MODEL/TASK.pred.jsonl.

    A statement of sci_fi is asked by the story and in the world: both answers are one row.
    """
    files: Files = {}
    for answer in answers:
        if answer.sample.fields:
            row = {**answer.sample.fields, f"{model}_pred": answer.text}
            files.setdefault(f"{_part(answer)}.pred.jsonl", []).append(row)
    in_world = [answer for answer in answers if not answer.sample.fields]
    for row, answer in zip(files.get("sci_fi.pred.jsonl", []), in_world, strict=True):
        row[f"{model}_pred"] += f" [fact: {answer.text}]"
    return files


LAYOUTS: dict[str, Layout] = {
    "ruler": _ruler,
    "longbench": _longbench,
    "longbench-e": _longbench,
    "longbench-v2": _longbench_v2,
    "leval": _leval,
}
