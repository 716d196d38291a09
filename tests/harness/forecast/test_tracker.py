"""The counts against arithmetic: bytes alive, flops, what a score matrix would have cost."""

import pytest
import torch
from torch.nn import functional

from harness.forecast.tracker import Work, tracking

META = torch.device("meta")


def flops(work: Work, kind: str) -> float:
    return sum(step.flops * count for step, count in work.items() if step.kind == kind)


def test_peak_is_what_is_alive_at_once() -> None:
    with tracking("cpu") as tracker:
        a = torch.empty(1000, device=META)
        b = a * 2
        del a
        c = b + 1  # noqa: F841
        del b
        assert tracker.alive == 4000
        assert tracker.peak == 8000


def test_small_blocks_leave_gaps_and_large_ones_none() -> None:
    with tracking("cpu") as tracker:
        small = torch.empty(1 << 20, device=META)
        assert tracker.resident == pytest.approx(1.2 * (4 << 20))
        del small
        torch.empty(16 << 20, device=META)
        assert tracker.resident == 64 << 20


def test_views_and_outside_tensors_hold_no_memory() -> None:
    weight = torch.empty(50, 20, device=META)
    with tracking("cpu") as tracker:
        tracker.outside([weight])
        view = weight.t()[:10].reshape(5, 2, 50)
        assert tracker.peak == 0
        assert view.shape == (5, 2, 50)
        assert not tracker.work


def test_an_operation_moves_what_it_reads_and_writes() -> None:
    a = torch.empty(1000, device=META)
    with tracking("cpu") as tracker:
        a.half()
    assert [step.moved for step in tracker.take_work()] == [4000 + 2000]
    assert not tracker.work


def test_a_product_counts_two_flops_a_pair() -> None:
    a, b = torch.empty(3, 5, device=META), torch.empty(5, 7, device=META)
    with tracking("cpu") as tracker:
        torch.nn.functional.linear(a, b.t())
    assert flops(tracker.work, "matmul") == 2 * 3 * 5 * 7


@pytest.mark.parametrize(("causal", "share"), [(True, 0.5), (False, 1.0)])
def test_fused_attention_holds_no_score_matrix(causal: bool, share: float) -> None:
    query = torch.empty(1, 4, 4096, 32, device=META)
    with tracking("cpu") as tracker:
        functional.scaled_dot_product_attention(query, query, query, is_causal=causal)
    assert tracker.peak < 2 * query.numel() * 4
    assert flops(tracker.work, "attention") == share * 4 * 4 * 4096**2 * 32


def test_a_mask_is_held_as_numbers_that_are_added() -> None:
    query, key = torch.empty(1, 2, 64, 8, device=META), torch.empty(1, 2, 512, 8, device=META)
    mask = torch.empty(1, 1, 64, 512, dtype=torch.bool, device=META)
    with tracking("cpu") as tracker:
        functional.scaled_dot_product_attention(query, key, key, attn_mask=mask)
    assert tracker.peak == 64 * 512 * (1 + 4)


def test_grouped_heads_in_fp32_have_no_fused_kernel_on_cuda() -> None:
    query, key = torch.empty(1, 4, 256, 8, device=META), torch.empty(1, 2, 256, 8, device=META)
    peaks = {}
    for device in ("cpu", "cuda"):
        with tracking(device) as tracker:
            functional.scaled_dot_product_attention(
                query, key, key, is_causal=True, enable_gqa=True
            )
        peaks[device] = tracker.peak
    assert peaks["cuda"] > 4 * 256 * 256 * 4 > peaks["cpu"]


def test_questions_to_a_mask_are_answered_by_yes_and_others_refused() -> None:
    with tracking("cpu"):
        assert (torch.empty(3, device=META) == 0).all()
        with pytest.raises(NotImplementedError, match="a value of a tensor"):
            torch.empty(3, device=META).sum().item()


def test_nothing_is_counted_on_real_tensors() -> None:
    with tracking("cpu") as tracker:
        torch.ones(1000) * 2
    assert tracker.peak == 0
