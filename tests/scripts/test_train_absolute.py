from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
try:
    import train_absolute
    from train_absolute import BOS, EOS, IGNORED, Recipe, batch
finally:
    sys.path.pop(0)

from harness.checkpoint import open_checkpoint  # noqa: E402
from patches.positions import position_tables  # noqa: E402

STREAM = np.arange(2, 5002)
MASK = 9999


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_batch_depends_on_seed_and_step_alone(kind: str) -> None:
    recipe = Recipe(kind, steps=100)
    one, again = batch(STREAM, recipe, 70, MASK), batch(STREAM, recipe, 70, MASK)
    other = batch(STREAM, recipe, 71, MASK)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["input_ids"], other["input_ids"])


@pytest.mark.parametrize(("step", "length"), [(0, 16), (19, 16), (20, 32), (40, 128), (99, 128)])
def test_first_inputs_are_short_and_stand_anywhere_in_the_table(step: int, length: int) -> None:
    recipe = Recipe("masked", steps=100)
    inputs = batch(STREAM, recipe, step, MASK)
    assert inputs["input_ids"].shape == (16 * 128 // length, length)
    places = inputs["position_ids"]
    assert places.min() >= 0 and places.max() < 128
    assert torch.equal(places - places[:, :1], torch.arange(length).expand_as(places))
    assert (places[:, 0].unique().numel() > 1) == (length < 128)


def test_labels_are_what_the_masks_hide() -> None:
    inputs = batch(STREAM, Recipe("masked", steps=1), 0, MASK)
    ids, labels = inputs["input_ids"], inputs["labels"]
    hidden = ids == MASK
    assert torch.equal(hidden, labels != IGNORED)
    assert 0.1 < hidden.float().mean() < 0.2
    assert (ids[:, 0] == BOS).all() and (ids[:, -1] == EOS).all()
    text = torch.where(hidden, labels, ids)[:, 1:-1]
    assert (text.diff() == 1).all()  # the stream counts


def test_labels_of_a_causal_model_are_the_next_tokens() -> None:
    inputs = batch(STREAM, Recipe("causal", steps=1), 0, MASK)
    assert torch.equal(inputs["labels"][:, :-1], inputs["input_ids"][:, 1:])
    assert (inputs["labels"][:, -1] == IGNORED).all() and (inputs["input_ids"] != MASK).all()


def test_docstrings_come_once_and_without_the_default_corpus(tmp_path: Path) -> None:
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text('"""Measured on."""')
    (tmp_path / "b.py").write_text('"""Module b."""\ndef f():\n    """Does f."""\n')
    (tmp_path / "a.py").write_text('class A:\n    """Module b."""\nx = """No docstring."""\n')
    (tmp_path / "broken.py").write_text('"""Never" closed')
    assert train_absolute.docstrings(tmp_path) == ["Module b.", "Does f."]


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_trained_model_opens_as_what_it_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(f"Line {number} of a text that is there to be read." for number in range(300))
    monkeypatch.setattr(train_absolute, "docstrings", lambda root: [text, text.upper()])
    threads = torch.get_num_threads()
    command = ["--kind", kind, "--out", str(tmp_path), "--steps", "2"]
    assert train_absolute.main(command) == 0
    torch.set_num_threads(threads)
    opened = open_checkpoint(str(tmp_path))
    assert opened.is_masked == (kind == "masked")
    assert opened.original_max_position_embeddings == 128
    assert opened.tokenizer.bos_id == BOS
    assert opened.tokenizer.end_id == (EOS if kind == "masked" else None)
    model = opened.load(torch.float32, torch.device("cpu"))
    (table,) = position_tables(model)
    assert table.is_learned and table.positions == 128
