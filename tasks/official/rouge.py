"""ROUGE-L as the PyPI package `rouge` has it, which LongBench uses: not that of rouge-score.

Source: github.com/pltrdy/rouge, version 1.0.1, rouge/rouge.py and rouge/rouge_score.py.
"""

__all__ = ["rouge_l"]

EPSILON = 1e-8


def rouge_l(prediction: str, reference: str) -> float:
    """F of ROUGE-L over *sets* of words: f = 2pr / (p + r + 1e-8).

    p and r are the size of one set over the number of different words in the prediction and in the
    reference. The set is the union, over all pairs of a reference's and a prediction's sentence, of
    the words on a longest common subsequence.

    The traps: each `.` ends a sentence, also in `3.5` and `Mr.`, and `。` ends none. Words are what
    blanks divide, with case and punctuation. A sentence of blanks alone holds one word, the empty
    one, so `a. ` has two words. Of several longest common subsequences the back-trace chooses one,
    and because the result is a set the choice shows: where both neighbours are equal it drops the
    prediction's word. A perfect match is 0.999999995.

    Returns:
        F in [0, 1); 0 where a side is empty or has only dots, on which the package raises and
        LongBench scores 0.

    Differs: the package walks back recursively, so that a pair with more than about 1000 words in a
    sentence raises and scores 0 in LongBench; here it gets its F.
    """
    predicted, meant = _sentences(prediction), _sentences(reference)
    if not predicted or not meant:
        return 0.0
    common: set[str] = set()
    for one in meant:
        for other in predicted:
            common |= _on_the_longest_path(one, other)
    recall = len(common) / len({word for words in meant for word in words})
    precision = len(common) / len({word for words in predicted for word in words})
    return 2.0 * ((precision * recall) / (precision + recall + EPSILON))


def _sentences(text: str) -> list[list[str]]:
    return [part.split() or [""] for part in text.split(".") if part]


def _on_the_longest_path(reference: list[str], prediction: list[str]) -> set[str]:
    """Words on the longest common subsequence that the back-trace takes."""
    table = [[0] * (len(prediction) + 1)]  # table[i][j]: length for the first i and j words
    for word in reference:
        above, row = table[-1], [0]
        for j, other in enumerate(prediction):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        table.append(row)
    words: set[str] = set()
    i, j = len(reference), len(prediction)
    while i and j:
        if reference[i - 1] == prediction[j - 1]:
            words.add(reference[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words
