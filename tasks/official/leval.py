"""L-Eval's metrics, and what it makes of predictions and references before them.

Source: An et al. 2023, https://arxiv.org/abs/2307.11088, and the benchmark's
Evaluation/auto_eval.py, em.py, f1.py and rouge.py (github.com/OpenLMLab/LEval, GPL-3.0; rewritten
from its behaviour). Its scripts decide by parts of the *path* of the file, so that a folder
`quality/` changes scores; here the name of the task decides.
"""

import math
import re
import string
from collections.abc import Sequence

from tasks.official.longbench import qa_f1

__all__ = [
    "DATASETS",
    "exact_match",
    "f1",
    "geometric_mean",
    "pairs",
    "read_choice",
    "read_choice_reference",
    "read_code",
    "read_code_reference",
    "read_judgement",
    "read_judgement_reference",
    "read_number",
    "rouge",
]

DATASETS = (
    "coursera",
    "quality",
    "topic_retrieval_longchat",
    "tpo",
    "gsm100",
    "codeU",
    "sci_fi",
    "financial_qa",
    "gov_report_summ",
    "legal_contract_qa",
    "meeting_summ",
    "multidoc_qa",
    "narrative_qa",
    "natural_question",
    "news_summ",
    "paper_assistant",
    "patent_summ",
    "review_summ",
    "scientific_qa",
    "tv_show_summ",
)
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
NAMED_LETTER = re.compile(r"[A-Z](?=[\s.)])")
LETTERS = re.compile(r"[ABCD]+")
SAID_NUMBER = re.compile(r"The answer is (\S+)")
BLANKS = re.compile(r"\s+")
DELETED = (",", "'", "\\", ".0")
CLOSED_UP = ("] [", "[ [", "] ]")
FILLER = (
    "will be",
    "of the code",
    "is",
    "would be",
    "the value of",
    "the result of",
    "printed",
)
FINAL = "the final output"
EXTRA_WORDS = 3


