"""Equations of the decoding methods against loops in float64, on awkward distributions."""

import math

import pytest
import torch

from patches import PATCHES, describe, parse
from patches.apply import apply
from patches.base import Extent, PatchError, Rope
from patches.decoding import joined
from tests import oracle_decoding as oracle
from tests.models import logits, tiny, tokens

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


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("beta", "top_p"), [(0.25, 0.95), (0, 0.5), (1.5, 0.5), (3, 1)])
def test_nbce_by_average_is_its_article(beta: float, top_p: float, seed: int) -> None:
    log_probs = draws(5, seed=seed, sharp=1 + seed % 4)
    empty, *contexts = log_probs.tolist()
    expected = oracle.nbce_average(empty, contexts, beta, top_p)
    spec = f"nbce(beta={beta},top_p={top_p},pooling=average)"
    for last in (None, 0):
        scores, memory = combined(spec, log_probs, last)
        assert memory is None and scores == pytest.approx(expected, abs=1e-12)


def test_nbce_by_average_with_beta_n_minus_1_is_naive_bayes() -> None:
    """p(T|S_1, S_2, S_3) is the product of p(T|S_k) / p(T), times p(T)."""
    log_probs = draws(4)
    prior, *contexts = log_probs
    expected = (sum(contexts) - 2 * prior).log_softmax(-1)
    scores, _ = combined("nbce(beta=2,top_p=1,pooling=average)", log_probs)
    found = torch.tensor(scores, dtype=torch.float64).log_softmax(-1)
    assert torch.allclose(found, expected, atol=1e-12)


def test_nbce_by_average_has_no_context_to_stay_with() -> None:
    with pytest.raises(PatchError, match=r"eta=0\.2 with pooling=average: .*; leave eta out"):
        parse("nbce(eta=0.2,pooling=average)")
    with pytest.raises(PatchError, match=r"pooling=mean: expected entropy\|average"):
        parse("nbce(pooling=mean)")
    assert str(parse("nbce(pooling=entropy,eta=0.1)")) == "nbce"


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


@pytest.mark.parametrize("seed", range(8))
def test_attention_buckets_weigh_a_reading_by_its_largest_probability(seed: int) -> None:
    log_probs = draws(1 + seed, seed=seed, sharp=1 + seed)
    scores, _ = combined("attention-buckets", log_probs)
    assert scores == pytest.approx(oracle.attention_buckets(log_probs.tolist()), abs=1e-12)
    assert sum(map(math.exp, scores)) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(8))
def test_attention_buckets_average_logits_as_the_authors_code_does(seed: int) -> None:
    logits = draws(1 + seed, seed=seed, sharp=1 + seed) + torch.arange(1.0 + seed)[:, None]
    patch = parse("attention-buckets(mean=logits)")
    assert patch.decoding.takes_logits and not parse("attention-buckets").decoding.takes_logits
    scores, _ = combined(str(patch), logits)
    assert scores == pytest.approx(oracle.attention_buckets_code(logits.tolist()), abs=1e-9)


def test_attention_buckets_take_bases_or_multiples_of_the_models() -> None:
    rope = Rope(torch.tensor([1.0, 500**-0.5], dtype=torch.float64), 1.2, 500.0)
    extent = Extent(64, 32, 4)

    def bases(spec: str) -> list[float]:
        ropes = [rule(rope, extent) for rule in parse(spec).decoding.ropes]
        assert all(one.inv_freq[0] == 1 and one.attention_factor == 1.2 for one in ropes)
        return [float(one.inv_freq[1]) ** -2 for one in ropes]

    assert bases("attention-buckets(bases=800+10k)") == pytest.approx([800, 10240])
    multiples = [1, 1.75, 1.8, 1.9, 2, 2.5]
    assert bases("attention-buckets") == pytest.approx([500 * one for one in multiples])


def test_bases_are_read_and_written_as_a_sum() -> None:
    assert (
        str(parse("attention-buckets(bases=1e4+2.5e4)")) == "attention-buckets(bases=10000+25000)"
    )
    assert (
        str(parse(str(parse("attention-buckets(bases=10k)")))) == "attention-buckets(bases=10240)"
    )
    for bad in ("1e4+", "1e4+1", "a", "nan", "1e4+inf", "2:3"):
        with pytest.raises(PatchError, match=r"expected numbers joined by [+], each > 1"):
            parse(f"attention-buckets(bases={bad})")


@pytest.mark.parametrize("partner", ["ntk", "rope-base(theta=5e4)", "yarn+logn"])
def test_attention_buckets_are_refused_beside_other_frequencies(partner: str) -> None:
    for spec in (f"attention-buckets+{partner}", f"{partner}+attention-buckets"):
        with pytest.raises(PatchError, match="both set the RoPE frequencies; keep one of them"):
            parse(spec)
    assert "frequencies" in describe("attention-buckets").partition("composes")[2]


@pytest.mark.parametrize("partner", ["", "+logn", "+rerope(window=8)"])
def test_a_reading_is_over_when_its_context_is_left(partner: str) -> None:
    model, ids = tiny("llama"), tokens(40)
    with apply(model, parse(f"attention-buckets(bases=500){partner}"), 40) as applied:
        plain = logits(model, ids)
        with applied.readings[0]():
            assert (logits(model, ids) - plain).abs().max() > 1e-2
        with pytest.raises(ZeroDivisionError), applied.readings[0]():
            raise ZeroDivisionError
        assert torch.equal(logits(model, ids), plain)


def test_pcw_takes_the_fewest_windows_that_fit() -> None:
    cut = parse("pcw").decoding.windows
    borders = [3, 10, 11, 20, 40, 41]
    assert cut(borders, 38) == [3, 41]
    assert cut(borders, 37) == cut(borders, 30) == [3, 11, 41]
    assert cut(borders, 29) == [3, 10, 20, 41]
    assert cut(borders, 20) == cut(borders, 1) == borders
    assert cut([3, 9], 1) == [3, 9]
    assert parse("pcw(windows=2)").decoding.windows(borders, 38) == [3, 11, 41]


@pytest.mark.parametrize("partner", ["rerope", "dca", "window", "native-window", "streaming"])
def test_pcw_is_refused_beside_other_maps_and_windows(partner: str) -> None:
    for spec in (f"pcw+{partner}", f"{partner}+logn+pcw"):
        with pytest.raises(PatchError, match=r"map positions; keep one|hide keys themselves"):
            parse(spec)
