"""InfiniteBench's scores of one answer, by data set.

Source: Zhang et al. 2024, https://arxiv.org/abs/2402.13718, and the benchmark's
src/compute_scores.py (github.com/OpenBMB/InfiniteBench, MIT).

Differs: `3.5` where an integer is asked for raises there, and is 0 here. There are no recorded
values of the benchmark's own code to compare with; earlier versions of it kept the blanks in front
of a choice, and its cue `correct option is:` is never looked at, because `is:` is found before.
"""

import re
from collections import Counter
from collections.abc import Sequence
from importlib import import_module

from tasks.official.longbench import ALL_PUNCTUATION, qa_f1

__all__ = ["DATASETS", "score"]

DATASETS = (
    "passkey",
    "number_string",
    "kv_retrieval",
    "longbook_sum_eng",
    "longbook_choice_eng",
    "longbook_qa_eng",
    "longbook_qa_chn",
    "longdialogue_qa_eng",
    "math_find",
    "math_calc",
    "code_run",
    "code_debug",
)
DIGITS = re.compile(r"[0-9]+")
NUMBER = re.compile(r"\d+\.\d+|\d+")
LETTERS = "ABCD"
CHOICE_CUES = ("answer is:", "answer:", "answer is", "option is")
DEBUG_CUES = ("answer is:", "is:", "answer:")
DEBUG_NOISE = ("\n", "`", "'", '"', "-", "*", "Option", "option")


def score(dataset: str, prediction: str, references: Sequence[str]) -> float:
    """Score an answer in [0, 1].

    Args:
        dataset: name in DATASETS.
        prediction: what the model said.
        references: accepted answers; of a choice (longbook_choice_eng, code_debug) its text and its
            letter, of math_calc all numbers in order.

    Raises:
        ValueError: a reference that is no number where there has to be one.
    """
    first = references[0]
    if dataset in ("passkey", "number_string"):
        return float(next(iter(DIGITS.findall(prediction)), "") == first)
    if dataset == "kv_retrieval":
        return float(first in _words(prediction, "\n:\"'.,?!{}"))
    if dataset == "longdialogue_qa_eng":
        return float(first in _words(prediction.upper(), "\n:\"'.,?!{}"))
    if dataset == "code_run":
        return float(_last_integer(prediction) == int(first))
    if dataset == "math_find":
        return _first_number(prediction, first)
    if dataset == "math_calc":
        return _agreeing(prediction, [int(one) for one in references])
    if dataset == "longbook_choice_eng":
        return _choice(prediction, references)
    if dataset == "code_debug":
        return _debug(prediction, references)
    measure = {"longbook_qa_eng": qa_f1, "longbook_qa_chn": _f1_zh, "longbook_sum_eng": _rouge_lsum}
    return max(measure[dataset](prediction, one) for one in references)


def _words(text: str, noise: str) -> list[str]:
    return text.translate(dict.fromkeys(map(ord, noise), " ")).split()


def _last_integer(prediction: str) -> int | None:
    """The last word, without quotes, full stops and colons, if it is an integer."""
    words = _words(prediction.strip(), "\n.`'\":")
    try:
        return int(words[-1]) if words else None
    except ValueError:
        return None


def _first_number(prediction: str, reference: str) -> float:
    """Whether the first number, without its sign, is the reference."""
    found = NUMBER.search(prediction)
    if found is None:
        return 0.0
    if "." in reference:
        return float(float(found[0]) == float(reference))
    return float("." not in found[0] and int(found[0]) == int(reference))


def _agreeing(prediction: str, numbers: Sequence[int]) -> float:
    """Share of the numbers before the first that is wrong; signs do not count."""
    said = [int(digits) for digits in DIGITS.findall(prediction)]
    right = 0
    for one, other in zip(said, numbers, strict=False):
        if one != other:
            break
        right += 1
    return right / len(numbers)


def _choice(prediction: str, references: Sequence[str]) -> float:
    """A letter in front, the choice itself, what follows a cue, or the first word in `ABCD`."""
    prediction = prediction.strip()
    if not prediction:
        return 0.0
    if prediction[0] in LETTERS:
        return float(prediction[0] in references)
    if prediction in references:
        return 1.0
    text = " ".join(
        re.split(" +", prediction.translate(dict.fromkeys(map(ord, "\n\"'.,?!{}"), " ")))
    )
    for cue in CHOICE_CUES:
        if cue in text:
            return _begins(text.partition(cue)[2][1:], references)
    named = next((word for word in text.split() if word in LETTERS), "")
    return float(bool(named) and named in references)


def _debug(prediction: str, references: Sequence[str]) -> float:
    """A letter and `.` or `:` in front, or what follows a cue."""
    name, letter = references
    text = prediction.strip()
    if text[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    for noise in DEBUG_NOISE:
        text = text.replace(noise, " ")
    text = re.sub(" +", " ", text)
    for cue in DEBUG_CUES:
        if cue in text:
            return _begins(text.partition(cue)[2][1:], (letter, name))
    return 0.0


def _begins(text: str, references: Sequence[str]) -> float:
    return float(bool(text) and any(text.startswith(one) for one in references))


def _f1_zh(prediction: str, reference: str) -> float:
    """F1 on the bags of characters, without punctuation of both scripts and blanks."""
    said, meant = (
        "".join(text.lower().translate(ALL_PUNCTUATION).split()) for text in (prediction, reference)
    )
    same = sum((Counter(said) & Counter(meant)).values())
    return 2 * same / (len(said) + len(meant)) if same else 0.0


def _rouge_lsum(prediction: str, reference: str) -> float:
    """ROUGE-Lsum of rouge-score without its stemmer: lines are sentences."""
    scorer = import_module("rouge_score.rouge_scorer").RougeScorer  # the package has no types
    return float(scorer(["rougeLsum"]).score(reference, prediction)["rougeLsum"].fmeasure)
