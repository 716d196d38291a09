"""RULER's metrics: which of the references occur in the prediction.

Source: Hsieh et al. 2024, https://arxiv.org/abs/2404.06654, section 3, and the benchmark's
evaluate.py (github.com/NVIDIA/RULER): post-processing first, then substrings without case.
"""

import re
from collections.abc import Sequence

__all__ = ["postprocess", "string_match_all", "string_match_part"]

CONTROL = re.compile(r"[\x00-\x1f]")


def postprocess(prediction: str) -> str:
    """Strip, turn every control character into a newline, strip again."""
    return CONTROL.sub("\n", prediction.strip()).strip()


def string_match_all(prediction: str, references: Sequence[str]) -> float:
    """Share of the references that occur in the prediction, in [0, 1]."""
    return sum(_holds(prediction, one) for one in references) / len(references)


def string_match_part(prediction: str, references: Sequence[str]) -> float:
    """1 if any of the references occurs in the prediction, otherwise 0."""
    return float(any(_holds(prediction, one) for one in references))


def _holds(prediction: str, reference: str) -> bool:
    return reference.lower() in prediction.lower()
