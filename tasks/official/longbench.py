"""LongBench's metrics: one prediction against one reference, and how a row takes them.

Source: Bai et al. 2023, https://arxiv.org/abs/2308.14508, and the benchmark's LongBench/metrics.py
and LongBench/eval.py (github.com/THUDM/LongBench, MIT).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from rapidfuzz.distance.Indel import normalized_similarity

from tasks.official.chinese import words
from tasks.official.rouge import rouge_l

__all__ = [
    "BUCKETS",
    "DATASETS",
    "LEVENSHTEIN",
    "bucket",
    "classification",
    "code_sim",
    "code_sim_levenshtein",
    "count",
    "first_line",
    "levenshtein_score",
    "qa_f1",
    "qa_f1_zh",
    "retrieval",
    "retrieval_zh",
    "rouge_zh",
    "row_score",
    "scored_text",
]

ARTICLES = re.compile(r"\b(a|an|the)\b")
NUMBERS = re.compile(r"\d+")
ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The benchmark's choice, with its gaps: `》` is in it, `《` and `·` are not.
CHINESE = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣"  # noqa: RUF001
    "､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."  # noqa: RUF001
)
ALL_PUNCTUATION = str.maketrans("", "", string.punctuation + CHINESE)
NO_CODE = ("`", "#", "//")


def _f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    same = sum((Counter(prediction) & Counter(reference)).values())
    if not same:
        return 0.0
    precision, recall = same / len(prediction), same / len(reference)
    return 2 * precision * recall / (precision + recall)


def qa_f1(prediction: str, reference: str) -> float:
    """F1 on the bags of words, after SQuAD's normalisation.

    Lower case, then ASCII punctuation is deleted and not replaced (`e-mail` is `email`, `U.S.` is
    `us`; curly quotes stay), then a, an and the go as whole words. Nothing left on a side scores 0,
    also against nothing: `the` against `the` is 0.
    """
    return _f1(_normalised(prediction), _normalised(reference))


def _normalised(text: str) -> list[str]:
    return ARTICLES.sub(" ", text.lower().translate(ASCII_PUNCTUATION)).split()


def qa_f1_zh(prediction: str, reference: str) -> float:
    """F1 on the bags of jieba's words.

    The raw text is cut first and each word normalised after it: lower case, without punctuation of
    both scripts and blanks; empty words go. Full-width letters and digits are not folded, and `《`
    is no punctuation while `》` is.

    Raises:
        TaskError: jieba is missing.
    """
    return _f1(_normalised_zh(prediction), _normalised_zh(reference))


def _normalised_zh(text: str) -> list[str]:
    bare = ("".join(word.lower().translate(ALL_PUNCTUATION).split()) for word in words(text))
    return [word for word in bare if word]


def rouge_zh(prediction: str, reference: str) -> float:
    """Return `rouge_l` of jieba's words joined by blanks; punctuation counts as words.

    Raises:
        TaskError: jieba is missing.
    """
    return rouge_l(" ".join(words(prediction)), " ".join(words(reference)))


def classification(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """1 / (classes named in the prediction) if the reference is one of them, otherwise 0.

    Substrings, with case. A named class that is a proper part of the reference does not count, but
    the benchmark takes it off the list it is walking along: the class after it is then not looked
    at, and stays although it may be a part of the reference too.
    """
    named = [name for name in classes if name in prediction]
    place = 0
    while place < len(named):
        if named[place] in reference and named[place] != reference:
            named.remove(named[place])  # the next one moves here, and place moves on
        place += 1
    return 1.0 / len(named) if reference in named else 0.0


def count(prediction: str, reference: str) -> float:
    """Share of the numbers in the prediction that are the reference, as text: `07` is not `7`.

    0 where the prediction has no number. Digits of any script make a number.
    """
    numbers = NUMBERS.findall(prediction)
    return numbers.count(reference) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, reference: str) -> float:
    """Return `count` against the N of the reference's first `Paragraph N`.

    Raises:
        ValueError: the reference has none.
    """
    return count(prediction, _number_after("Paragraph ", reference))


def retrieval_zh(prediction: str, reference: str) -> float:
    """Return `count` against the N of the reference's first `段落N`.

    Raises:
        ValueError: the reference has none.
    """
    return count(prediction, _number_after("段落", reference))


def _number_after(word: str, reference: str) -> str:
    found = re.search(rf"{word}(\d+)", reference)
    if found is None:
        raise ValueError(f"answer '{reference[:40]}' has no '{word}' with a number")
    return found[1]


def code_sim(prediction: str, reference: str) -> float:
    """Similarity of the prediction's first line of code to the reference, in whole percents.

    That line is the first without a back-tick, `#` or `//` once newlines in front are off: a URL
    disqualifies a line, a blank line qualifies, and where none does it is the empty text. Equal
    texts are 1, also two empty ones; one empty text is 0.

    2M/T as difflib has it, rounded half to even: what the package fuzzywuzzy of the benchmark's
    requirements computes while python-Levenshtein is not installed; with that package beside it,
    `code_sim_levenshtein`. difflib's `autojunk` stays on: in a reference of 200 characters and
    more, frequent characters start no match.
    """
    return _of_code(prediction, reference, lambda *two: SequenceMatcher(None, *two).ratio())


def code_sim_levenshtein(prediction: str, reference: str) -> float:
    """`code_sim` as fuzzywuzzy computes it where python-Levenshtein, or rapidfuzz, is installed.

    M is the length of a longest common subsequence, which difflib's blocks are seldom: 1.4 to 2.4
    points higher on answers of models.
    """
    return _of_code(prediction, reference, normalized_similarity)


def _of_code(prediction: str, reference: str, ratio: Callable[[str, str], float]) -> float:
    lines = prediction.lstrip("\n").split("\n")
    code = next((line for line in lines if not any(mark in line for mark in NO_CODE)), "")
    if code == reference:
        return 1.0
    if not code or not reference:
        return 0.0
    return round(100 * ratio(code, reference)) / 100


def first_line(prediction: str) -> str:
    r"""First line once newlines in front are off; blanks stay: `"\n \nFood"` gives `" "`."""
    return prediction.lstrip("\n").split("\n")[0]


METRICS: dict[str, Callable[[str, str], float]] = {
    "qa_f1": qa_f1,
    "qa_f1_zh": qa_f1_zh,
    "rouge": rouge_l,
    "rouge_zh": rouge_zh,
    "count": count,
    "retrieval": retrieval,
    "retrieval_zh": retrieval_zh,
    "code_sim": code_sim,
}
DATASETS = {
    "narrativeqa": "qa_f1",
    "qasper": "qa_f1",
    "multifieldqa_en": "qa_f1",
    "multifieldqa_zh": "qa_f1_zh",
    "hotpotqa": "qa_f1",
    "2wikimqa": "qa_f1",
    "musique": "qa_f1",
    "dureader": "rouge_zh",
    "gov_report": "rouge",
    "qmsum": "rouge",
    "multi_news": "rouge",
    "vcsum": "rouge_zh",
    "trec": "classification",
    "triviaqa": "qa_f1",
    "samsum": "rouge",
    "lsht": "classification",
    "passage_count": "count",
    "passage_retrieval_en": "retrieval",
    "passage_retrieval_zh": "retrieval_zh",
    "lcc": "code_sim",
    "repobench-p": "code_sim",
}
LEVENSHTEIN = "code_sim-levenshtein"
BUCKETS = ("0-4k", "4-8k", "8k+")
FIRST_LINE_ONLY = ("trec", "triviaqa", "samsum", "lsht")


def scored_text(dataset: str, prediction: str) -> str:
    """What of a prediction eval.py looks at: its first line for some data sets, otherwise all."""
    return first_line(prediction) if dataset in FIRST_LINE_ONLY else prediction


def row_score(
    dataset: str, prediction: str, references: Sequence[str], classes: Sequence[str] = ()
) -> float:
    """Score a row as eval.py does: the best over its references.

    Args:
        dataset: name in DATASETS; trec, triviaqa, samsum and lsht see the first line only.
        prediction: what the model said.
        references: accepted answers, at least one.
        classes: all class names, for trec and lsht.

    Raises:
        ValueError: a reference that the metric cannot read.
        TaskError: jieba is missing and the metric needs it.
    """
    prediction = scored_text(dataset, prediction)
    if DATASETS[dataset] == "classification":
        return max(classification(prediction, one, classes) for one in references)
    return max(METRICS[DATASETS[dataset]](prediction, one) for one in references)


def levenshtein_score(dataset: str, prediction: str, references: Sequence[str]) -> float | None:
    """The same of a data set of code by `code_sim_levenshtein`; None for other data sets."""
    if DATASETS[dataset] != "code_sim":
        return None
    return max(code_sim_levenshtein(prediction, one) for one in references)


def bucket(length: float) -> str:
    """Bucket of LongBench-E by a row's stored length: words, in Chinese characters; not tokens."""
    return BUCKETS[0] if length < 4000 else BUCKETS[1] if length < 8000 else BUCKETS[2]
