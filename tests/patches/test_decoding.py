"""Equations of the decoding methods against loops in float64, on awkward distributions."""

import math

import pytest
import torch

from patches import PATCHES, describe, parse
from patches.base import PatchError
from patches.decoding import joined
from tests import oracle_decoding as oracle

DECODING = [name for name, entry in PATCHES.items() if entry.seam == "decoding"]


def draws(readings: int, vocabulary: int = 40, seed: int = 0, sharp: float = 3.0) -> torch.Tensor:
    """Random log-probabilities, float64 [readings, vocabulary]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(readings, vocabulary, generator=generator, dtype=torch.float64)
    return (sharp * logits).log_softmax(-1)


def combined(spec: str, log_probs: torch.Tensor, last: int | None = None):
    scores, memory = parse(spec).decoding.combine(log_probs, last)
    return scores.tolist(), memory


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("beta", "top_p", "eta"), [(0.25, 0.95, 0.1), (0, 0.95, 0), (1.5, 0.5, 3), (0.25, 1, 0.4)]
)
def test_nbce_is_its_article(beta: float, top_p: float, eta: float, seed: int) -> None:
    log_probs = draws(5, seed=seed, sharp=1 + seed % 4)
    empty, *contexts = log_probs.tolist()
    for last in (None, 0, 3):
        expected, k = oracle.nbce(empty, contexts, last, beta, top_p, eta)
        scores, memory = combined(f"nbce(beta={beta},top_p={top_p},eta={eta})", log_probs, last)
        assert memory == k
        assert scores == pytest.approx(expected, abs=1e-12)


def test_nbce_never_chooses_the_empty_context() -> None:
    log_probs = torch.log(torch.tensor([[1.0, 0, 0], [0.4, 0.3, 0.3], [0.5, 0.3, 0.2]]))
    scores, k = combined("nbce", log_probs)
    assert k == 1 and not any(map(math.isnan, scores))


def test_nbce_stays_with_a_context_unless_another_is_surer_by_eta() -> None:
    near = torch.log(torch.tensor([[0.5, 0.5], [0.52, 0.48], [0.6, 0.4]])).double()
    assert combined("nbce", near)[1] == 1
    assert combined("nbce", near, last=0)[1] == 0
    assert combined("nbce(eta=0)", near, last=0)[1] == 1
    far = torch.log(torch.tensor([[0.5, 0.5], [0.52, 0.48], [0.9, 0.1]])).double()
    assert combined("nbce", far, last=0)[1] == 1


def test_nbce_trusts_the_context_alone_where_the_prior_is_cut() -> None:
    log_probs = torch.log(torch.tensor([[0.97, 0.02, 0.01], [0.1, 0.8, 0.1]])).double()
    scores, _ = combined("nbce(beta=1)", log_probs)
    assert scores[1] == pytest.approx(math.log(0.8))
    assert scores[0] == pytest.approx(2 * math.log(0.1) - math.log(0.97))


def test_nbce_refuses_a_share_above_one() -> None:
    with pytest.raises(PatchError, match=r"top_p=1\.5: expected a number > 0 and at most 1"):
        parse("nbce(top_p=1.5)")


def test_contexts_are_joined_to_windows_of_equal_numbers() -> None:
    borders = [3, 10, 11, 20, 40, 41]
    assert joined(borders, 1) == [3, 41]
    assert joined(borders, 2) == [3, 11, 41]
    assert joined(borders, 3) == [3, 10, 20, 41]
    assert joined(borders, 5) == borders
    with pytest.raises(PatchError, match="windows=6: a prompt has 5 contexts; give no more"):
        joined(borders, 6)


def test_the_seam_holds_one_method() -> None:
    with pytest.raises(PatchError, match=r"both choose the next token; keep one of them"):
        parse("nbce+nbce(beta=1)")
    with pytest.raises(PatchError, match="truncated input"):
        parse("nbce+truncate")


@pytest.mark.parametrize("name", DECODING)
def test_show_names_what_does_not_go_with_it(name: str) -> None:
    text = " ".join(describe(name).split())
    assert "composes every other seam" in text and "not with" in text
    assert all(other in text.partition("composes")[2] for other in DECODING if other != name)


def test_nbce_keeps_the_likeliest_token_of_the_smallest_share() -> None:
    log_probs = draws(2, vocabulary=1000, sharp=0.1).float()
    scores, _ = combined("nbce(top_p=1e-12,beta=0)", log_probs)
    assert [score > -math.inf for score in scores].count(True) == 1
    assert max(scores) == log_probs[1].max()
