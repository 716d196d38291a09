"""Answers that several readings choose: against whole forwards without a cache, and the oracle."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import patches
from harness.cli import main
from harness.decoding import decode
from harness.engine import Engine
from harness.errors import NonFinite
from harness.generate import Prompt, generate
from patches.apply import apply
from patches.decoding import Decoding
from tests import oracle_decoding as oracle
from tests.harness.conftest import TRAINED_LENGTH, command, make_model, table
from tests.models import WINDOWED, tiny, tokens, windowed
from tests.models import logits as model_logits
from tests.tasks.toy import SOURCES

CPU = torch.device("cpu")
TOKENS = [(7 * index * index + 3 * index) % 256 for index in range(120)]
OTHERS = [(5 * index * index + 11 * index) % 256 for index in range(120)]
BORDERS = (4, 20, 25, 41, 50)
PROMPTS = [
    Prompt(TOKENS[:57], 7, None, BORDERS),
    Prompt(OTHERS[:30], 5, None, (1, 9, 22)),
    Prompt(OTHERS[:61], 7, None, (0, 30, 55)),
]
ONE = Prompt(TOKENS[:57], 9, None, (4, 50))


@contextmanager
def patched(spec: str, chunk: int | None = None) -> Iterator[Callable[..., list[list[int]]]]:
    """What continues prompts under a patch."""
    model, patch = make_model(), patches.parse(spec)
    with apply(model, patch, 160, TRAINED_LENGTH) as applied:
        engine = Engine(model, chunk, CPU)
        if patch.decoding is None:
            yield lambda prompts: list(generate(engine, prompts))
        else:
            more = (patch.decoding, TRAINED_LENGTH, applied.readings)
            yield lambda prompts: list(decode(engine, prompts, *more))


def made(spec: str, prompts: Sequence[Prompt], chunk: int | None = None) -> list[list[int]]:
    with patched(spec, chunk) as run:
        return run(prompts)


def test_an_end_is_not_chosen_among_the_fewest_tokens() -> None:
    model, patch = make_model(), patches.parse("nbce")
    with apply(model, patch, 160, TRAINED_LENGTH):
        engine = Engine(model, None, CPU)
        (free,) = decode(engine, PROMPTS[:1], patch.decoding, TRAINED_LENGTH)
        for least in (0, 1):
            ends = ((free[0],), least)
            prompt = Prompt(PROMPTS[0].tokens, 7, lambda made: False, BORDERS, *ends)
            (answer,) = decode(engine, [prompt], patch.decoding, TRAINED_LENGTH)
            assert bool(answer) == bool(least) and free[0] not in answer


def logits(model, tokens: Sequence[int]) -> list[float]:
    """Logits behind the last token, by one forward without a cache."""
    with torch.inference_mode():
        return model(torch.tensor([list(tokens)]), use_cache=False).logits[0, -1].double().tolist()


def likeliest(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda token: scores[token])


def nbce(
    prompt: Prompt,
    beta: float = 0.25,
    top_p: float = 0.95,
    eta: float = 0.1,
    model: Any = None,
) -> list[int]:
    """The answer by whole forwards, a context at a time."""
    tokens, (first, *_, last) = list(prompt.tokens), prompt.borders
    model = model or make_model()
    parts = [[], *(tokens[a:b] for a, b in itertools.pairwise(prompt.borders))]
    new: list[int] = []
    k = None
    while len(new) < prompt.max_new_tokens:
        rows = [[*tokens[:first], *part, *tokens[last:], *new] for part in parts]
        empty, *contexts = (oracle.log_softmax(logits(model, row)) for row in rows)
        scores, k = oracle.nbce(empty, contexts, k, beta, top_p, eta)
        new.append(likeliest(scores))
    return new


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_nbce_answers_as_whole_forwards_of_each_context(prompt: Prompt, chunk: int | None) -> None:
    assert made("nbce", [prompt], chunk) == [nbce(prompt)]
    given = {"beta": 1.0, "top_p": 0.6, "eta": 2.0}
    assert made("nbce(beta=1,top_p=0.6,eta=2)", [prompt], chunk) == [nbce(prompt, **given)]


def test_nbce_with_beta_0_and_one_context_is_the_plain_model() -> None:
    plain = made("none", [ONE])
    assert made("nbce(beta=0,windows=1)", PROMPTS[:1]) == [plain[0][:7]]
    assert made("nbce(beta=0)", [ONE]) == plain
    assert made("nbce(beta=0,top_p=0.01,eta=0)", [ONE]) == plain
    assert made("nbce(beta=3,top_p=1)", [ONE]) != plain


def test_nbce_joins_contexts_to_windows() -> None:
    joined = Prompt(TOKENS[:57], 7, None, (4, 25, 50))
    assert made("nbce(windows=2)", PROMPTS[:1]) == [nbce(joined)]
    assert made("nbce(windows=2)", PROMPTS[:1]) != made("nbce", PROMPTS[:1])


def pcw(prompt: Prompt, borders: Sequence[int], base: float = 1e4, logn: bool = False) -> list[int]:
    """The answer by dense attention in float64, its mask and positions spelled out."""
    model = make_model().double()
    model.set_attn_implementation("eager")
    inv_freq = [base ** (-2 * d / 8) for d in range(4)]
    model.model.rotary_emb.inv_freq = torch.tensor(inv_freq, dtype=torch.float64)
    new: list[int] = []
    while len(new) < prompt.max_new_tokens:
        tokens = [*prompt.tokens, *new]
        positions, seen = oracle.pcw(borders, len(tokens))
        mask = torch.where(torch.tensor(seen), 0.0, -torch.inf).double()[None, None]
        keys = [math.log(sum(row)) / math.log(TRAINED_LENGTH) for row in seen]
        scales = torch.tensor([max(1.0, one) if logn else 1.0 for one in keys])[:, None]
        hooks = [
            layer.self_attn.q_proj.register_forward_hook(lambda _, __, q, c=scales: q * c)
            for layer in model.model.layers
        ]
        with torch.inference_mode():
            out = model(
                torch.tensor([tokens]),
                attention_mask=mask,
                position_ids=torch.tensor([positions]),
                use_cache=False,
            )
        new.append(likeliest(out.logits[0, -1].tolist()))
        for hook in hooks:
            hook.remove()
    return new


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_pcw_answers_as_dense_attention_with_its_mask(prompt: Prompt, chunk: int | None) -> None:
    windows = len(prompt.borders) - 1
    assert made(f"pcw(windows={windows})", [prompt], chunk) == [pcw(prompt, prompt.borders)]
    assert made("pcw(windows=2)", PROMPTS[:1], chunk) == [pcw(PROMPTS[0], (4, 25, 50))]


def test_pcw_has_the_frequencies_of_another_patch() -> None:
    given = made("pcw(windows=4)+rope-base(theta=500)", PROMPTS[:1])
    assert given == [pcw(PROMPTS[0], BORDERS, 500)] != made("pcw(windows=4)", PROMPTS[:1])


def test_a_query_scale_counts_the_keys_that_a_query_sees_under_pcw() -> None:
    longer, borders = Prompt(TOKENS[:115], 9, None, (10, 60, 105)), (10, 60, 105)
    given = made("pcw(windows=2)+logn", [longer])
    assert given == [pcw(longer, borders, logn=True)] != made("pcw(windows=2)", [longer])


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gpt_oss", "deepseek_v3", "glm"])
def test_pcw_works_on_other_families_their_own_windows_lifted(family: str) -> None:
    model = windowed(family) if family in WINDOWED else tiny(family)
    borders, patch = (3, 20, 35, 50), patches.parse("pcw(windows=3)")
    prompt, new = Prompt(tokens(60)[0].tolist(), 6, None, borders), []
    with apply(model, patch, 66, 66):
        (answer,) = decode(Engine(model, None, CPU), [prompt], patch.decoding, 66)
        while len(new) < 6:
            ids = torch.tensor([[*prompt.tokens, *new]])
            positions, seen = oracle.pcw(borders, ids.shape[1])
            mask = torch.where(torch.tensor(seen), 0.0, torch.finfo(torch.float32).min)[None, None]
            places = torch.tensor([positions])
            out = model_logits(model, ids, attention_mask=mask, position_ids=places)
            new.append(int(out[0, -1].argmax()))
    assert answer == new


@pytest.mark.parametrize("partner", ["", "+ntk", "+logn"])
def test_pcw_with_one_window_is_the_model(partner: str) -> None:
    plain = made(partner.removeprefix("+") or "none", PROMPTS)
    assert made(f"pcw(windows=1){partner}", PROMPTS) == plain
    assert made(f"pcw(windows=2){partner}", PROMPTS) != plain


def test_pcw_takes_windows_that_fit_the_trained_length() -> None:
    assert made("pcw", PROMPTS[:1]) == made("pcw(windows=1)", PROMPTS[:1])  # 57 + 7 of 64
    longer = Prompt(TOKENS[:57], 8, None, BORDERS)
    assert made("pcw", [longer]) == made("pcw(windows=2)", [longer])


def buckets(prompt: Prompt, bases: Sequence[float], partner: str = "") -> list[int]:
    """The answer by whole forwards of a model with each base."""
    new: list[int] = []
    while len(new) < prompt.max_new_tokens:
        readings = []
        for base in bases:
            model = make_model()
            size = model.config.hidden_size // model.config.num_attention_heads
            inv_freq = [base ** (-2 * d / size) for d in range(size // 2)]
            model.model.rotary_emb.inv_freq.copy_(torch.tensor(inv_freq))
            with apply(model, patches.parse(partner or "none"), 160, TRAINED_LENGTH):
                readings.append(oracle.log_softmax(logits(model, [*prompt.tokens, *new])))
        new.append(likeliest(oracle.attention_buckets(readings)))
    return new


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_attention_buckets_answer_as_models_of_each_base(prompt: Prompt, chunk: int | None) -> None:
    plain = Prompt(prompt.tokens, prompt.max_new_tokens)  # contexts are no matter
    bases = [500.0, 1e4, 4e5]
    answer = made("attention-buckets(bases=500+1e4+4e5)", [plain], chunk)
    assert answer == [buckets(prompt, bases)]
    expected = buckets(prompt, [1e4 * one for one in (1, 1.75, 1.8, 1.9, 2, 2.5)])
    assert made("attention-buckets", [prompt], chunk) == [expected]


@pytest.mark.parametrize("partner", ["logn", "rerope(window=8)", "window(size=9)+sinks+logn"])
def test_attention_buckets_have_their_bases_beside_other_patches(partner: str) -> None:
    spec = f"attention-buckets(bases=500+1e4+4e5)+{partner}"
    expected = [buckets(prompt, [500.0, 1e4, 4e5], partner) for prompt in PROMPTS[:2]]
    assert made(spec, PROMPTS[:2]) == expected


@pytest.mark.parametrize("takes_logits", [True, False])
def test_a_method_is_given_logits_or_log_probabilities(takes_logits: bool) -> None:
    model, prompt, seen = make_model(), Prompt(PROMPTS[0].tokens, 1), []

    def first(readings: torch.Tensor, last: int | None) -> tuple[torch.Tensor, None]:
        seen.append(readings)
        return readings[0].clone(), None

    list(decode(Engine(model, None, CPU), [prompt], Decoding(first, takes_logits=takes_logits), 64))
    expected = torch.tensor(logits(model, prompt.tokens))
    given = expected if takes_logits else expected.log_softmax(-1)
    assert seen[0].tolist() == [pytest.approx(given.tolist(), abs=1e-5)]


@pytest.mark.parametrize("mean", ["", ",mean=logits"])
@pytest.mark.parametrize("partner", ["", "+logn", "+rerope(window=8)"])
def test_attention_buckets_with_the_models_own_base_are_the_model(partner: str, mean: str) -> None:
    plain = made(partner.removeprefix("+") or "none", PROMPTS)
    assert made(f"attention-buckets(bases=10000{mean}){partner}", PROMPTS) == plain
    assert made(f"attention-buckets(bases=10000+10000{mean}){partner}", PROMPTS) == plain
    assert made(f"attention-buckets(bases=300{mean}){partner}", PROMPTS) != plain


@pytest.mark.parametrize(
    "spec",
    ["nbce", "nbce+ntk+logn", "nbce+rerope(window=8)", "attention-buckets+dca", "pcw(windows=2)"],
)
def test_prompts_together_are_answered_as_one_by_one(spec: str) -> None:
    alone = [made(spec, [prompt])[0] for prompt in PROMPTS]
    assert made(spec, PROMPTS) == made(spec, PROMPTS, chunk=7) == alone
    assert [len(answer) for answer in alone] == [7, 5, 7]


def test_what_a_patch_does_to_attention_reaches_every_reading() -> None:
    assert made("nbce+rerope(window=8)", PROMPTS) != made("nbce", PROMPTS)
    assert made("nbce+ntk", PROMPTS) != made("nbce", PROMPTS)


def test_an_answer_ends_as_it_does_without_readings() -> None:
    model, patch = make_model(), patches.parse("nbce")
    engine = Engine(model, None, CPU)
    (free,) = decode(engine, [PROMPTS[0]], patch.decoding, TRAINED_LENGTH)
    enough = Prompt(TOKENS[:57], 7, lambda tokens: len(tokens) >= 3, BORDERS)
    assert list(decode(engine, [enough], patch.decoding, TRAINED_LENGTH)) == [free[:3]]
    engine.end_ids = frozenset(free[:1])
    may = Prompt(TOKENS[:57], 7, lambda tokens: False, BORDERS)
    assert list(decode(engine, [may], patch.decoding, TRAINED_LENGTH)) == [[]]


def test_nan_in_any_reading_names_the_position() -> None:
    model, patch = make_model(), patches.parse("nbce")
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(NonFinite, match="generated position 57"):
        list(decode(Engine(model, None, CPU), PROMPTS[:1], patch.decoding, TRAINED_LENGTH))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Data of a task whose prompts are documents and a question."""
    folder = tmp_path / "questions"
    folder.mkdir()
    (folder / "squad.json").write_text(SOURCES["squad"])
    for name in ("one.txt", "two.txt"):
        (folder / name).write_text("The cat sat here. A dog ran by! " * 200)
    return folder


