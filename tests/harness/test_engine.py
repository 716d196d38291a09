import numpy as np
import pytest
import torch

from harness import engine as engine_module
from harness.continued import Faults
from harness.engine import Engine, losses
from harness.errors import HarnessError, NonFinite
from tests.harness.conftest import make_model

TOKENS = [(7 * index * index + 3 * index) % 256 for index in range(120)]
CPU = torch.device("cpu")


def full_forward(model: torch.nn.Module, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """nll and hits of every token but the first, from the logits of one plain forward."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].double()
    wanted = torch.tensor(tokens[1:])
    nll = -torch.log_softmax(logits, -1).gather(1, wanted[:, None])[:, 0]
    return nll.numpy(), (logits.argmax(-1) == wanted).numpy()


@pytest.mark.parametrize("chunk", [None, 1, 16, 33, 500])
@pytest.mark.parametrize("score_from", [1, 40, 119])
@pytest.mark.parametrize("rows", [1024, 10])
def test_score_equals_a_plain_full_forward(
    chunk: int | None, score_from: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOGIT_ROWS", rows)
    model = make_model()
    nll, hits = Engine(model, chunk, CPU).score(TOKENS, score_from)
    expected_nll, expected_hits = full_forward(model, TOKENS)
    assert nll.dtype == np.float64
    assert len(nll) == len(hits) == len(TOKENS) - score_from
    np.testing.assert_allclose(nll, expected_nll[score_from - 1 :], atol=2e-5)
    np.testing.assert_array_equal(hits, expected_hits[score_from - 1 :])


@pytest.mark.parametrize("chunk", [None, 7])
def test_keep_gives_each_scored_token_at_most_keep_tokens(chunk: int | None) -> None:
    model = make_model()
    nll, _ = Engine(model, chunk, CPU).score(TOKENS, 100, keep=16)
    expected = []
    for start in (100, 108, 116):  # steps of keep // 2
        end = min(start + 8, 120)
        window, _ = full_forward(model, TOKENS[end - 16 : end])
        expected.append(window[-(end - start) :])
    np.testing.assert_allclose(nll, np.concatenate(expected), atol=2e-5)


def test_keep_leaves_bos_in_front_of_the_newest_tokens() -> None:
    model = make_model()
    engine = Engine(model, None, CPU, bos_id=TOKENS[0])
    nll, _ = engine.score(TOKENS, len(TOKENS) - 6, keep=16)
    short = [TOKENS[0], *TOKENS[-15:]]
    np.testing.assert_allclose(nll, engine.score(short, 10)[0], atol=1e-5)


def test_keep_as_long_as_the_input_changes_nothing() -> None:
    engine = Engine(make_model(), None, CPU)
    plain, kept = engine.score(TOKENS, 50), engine.score(TOKENS, 50, keep=len(TOKENS))
    np.testing.assert_array_equal(plain[0], kept[0])


def test_keep_at_the_front_reads_from_the_first_token() -> None:
    model = make_model()
    nll, _ = Engine(model, None, CPU).score(TOKENS[:20], 1, keep=8)
    first, _ = full_forward(model, TOKENS[:5])
    np.testing.assert_allclose(nll[:4], first, atol=2e-5)
    assert len(nll) == 19


def test_no_more_than_the_allowed_rows_of_logits_are_alive() -> None:
    model, seen = make_model(), []
    engine = Engine(model, None, CPU)
    assert engine.faults == Faults()  # measured once, before forwards are counted
    model.register_forward_hook(lambda *call: seen.append(call[2].logits.shape[1]))
    engine.score([index % 256 for index in range(2500)], 1)
    assert max(seen) <= engine_module.LOGIT_ROWS
    assert sum(seen) == 2499


def test_nan_names_the_first_bad_position() -> None:
    model = make_model()
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(NonFinite, match="at position 100,"):
        Engine(model, None, CPU).score(TOKENS, 100)


def test_a_model_without_logits_to_keep_is_refused() -> None:
    class Plain(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    with pytest.raises(HarnessError, match="Plain: its forward takes no logits_to_keep"):
        Engine(Plain(), None, CPU)


def test_losses_count_every_token_of_a_large_vocabulary() -> None:
    logits = torch.randn(64, 50_000, generator=torch.Generator().manual_seed(0))
    logits[:, 0] += 18  # beside it each of the others is next to nothing, and all are not
    nll, _ = losses(logits, [0] * 64)
    exact = -torch.log_softmax(logits.double(), -1)[:, 0]
    assert abs((nll.double() - exact).mean()) < 2e-6  # cross_entropy: 3e-5
