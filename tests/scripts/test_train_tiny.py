from __future__ import annotations

import hashlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
try:
    import tiny_source
    import train_tiny
    from tiny_model import optimizer_of
finally:
    sys.path.pop(0)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("books")
    words = [a + b for a in ("ka", "lo", "mi", "ru") for b in ("ten", "sol", "var", "nim")]
    rng = np.random.default_rng(0)
    for name in ("first", "second", "herman-melville_moby-dick"):
        lines = [" ".join(rng.choice(words, 12)).capitalize() + "." for _ in range(40)]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "bram-stoker_dracula.txt").write_text("Xyzzy " * 400, encoding="utf-8")
    return folder


def smoke(books: Path, out: Path, scratch: Path, *more: str) -> int:
    options = ["--data", str(books), "--out", str(out), "--scratch", str(scratch), "--smoke"]
    return train_tiny.main([*options, "--every", "2", "--save-seconds", "0", *more])


def digest(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def asset(books: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asset")
    assert smoke(books, folder / "tiny", folder / "scratch", "--steps", "4") == 0
    return folder / "tiny"


def test_asset_loads_and_is_a_plain_llama(asset: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(asset)
    tokenizer = transformers.AutoTokenizer.from_pretrained(asset)
    assert model.config.model_type == "llama"
    assert model.config.rope_parameters["rope_type"] == "default"
    assert model.config.max_position_embeddings == 64
    assert model.lm_head.weight is model.model.embed_tokens.weight
    text = "Katen lovar 1234\n\tdef f(é):"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer(text).input_ids == [tokenizer.bos_token_id, *ids]
    assert torch.isfinite(model(torch.tensor([[0, *ids]])).logits).all()


def test_readme_names_the_books_trained_on_and_the_weights(asset: Path) -> None:
    card = (asset / "README.md").read_text(encoding="utf-8")
    assert "- first `" in card and "- second `" in card
    assert "- bram-stoker" not in card and "- herman-melville" not in card
    assert digest(asset) in card


def test_held_out_books_are_never_trained_on(books: Path, asset: Path) -> None:
    read = tiny_source.read_books(books)
    assert sorted(read.training) == ["first", "second"]
    assert sorted(read.held_out) == ["bram-stoker_dracula", "herman-melville_moby-dick"]
    assert "Xyz" not in (asset / "tokenizer.json").read_text(encoding="utf-8")


def test_same_seed_gives_the_same_weights(books: Path, asset: Path, tmp_path: Path) -> None:
    smoke(books, tmp_path / "same", tmp_path / "a", "--steps", "4")
    smoke(books, tmp_path / "other", tmp_path / "b", "--steps", "4", "--seed", "1")
    assert digest(tmp_path / "same") == digest(asset)
    assert digest(tmp_path / "other") != digest(asset)


def test_an_interrupted_run_resumes_to_the_same_weights(
    books: Path, asset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = train_tiny.Run.advance

    def interrupted(run: train_tiny.Run, source: tiny_source.Source) -> float:
        if run.step == 3:
            raise KeyboardInterrupt
        return advance(run, source)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_tiny.Run, "advance", interrupted)
        smoke(books, tmp_path / "tiny", tmp_path / "scratch", "--steps", "4")
    assert digest(tmp_path / "tiny") != digest(asset)
    smoke(books, tmp_path / "tiny", tmp_path / "scratch", "--steps", "4")
    assert digest(tmp_path / "tiny") == digest(asset)
    assert not list((tmp_path / "scratch").iterdir())


def test_sequences_begin_with_bos_and_hide_nothing_from_the_length(books: Path) -> None:
    texts = list(tiny_source.read_books(books).training.values())
    tokenizer = tiny_source.train_tokenizer(texts, 300)
    source = tiny_source.Source(
        tokenizer, texts, tiny_source.Recipe(length=96, retrieval=1.0, lessons=())
    )
    for step in range(20):
        tokens, labels = source.batch(step)
        assert tokens.shape == labels.shape == (8, 96)
        assert (tokens[:, 0] == tiny_source.BOS).all()
        assert (labels != tiny_source.IGNORED).any(dim=1).all()
        kept = labels != tiny_source.IGNORED
        assert (labels[kept] == tokens[kept]).all()


def test_lessons_come_first_and_repeat_random_tokens(books: Path) -> None:
    texts = list(tiny_source.read_books(books).training.values())
    lessons = (tiny_source.Lesson(3, 9, 32, 4), tiny_source.Lesson(2, 40, 64, 2))
    recipe = tiny_source.Recipe(length=96, batch=3, lessons=lessons)
    source = tiny_source.Source(tiny_source.train_tokenizer(texts, 300), texts, recipe)
    shapes = [tuple(source.batch(step)[0].shape) for step in range(7)]
    assert shapes == [(4, 32)] * 3 + [(2, 64)] * 2 + [(3, 96)] * 2
    for step, symbols in ((0, 9), (1, 9), (2, 9), (3, 40), (4, 40)):
        for tokens, labels in zip(*(part.tolist() for part in source.batch(step)), strict=True):
            size = tokens.index(tokens[1], 2) - 1
            span = tokens[1 : 1 + size]
            assert len(set(span)) == size and set(span) <= set(range(2, 2 + symbols))
            assert tokens == ([0] + span * 32)[: len(tokens)]
            assert labels == [tiny_source.IGNORED] * (size + 1) + tokens[size + 1 :]


def test_rates_are_full_in_the_lessons_and_fall_to_the_end() -> None:
    lessons = (tiny_source.Lesson(10, 4, 8, 1),)
    recipe = tiny_source.Recipe(
        steps=30, warmup=5, lessons=lessons, vocab=64, hidden=32, layers=1, inner=32
    )
    run = train_tiny.Run(recipe)
    shares = []
    for run.step in range(30):
        shares.append(run.share())
    assert shares[:10] == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 6)
    assert shares[10] == pytest.approx(1.0)
    assert all(a > b for a, b in itertools.pairwise(shares[10:]))
    assert shares[-1] < 0.03


def test_muon_takes_the_matrices_of_the_layers_and_nothing_else() -> None:
    recipe = tiny_source.Recipe(vocab=64, hidden=32, layers=2, inner=32)
    run = train_tiny.Run(recipe)
    names = {
        type(optimizer_of(run.optimizers, parameter)).__name__: set()
        for parameter in run.named.values()
    }
    for name, parameter in run.named.items():
        names[type(optimizer_of(run.optimizers, parameter)).__name__].add(name)
    assert all("_proj" in name for name in names["Muon"]) and len(names["Muon"]) == 2 * 7
    assert "model.embed_tokens.weight" in names["AdamW"]
    assert set.union(*names.values()) == set(run.named)


@pytest.mark.parametrize(
    ("names", "message"),
    [(None, "no folder"), (["pride-and-prejudice"], "no book to train on"), (["x"], "tokens")],
)
def test_bad_data_is_one_clear_line(
    names: list[str] | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "books"
    if names is not None:
        folder.mkdir()
        for name in names:
            (folder / f"{name}.txt").write_text("A short text.", encoding="utf-8")
    assert smoke(folder, tmp_path / "out", tmp_path / "scratch") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]