def _normalised(text: str) -> str:
    return " ".join(ARTICLES.sub(" ", text.translate(PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    """1, 0.25 or 0.

    A reference of the letters A to D alone: 1 if equal, 0.25 if the prediction's characters are
    some of its letters. That holds for an empty prediction, and the reference may be empty itself.
    Punctuation and the words a, an, the are off before; case stays, so `a` is an article.

    Another reference: equality as numbers if both are (`nan` never is), otherwise 1 if it occurs in
    the prediction, without case and blanks. `3` occurs in `13`.
    """
    meant = _normalised(reference)
    if set(meant) <= set("ABCD"):
        said = _normalised(prediction)
        return 1.0 if said == meant else 0.25 if set(said) <= set(meant) else 0.0
    try:
        return float(float(prediction) == float(reference))
    except ValueError:
        return float(_joined(reference) in _joined(prediction))


def _joined(text: str) -> str:
    return text.lower().replace(" ", "")


def f1(prediction: str, reference: str) -> float:
    """F1 on bags of words, the same as LongBench's `qa_f1`: two empty sides are 0."""
    return qa_f1(prediction, reference)


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """F of rouge1, rouge2 and rougeL in [0, 100], by rouge-score without its stemmer.

    Its tokenizer keeps ASCII letters and digits only, lower-cased: a Chinese text scores 0.
    """
    from tasks.metrics import rouge_stats

    scores = rouge_stats(prediction, reference, "en")
    return {name: 100 * value for name, (value, _) in scores.items()}


def geometric_mean(scores: Sequence[dict[str, float]]) -> float:
    """Third root of the product of the data set's mean rouge1, rouge2 and rougeL: its LEval_score.

    The mean over samples comes first: one sample without a common bigram does not make it 0.
    """
    means = [sum(one[name] for one in scores) / len(scores) for name in scores[0]]
    return float(math.prod(means) ** (1.0 / 3.0))


def read_choice(prediction: str, several: bool) -> str:
    """Letters that a prediction chooses.

    Blank: `None`. A part of the text `ABCD`: as it is, also `BC` where one letter is asked for.
    Then, unless there may be `several` (coursera), the first A, B, C or D, be it that of `Because`.
    With several: the letters it begins with, if at least two. Otherwise the one it begins with and,
    up to the word `Question`, the capitals before a blank, `.` or `)`, sorted; else the first run
    of letters, as it stands; else `A`, which the benchmark calls a random guess.
    """
    if not prediction.strip():
        return "None"
    if prediction in "ABCD":
        return prediction
    first = LETTERS.search(prediction)
    if first and not several:
        return first[0][0]
    start = first[0] if first and not first.start() else ""
    if len(start) > 1:
        return "".join(sorted(set(start)))
    rest = prediction[len(start) :].split("Question")[0]
    named = set(start) | (set(NAMED_LETTER.findall(rest)) & set("ABCD"))
    run = LETTERS.search(rest)
    return "".join(sorted(named)) or (run[0] if run else "A")


def read_choice_reference(reference: str) -> str:
    """Letters A to D of the first word; `A` where it has none.

    Raises:
        ValueError: a blank reference.
    """
    if not reference.strip():
        raise ValueError("a blank 'gt'; expected letters")
    return re.sub(r"[^A-D]", "", reference.split()[0]) or "A"


def read_number(text: str) -> str:
    """Digits of the answer, of the word after `The answer is`, up to its first full stop.

    Without these words: of the last word, at blanks, of the first paragraph that has a digit. All
    else is dropped: `-5` is `5`, `3/4` is `34`, `.5` and no digit at all are the empty text.
    """
    said = SAID_NUMBER.search(text)
    if said:
        word = said[1]
    else:
        paragraph = reversed(text.split("\n\n")[0].split(" "))
        word = next((one for one in paragraph if any(map(str.isdigit, one))), "")
    return "".join(character for character in word.split(".")[0] if character.isdigit())


def read_code_reference(text: str) -> str:
    r"""Text with single blanks, without `,`, `'`, `\`, `.0` and the blanks between brackets."""
    text = BLANKS.sub(" ", text)
    for noise in DELETED:
        text = text.replace(noise, "")
    for brackets in CLOSED_UP:
        text = text.replace(brackets, brackets.replace(" ", ""))
    return text


def read_code(prediction: str, reference: str) -> str:
    """Last words of a prediction, or the first after `the final output`: 3 more than the reference.

    `FILLER` is deleted first, one after the other and inside words too: `this` becomes `th`.
    """
    text = read_code_reference(prediction)
    for filler in FILLER:
        text = text.replace(filler, "")
    size = len(reference.split()) + EXTRA_WORDS
    if FINAL in text:
        return " ".join(BLANKS.split(text.split(FINAL)[-1])[:size])
    return " ".join(BLANKS.split(text)[-size:])


def read_judgement_reference(text: str) -> tuple[str, str]:
    """Both halves of `True [fact: False]`, lower-cased: by the document, and in the world.

    Raises:
        ValueError: no `[fact:`.
    """
    halves = text.lower().split("[fact:")
    if len(halves) < 2:
        raise ValueError(f"'{text[:40]}' has no '[fact:'; expected such as 'True [fact: False]'")
    return halves[0].strip(), halves[1][:-1].strip()


def read_judgement(prediction: str) -> tuple[str, str]:
    """First word with `true` or `false` in it (`untrue` is true) of each half, else `<error>`.

    Raises:
        ValueError: no `[fact:`.
    """
    by_document, in_the_world = read_judgement_reference(prediction)
    return _verdict(by_document), _verdict(in_the_world)


def _verdict(text: str) -> str:
    for word in text.split():
        if "true" in word:
            return "true"
        if "false" in word:
            return "false"
    return "<error>"


def pairs(task: str, prediction: str, reference: str) -> list[tuple[str, str]]:
    """What is compared: one pair of texts, two for sci_fi.

    Raises:
        ValueError: a text that the task's reading does not take.
    """
    if task in ("coursera", "quality", "tpo"):
        said = read_choice(prediction, several=task == "coursera")
        return [(said, read_choice_reference(reference))]
    if task == "gsm100":
        return [(read_number(prediction), read_number(reference))]
    if task == "codeU":
        return [(read_code(prediction, reference), read_code_reference(reference))]
    if task == "sci_fi":
        halves = zip(read_judgement(prediction), read_judgement_reference(reference), strict=True)
        return list(halves)
    return [(prediction, reference)]
