"""`doctor --noise`, and what compare makes of it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.checkpoint import open_checkpoint
from harness.cli import main
from tasks.corpus import load
from tests.harness.reports.test_compare import NLL, cell, run, shifted, table_of

LENGTH = 256
SIZE = r"  +(\d\.\de[+-]\d+)"
ROW = re.compile(rf"^(\S.*?){SIZE}{SIZE}{SIZE}$", re.MULTILINE)


def nll(dtype: torch.dtype, size: int) -> np.ndarray:
    """That of the second half of the first tokens, by plain forwards of transformers."""
    checkpoint = open_checkpoint("tiny")
    model = checkpoint.load(dtype, torch.device("cpu"))
    text = checkpoint.tokenizer.encode(load(None, 1).documents[0].text)
    tokens = torch.tensor([[checkpoint.tokenizer.bos_id, *text[: LENGTH - 1]]])
    cache, logits = None, []
    with torch.inference_mode():
        for part in tokens.split(size, 1):
            out = model(part, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits.append(out.logits[0])
    losses = torch.nn.functional.cross_entropy(
        torch.cat(logits)[:-1].float(), tokens[0, 1:], reduction="none"
    )
    return losses[LENGTH // 2 - 1 :].double().numpy()


def test_noise_is_that_of_plain_forwards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--noise", "tiny", "--len", str(LENGTH), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    rows = {name: tuple(map(float, sizes)) for name, *sizes in ROW.findall(printed)}
    assert [*rows] == [
        "float32, chunks of 64",
        "float32, blockwise attention",
        "bfloat16, chunks of 64",
        "bfloat16, blockwise attention",
        "bfloat16 to float32",
    ]
    apart = nll(torch.bfloat16, LENGTH) - nll(torch.float32, LENGTH)
    wanted = (np.abs(apart).max(), np.abs(apart).mean(), abs(apart.mean()))
    assert rows["bfloat16 to float32"] == pytest.approx(wanted, rel=0.3)
    chunks = np.abs(nll(torch.float32, 64) - nll(torch.float32, LENGTH))
    assert 0 < chunks.max() / 4 < rows["float32, chunks of 64"][0] < 4 * chunks.max()
    assert all(mean <= each <= largest for largest, each, mean in rows.values())
    assert f"{rows['bfloat16 to float32'][2]:.1e} between float32 and bfloat16" in printed


@pytest.mark.parametrize("words", [["--len", "4"], ["--len", "4m"]])
def test_a_length_that_does_not_go_is_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--noise", "tiny", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: --len {4 if words[1] == '4' else 4 << 20}: ")


@pytest.mark.parametrize(
    ("noise", "verdict"), [("0.2", "below noise 0.2"), ("0.05", "worse"), ("0", "worse")]
)
def test_a_difference_within_the_noise_is_no_verdict(
    noise: str, verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [run(tmp_path / "a", cell("ntk", NLL)), run(tmp_path / "b", cell("ntk", shifted(0.1)))]
    code = main(["compare", *sides, "--noise", noise, "--fail-if", "worse>0"])
    assert code == (verdict == "worse")
    assert table_of(capsys)[1].endswith(f"  {verdict}")


def test_options_of_noise_need_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--len", "1k"]) == 2
    assert "belong to --noise MODEL" in capsys.readouterr().err


def test_a_noise_below_zero_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    side = run(tmp_path / "a", cell("ntk", NLL))
    assert main(["compare", side, side, "--noise", "-1"]) == 2
    assert "--noise -1" in capsys.readouterr().err
