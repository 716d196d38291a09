"""The shapes of the benchmarks are those of the models that they are named after."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
try:
    from shapes import SHAPES, build, shape
finally:
    sys.path.pop(0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("135m", 134_515_008), ("8b", 8_030_261_248)],  # 135 M and 8.03 B
)
def test_a_shape_has_the_parameters_of_its_model(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape(name))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_made_where_and_as_it_runs(dtype: torch.dtype) -> None:
    model = build("narrow", 2, dtype, "cpu")
    assert model.dtype == dtype and model.config.num_hidden_layers == 2
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert set(SHAPES) == {"135m", "8b", "narrow"}
