"""Scores of prediction files that others wrote, by each benchmark's own rules; needs no model."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from tasks.official import leval, longbench, longbench_v2, ruler
from tasks.rows import Row, few, find, read
from tasks.spec import TaskError, did_you_mean

__all__ = ["FORMATS", "Format", "Result", "find_format", "rescore"]

RULER_NAME = re.compile(
    r"(niah|vt|variable_tracking|cwe|common_words|fwe|freq_words|qa)(?![a-z])", re.IGNORECASE
)
RULER_NAMES = ("niah*", "vt*", "cwe*", "fwe*", "qa*")
DIFFICULTIES, LENGTHS = ("easy", "hard"), ("short", "medium", "long")
LETTERS = ("A", "B", "C", "D")
LEVAL_METRICS = {"exam": "exact_match", "f1": "f1", "rouge": "rouge_geometric_mean"}
LEVAL_JUDGED = ("LLM", "human")
LEVAL_THIRDS = "topic_retrieval_longchat"
Note = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """One line of the table: the mean of n rows, times 100, rounded as the benchmark does it."""

    dataset: str
    metric: str
    score: float
    n: int


@dataclass(frozen=True)
class Format:
    """Files of a benchmark: how their names end, and what scores one of them."""

    suffix: str
    summary: str
    score: Callable[[str, Sequence[Row], Note], list[Result]]


def find_format(name: str) -> Format:
    """Return the format of a name.

    Raises:
        TaskError: an unknown one.
    """
    if name not in FORMATS:
        raise TaskError(
            f"unknown format '{name}'; expected one of {', '.join(FORMATS)}"
            f"{did_you_mean(name, FORMATS)}"
        )
    return FORMATS[name]


def rescore(one: Format, directory: Path, note: Note) -> list[Result]:
    """Score every prediction file of a directory, by name.

    Args:
        one: format of the files.
        directory: where they are.
        note: told of all that does not count.

    Raises:
        TaskError: an unknown data set, or a directory, file or row that cannot be read.
    """
    files, others = find(directory, one.suffix)
    if others:
        note(f"{directory}: left out, no *{one.suffix}: {few(others)}")
    return [
        result
        for path in files
        for result in one.score(path.name.removesuffix(one.suffix), read(path), note)
    ]


def _file(rows: Sequence[Row]) -> str:
    return rows[0].where.rpartition(":")[0]


def _unknown(dataset: str, accepted: Sequence[str], rows: Sequence[Row]) -> TaskError:
    return TaskError(
        f"{_file(rows)}: unknown data set '{dataset}'{did_you_mean(dataset, accepted)}; expected "
        f"one of {', '.join(accepted)}"
    )


def _ruler(dataset: str, rows: Sequence[Row], note: Note) -> list[Result]:
    """RULER's evaluate.py: a missing answer (null) is an empty one."""
    kind = RULER_NAME.match(dataset)
    if kind is None:
        raise _unknown(dataset, RULER_NAMES, rows)
    part = kind[1].lower() == "qa"
    match = ruler.string_match_part if part else ruler.string_match_all
    scores = []
    for row in rows:
        said = "" if row.field("pred") is None else row.text("pred")
        scores.append(match(ruler.postprocess(said), row.texts("outputs", "references")))
    score = round(sum(scores) / len(scores) * 100, 2)
    return [Result(dataset, match.__name__, score, len(scores))]


def _longbench_scores(dataset: str, rows: Sequence[Row]) -> dict[str, list[float]]:
    """Scores of the rows by the data set's metric, and of code by the Levenshtein one too."""
    if dataset not in longbench.DATASETS:
        raise _unknown(dataset, tuple(longbench.DATASETS), rows)
    named = longbench.DATASETS[dataset] == "classification"
    found: dict[str, list[float]] = {longbench.DATASETS[dataset]: []}
    for row in rows:
        classes = row.texts("all_classes") if named else ()
        said, answers = row.text("pred"), row.texts("answers")
        try:
            score = longbench.row_score(dataset, said, answers, classes)
        except ValueError as error:
            raise row.error(str(error)) from None
        found[longbench.DATASETS[dataset]].append(score)
        similar = longbench.levenshtein_score(dataset, said, answers)
        if similar is not None:
            found.setdefault(longbench.LEVENSHTEIN, []).append(similar)
    return found


def _longbench(dataset: str, rows: Sequence[Row], note: Note) -> list[Result]:
    """LongBench's eval.py, whose sum has the rounding of each step: Python 3.12's `sum` has not.

    Differs: that takes the last row's `all_classes` for all; they are the same in its data.
    """
    return [
        Result(dataset, metric, round(100 * reduce(add, scores) / len(scores), 2), len(scores))
        for metric, scores in _longbench_scores(dataset, rows).items()
    ]


def _longbench_e(dataset: str, rows: Sequence[Row], note: Note) -> list[Result]:
    """LongBench's eval.py --e: a line a bucket, `hotpotqa 0-4k`; an empty bucket is nan there too.

    It averages and rounds with numpy, whose `round` is another than Python's at ties.
    """
    import numpy as np

    places = [longbench.bucket(row.number("length")) for row in rows]
    return [
        Result(
            f"{dataset} {name}",
            metric,
            float(round(100 * np.mean(values), 2)) if values else math.nan,
            len(values),
        )
        for metric, scores in _longbench_scores(dataset, rows).items()
        for name in longbench.BUCKETS
        for values in [[one for one, at in zip(scores, places, strict=True) if at == name]]
    ]