def asked(model: Path, data: Path, out: Path, patch: str, task: str, *more: str) -> list[str]:
    given = command(model, data, out, "--task", task, "--n", "2", *more)
    given[given.index("--patch") + 1] = patch
    given[given.index("--len") + 1] = "512" if task in ("ppl", "needle") else "2k"
    return given


@pytest.mark.parametrize(
    ("patch", "task", "attention"),
    [
        ("nbce", "ruler(tasks=qa_1)", "sdpa"),
        ("pcw", "ruler(tasks=qa_1)", "sdpa"),
        ("attention-buckets", "needle", "sdpa"),
        ("rerope+attention-buckets", "needle", "blockwise"),
    ],
)
def test_a_task_runs_from_the_command_line(
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    patch: str,
    task: str,
    attention: str,
) -> None:
    more = ("--batch", "2")
    assert main(asked(checkpoint, questions, tmp_path / "out", patch, task, *more)) == 0
    said = capsys.readouterr().err
    assert f"--batch 2 does not act on {patch}: answers are generated singly\n" in said
    rows = table(tmp_path / "out")
    assert {row["batch"] for row in rows} == {"1"}
    assert {row["attention"] for row in rows} == {attention}
    assert {(row["patch"], row["status"], row["task"]) for row in rows} == {(patch, "ok", task)}


@pytest.mark.parametrize(
    ("patch", "task", "words"),
    [
        ("nbce", "needle", "reads contexts apart and the task has none to separate in sample"),
        ("nbce", "ppl", "chooses generated tokens and the task scores given ones"),
        ("pcw", "needle", "reads contexts apart and the task has none to separate in sample"),
        ("attention-buckets", "ppl", "chooses generated tokens and the task scores given ones"),
        ("ntk+nbce", "ruler(tasks=vt+qa_1)", "has none to separate in sample 'sample 0, vt'"),
        ("nbce(windows=99)", "ruler(tasks=qa_1)", "windows=99: a prompt has 6 contexts"),
    ],
)
def test_a_task_that_a_patch_cannot_act_on_is_refused_in_a_line(
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    patch: str,
    task: str,
    words: str,
) -> None:
    assert main(asked(checkpoint, questions, tmp_path / "out", f"none,{patch}", task)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in line and patch in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.csv"))
