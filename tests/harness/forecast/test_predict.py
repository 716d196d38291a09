"""Predictions against formulas of a Llama, and against one measured peak."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness.forecast import predict
from harness.forecast.predict import Forecast, Predictor
from harness.forecast.rates import Rates, measure_rates
from harness.plan import Cell, Request, plan
from patches import PatchError
from patches.kernels import ROWS
from tests.harness.forecast.test_tracker import flops
from tests.harness.test_masked import save as save_masked

V, H, F, L, HEADS, D = 1024, 192, 512, 4, 6, 32  # the bundled model; key heads are query heads
WEIGHTS = 4 * (V * H + L * (4 * H * HEADS * D + 3 * H * F + 2 * H) + H)
LENGTH, SCORED = 1024, 256
ASSETS = Path(predict.__file__).parents[1] / "assets" / "tiny"


def cells(patch: str = "none", task: str = "ppl", **changes: object) -> list[Cell]:
    fixed = {"lengths": (LENGTH,), "data": None, "n": 1, "seed": 0, "dtype": "float32"}
    settings = fixed | {"device": "cpu", "chunk": None} | changes
    settings = {"models": ("tiny",)} | settings
    request = Request(patches=(patch,), tasks=(task,), **settings)
    return plan(request, torch.device("cpu"))


def forecast(patch: str = "none", task: str = "ppl", **changes: object) -> Forecast:
    return Predictor().forecast(cells(patch, task, **changes)[0])


def body(tokens: int) -> int:
    """Flops of all projections of some tokens."""
    return 2 * tokens * L * (4 * H * HEADS * D + 3 * H * F)


def test_work_of_a_pass_is_that_of_the_formula() -> None:
    work, inputs = forecast().work, LENGTH - 1
    assert flops(work, "matmul") == body(inputs) + 2 * SCORED * H * V
    assert flops(work, "attention") == 2 * L * HEADS * D * inputs**2


def test_a_longer_table_of_learned_positions_is_read_to_its_end(tmp_path: Path) -> None:
    width, layers, positions = 64, 2, 300
    shape = {"n_embd": width, "n_layer": layers, "n_head": 2, "n_positions": positions}
    GPT2LMHeadModel(
        GPT2Config(vocab_size=V, bos_token_id=0, eos_token_id=1, **shape)
    ).save_pretrained(tmp_path)
    for file in ASSETS.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    asked = {"models": (str(tmp_path),), "lengths": (LENGTH,)}
    found, inputs = forecast("hierarchical", **asked), LENGTH - 1
    scored = positions // 2  # of a table that is this short
    assert flops(found.work, "matmul") == 24 * inputs * layers * width**2 + 2 * scored * width * V
    assert flops(found.work, "attention") == 2 * layers * width * inputs**2
    weights = 4 * (width * (V + positions) + 12 * layers * width**2)
    assert found.tensors > weights + 4 * width * LENGTH
    with pytest.raises(PatchError, match=f"has {positions} positions, fewer than the {LENGTH}"):
        forecast("none", **asked)


def test_a_model_that_fills_in_masks_reads_all_in_one_forward(tmp_path: Path) -> None:
    model = save_masked(tmp_path)
    width, layers, words, length, hidden = 32, 2, 260, 64, 5  # 15 % of the last 32 tokens
    asked = {"models": (str(model),), "lengths": (length,)}
    (cell,) = cells("none", "masked(last=32)", **asked)
    found = Predictor().forecast(cell)
    (one,) = cell.samples[0].passes
    assert len(one.tokens) == length and len(one.hidden) == hidden
    body = 2 * length * layers * (4 * width**2 + 2 * width * 48)
    head = 2 * length * (width**2 + width * words)  # logits of all places
    assert flops(found.work, "matmul") == body + head
    assert flops(found.work, "attention") == 4 * layers * width * length**2  # no causal half
    longer = forecast("hierarchical", "masked(last=32)", **asked | {"lengths": (2 * length,)})
    assert flops(longer.work, "matmul") == 2 * (body + head)
    with pytest.raises(PatchError, match="has 64 positions, fewer than the 128"):
        forecast("none", "masked(last=32)", **asked | {"lengths": (2 * length,)})


def test_weights_are_counted_once_and_to_the_byte() -> None:
    (cell,) = cells()
    model = predict.shape_model(cell.checkpoint, torch.float32)
    buffers = sum(one.numel() * 4 for one in model.buffers())
    assert predict.weight_bytes(model) == WEIGHTS + buffers
    half = predict.shape_model(cell.checkpoint, torch.bfloat16)
    assert sum(one.numel() * one.element_size() for one in half.parameters()) == WEIGHTS // 2


def test_memory_holds_weights_and_the_widest_tensors_and_grows_by_length() -> None:
    short, long = (forecast(lengths=(length,)).tensors for length in (4096, 8192))
    widest = 4 * 8191 * (H + 3 * F)  # the residual beside gate, up and their product
    assert WEIGHTS + widest < long < WEIGHTS + 2 * widest
    assert long - short == pytest.approx((long - WEIGHTS) / 2, rel=0.05)


def test_chunks_read_the_same_in_less_memory_where_no_mask_is_needed() -> None:
    whole = forecast("window(size=128)", lengths=(8192,))
    cut = forecast("window(size=128)", lengths=(8192,), chunk=512)
    heads = 15 * 2 * H * V  # a forward without scored rows computes the logits of one
    assert flops(cut.work, "matmul") == flops(whole.work, "matmul") + heads
    cache = 2 * L * 8191 * HEADS * D * 4
    assert WEIGHTS + cache < cut.tensors < whole.tensors + cache - 4 * 6000 * 3 * F


def test_frequencies_cost_what_none_costs_and_bands_what_they_see() -> None:
    none, ntk, window = (forecast(one) for one in ("none", "ntk", "window(size=128)"))
    assert ntk == none
    seen = LENGTH - 1 - 128 / 2  # keys of all queries together, in windows
    pairs = flops(window.work, "attention") / (4 * L * HEADS * D)
    masked = (ROWS - 1) * (LENGTH - 128)  # by a block of queries, which reads a stretch of keys
    assert pairs == pytest.approx(128 * seen + masked, rel=0.01)
    assert flops(window.work, "matmul") == flops(none.work, "matmul")


def test_the_newest_tokens_alone_are_read_where_the_patch_keeps_no_more() -> None:
    work = forecast("truncate").work
    assert flops(work, "matmul") == pytest.approx(body(511) + 2 * SCORED * H * V, rel=1e-9)


def test_an_answer_costs_a_step_a_token_and_its_cache() -> None:
    short, long = (forecast(task=f"continuation(new={new})") for new in (8, 40))
    more = flops(long.work, "matmul") - flops(short.work, "matmul")
    assert more == 2 * 32 * 2 * H * V  # of steps, and of the pass over what really follows
    cache = 2 * L * LENGTH * HEADS * D * 4
    assert short.tensors > WEIGHTS + cache


def test_an_answer_is_a_prompt_read_and_a_step_fewer_than_tokens() -> None:
    (cell,) = cells(task="passkey")
    (sample,) = cell.samples
    prompt, new = len(sample.prompt), sample.max_new_tokens
    work = Predictor().forecast(cell).work
    assert flops(work, "matmul") == body(prompt) + 2 * H * V + (new - 1) * (body(1) + 2 * H * V)


def test_chunks_attend_to_all_before_them() -> None:
    work = forecast(lengths=(2049,), chunk=256).work
    pairs = sum(256 * (start + 256) for start in range(0, 2048, 256))  # masked, so in full
    assert flops(work, "attention") == 4 * L * HEADS * D * pairs


def test_few_of_many_equal_layers_tell_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    (cell,) = cells("rerope+logn", "ppl", chunk=300)
    config = AutoConfig.from_pretrained(cell.checkpoint.directory)
    config.num_hidden_layers = 9
    config.save_pretrained(tmp_path)
    checkpoint = cell.checkpoint.__class__(
        **{**vars(cell.checkpoint), "config": config, "directory": tmp_path}
    )
    deep = Cell(checkpoint, cell.patch, cell.task, cell.samples, cell.template, cell.key)
    few = Predictor().forecast(deep)
    monkeypatch.setattr(predict, "FEW", (4, 5))  # their sum is 9: all layers are run
    every = Predictor().forecast(deep)
    assert few.tensors == every.tensors
    for kind in ("matmul", "attention"):
        assert flops(few.work, kind) == pytest.approx(flops(every.work, kind), rel=1e-12)
    assert sum(few.work.values()) == pytest.approx(sum(every.work.values()))


@pytest.mark.parametrize("patch", ["dca", "string", "lm-infinite", "leaky-rerope", "self-extend"])
def test_every_band_patch_runs_without_values(patch: str) -> None:
    pairs = flops(forecast(patch).work, "attention") / (4 * L * HEADS * D)
    assert 0.05 * LENGTH**2 < pairs < 0.6 * LENGTH**2


def test_several_readings_hold_a_cache_each() -> None:
    task = "passkey"
    one, six = forecast(task=task), forecast("attention-buckets", task)
    cache = 2 * L * LENGTH * HEADS * D * 4
    assert six.tensors - one.tensors == pytest.approx(5 * cache, rel=0.05)
    assert flops(six.work, "attention") == pytest.approx(6 * flops(one.work, "attention"), rel=0.05)


def test_the_model_is_left_whole() -> None:
    predictor = Predictor()
    first, _ = (predictor.forecast(one) for one in (*cells("rerope"), *cells("dca")))
    assert predictor.forecast(cells("rerope")[0]) == first


def test_seconds_are_those_of_the_longer_of_flops_and_bytes() -> None:
    work = forecast().work
    slow = Rates(matmul=1e9, attention=1e9, moved=1e30, call=0.0)
    expected = (flops(work, "matmul") + flops(work, "attention")) / 1e9
    assert slow.seconds(work) == pytest.approx(expected)
    idle = Rates(matmul=1e30, attention=1e30, moved=1e30, call=0.5)
    assert idle.seconds(work) == pytest.approx(0.5 * sum(work.values()))


def test_rates_are_measured_at_once() -> None:
    (cell,) = cells()
    rates = measure_rates(cell.checkpoint.config, torch.float32, torch.device("cpu"))
    assert 1e8 < rates.matmul < 1e14
    assert 1e8 < rates.attention < 1e14
    assert 1e7 < rates.moved < 1e13
    assert 1e-7 < rates.call < 1e-2


def test_the_predicted_peak_of_8k_tokens_is_within_15_percent_of_the_measured(
    tmp_path: Path,
) -> None:
    grid = ["--patch", "none,rerope", "--len", "8k", "--n", "1", "--out", str(tmp_path / "run")]
    for command, table in (("plan", "plan.csv"), ("run", "run.csv")):
        subprocess.run(
            [sys.executable, "-m", "harness", command, *grid, "--csv", str(tmp_path / table)],
            check=True,
            capture_output=True,
        )
    peaks = {}
    for name in ("plan", "run"):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        peaks[name] = {row["patch"]: float(row["peak_memory_gib"]) for row in rows}
    assert peaks["plan"].keys() == {"none", "rerope"}
    for patch, predicted in peaks["plan"].items():
        assert predicted == pytest.approx(peaks["run"][patch], rel=0.15)