def _longbench_v2(model: str, rows: Sequence[Row], note: Note) -> list[Result]:
    """LongBench v2's result.py: a file is a model, and a line each group of it, `model easy`.

    An empty group is nan; rows that were never written are not in its denominators.
    """
    groups: dict[str, list[bool]] = {name: [] for name in ("overall", *DIFFICULTIES, *LENGTHS)}
    other = []
    for row in rows:
        right = _is_right(row)
        for group in ("overall", row.word("difficulty", DIFFICULTIES), row.word("length", LENGTHS)):
            groups[group].append(right)
        if row.fields.get("judge", right) != right:
            other.append(row.where)
    if other:
        note(f"{few(other)}: 'judge' is not what the answer scores; {len(other)} rows scored anew")
    return [
        Result(
            f"{model} {group}",
            "accuracy",
            round(100 * sum(values) / len(values), 1) if values else math.nan,
            len(values),
        )
        for group, values in groups.items()
    ]


def _is_right(row: Row) -> bool:
    """By the response; without one by the letter taken from it; without that by its judge."""
    if row.fields.get("response") is not None:
        return longbench_v2.extract_answer(row.text("response")) == row.word("answer", LETTERS)
    if "pred" in row.fields:
        letter = None if row.fields["pred"] is None else row.word("pred", LETTERS)
        return letter == row.word("answer", LETTERS)
    judge = row.field("response", "pred", "judge")
    if not isinstance(judge, bool):
        raise row.error("field 'judge' is not true or false, and no 'response' or 'pred' beside it")
    return judge


def _leval(task: str, rows: Sequence[Row], note: Note) -> list[Result]:
    """L-Eval's auto_eval.py: its LEval_score, rounded to 4 digits.

    topic_retrieval_longchat is the mean of the first, second and third questions' scores, sci_fi
    that of the answers by the document and in the world; both means stay as they are.

    Differs: that takes the last row's `evaluation` for all; here they must be the same.
    """
    if task not in leval.DATASETS:
        raise _unknown(task, leval.DATASETS, rows)
    kinds = [row.word("evaluation", (*LEVAL_METRICS, *LEVAL_JUDGED)) for row in rows]
    judged = sum(kind in LEVAL_JUDGED for kind in kinds)
    if judged:
        note(
            f"{_file(rows)}: {judged} of {len(rows)} rows left out: their evaluation needs a judge"
        )
    names = sorted({*kinds} - {*LEVAL_JUDGED})
    if len(names) != 1:
        raise TaskError(
            f"{_file(rows)}: rows with evaluation {', '.join(sorted({*kinds}))}; expected "
            f"one of {', '.join(LEVAL_METRICS)} for all"
        )
    parts: dict[int, list[tuple[str, str]]] = {}
    for place, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        if kind in LEVAL_METRICS:
            for part, pair in enumerate(_leval_pairs(task, row, rows[0])):
                parts.setdefault(place % 3 if task == LEVAL_THIRDS else part, []).append(pair)
    if task == LEVAL_THIRDS and len(parts) < 3:
        raise TaskError(f"{_file(rows)}: {len(rows)} rows; expected first, second, third by turns")
    scores = [_leval_score(names[0], pairs) for pairs in parts.values()]
    return [Result(task, LEVAL_METRICS[names[0]], sum(scores) / len(scores), len(rows) - judged)]


def _leval_pairs(task: str, row: Row, first: Row) -> list[tuple[str, str]]:
    """Read a row; the prediction is in the first row's first field with `_pred` in its name."""
    field = next((name for name in first.fields if "_pred" in name), "pred")
    if field not in first.fields:
        first.field("pred", "*_pred")
    said, meant = row.text(field), row.text("gt")
    try:
        return leval.pairs(task, said, meant)
    except ValueError as error:
        raise row.error(str(error)) from None


def _leval_score(kind: str, pairs: Sequence[tuple[str, str]]) -> float:
    if kind == "rouge":
        return round(leval.geometric_mean([leval.rouge(*pair) for pair in pairs]), 4)
    metric = leval.exact_match if kind == "exam" else leval.f1
    return round(100.0 * sum(metric(*pair) for pair in pairs) / len(pairs), 4)


FORMATS = {
    "ruler": Format(".jsonl", "TASK.jsonl with pred and outputs (or references)", _ruler),
    "longbench": Format(".jsonl", "DATASET.jsonl with pred, answers, all_classes", _longbench),
    "longbench-e": Format(".jsonl", "the same with length, by bucket of it", _longbench_e),
    "longbench-v2": Format(
        ".jsonl",
        "MODEL.jsonl with difficulty, length, answer and response, pred or judge",
        _longbench_v2,
    ),
    "leval": Format(".pred.jsonl", "TASK.pred.jsonl with *_pred (or pred), gt, evaluation", _leval),
}
