"""LongBench v2's reading of a letter out of a response.

Source: Bai et al. 2024, https://arxiv.org/abs/2412.15204, and the benchmark's pred.py
(github.com/THUDM/LongBench, MIT).
"""

import re

__all__ = ["extract_answer"]

FORMS = (
    re.compile(r"The correct answer is \(([A-D])\)"),
    re.compile(r"The correct answer is ([A-D])"),
)


def extract_answer(response: str) -> str | None:
    """Letter of the first `The correct answer is (X)`, else of the first `… is X`, else None.

    Asterisks are deleted first, wherever they stand. With case, one blank, ASCII letters. The form
    with parentheses wins also where it comes second. `is Apple` gives A, `is Both` gives B, and
    what is said while thinking counts too. None is wrong, not a guess: the leaderboard's
    compensation of 0.25 is off.
    """
    plain = response.replace("*", "")
    return next((found[1] for form in FORMS if (found := form.search(plain))), None)
