"""Every task of the table keeps the contract, whatever it measures."""

import socket
import subprocess
import sys

import pytest

import tasks
from tasks import TASKS
from tasks.base import Document, Sample
from tasks.intervals import interval
from tasks.metrics import METRICS
from tasks.ruler import PARTS
from tests.tasks.benchmarks import documents_of
from tests.tasks.toy import SOURCES, Bytes, Words, played, story

SPECS = [
    *TASKS,
    "ppl(protocol=sliding)",
    "ppl(protocol=by-position)",
    "ppl(protocol=longppl)",
    "continuation(lang=zh)",
    "passkey(depth=0.3,digits=7)",
    "needle(keys=4)",
    "needle(values=4)",
    "needle(queries=4,digits=3)",
    "passkey(digits=15)",
    "facts(hops=2)",
    *(f"ruler(tasks={name})" for name in PARTS),
    "longbench(subset=few-shot+vcsum,cut=context)",
    "longbench-v2(cut=context)",
]
READS = {spec: tasks.parse(spec).reads for spec in SPECS}
OF_TEXT = [spec for spec in SPECS if READS[spec] == "documents"]
HIDDEN = [
    spec
    for spec in SPECS
    if READS[spec] in ("haystack", "nothing") and not spec.startswith("ruler")
]
DOCUMENTS = [story(name, 3000) for name in ("first", "second", "third")]
TRAINED = 256
LENGTHS = {"kv": (1024, 2048), "needle(queries=4,digits=3)": (1024, 2048)}  # with room enough
LENGTHS |= {"facts(hops=2)": (700, 1024)}
LENGTHS |= {spec: (3500, 4000) for spec in SPECS if spec.startswith("ruler")}
LENGTHS |= {"leval": (1500, 2000)}
ROOMY = 3500
WITHOUT_CONTEXT = ("sci_fi 1",)  # positions
BEST = {"nll": 0.0, "ppl": 1.0, "bleu": 100.0, "bleu-zh": 100.0}
BEST |= {"ruler": 100.0, "longbench": 100.0, "longbench-v2": 100.0, "code_sim-levenshtein": 100.0}
BEST |= {"infinitebench": 100.0, "leval-exam": 100.0, "leval-f1": 100.0, "leval-rouge": 100.0}
BEST |= {"gain": 0.0, "key_share": 0.0}  # a right answer without the long context gains nothing


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a task opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


def given(task):
    """What a task reads: three documents, three times all their text, rows, or nothing but ids."""
    if task.reads == "rows":
        return documents_of(task)
    text = {"haystack": "\n\n".join(one.text for one in DOCUMENTS), "nothing": ""}
    sources = {name: text for name, text in SOURCES.items() if name in task.sources}
    return [Document(one.id, text.get(task.reads, one.text), sources=sources) for one in DOCUMENTS]


def tokens_used(sample: Sample) -> int:
    passes = [len(one.tokens) for one in sample.passes]
    return max([*passes, len(sample.prompt) + sample.max_new_tokens])


def values(task, samples, outputs):
    """Final values by (metric, position), and the number of samples that each rests on."""
    table = {}
    for sample, output in zip(samples, outputs, strict=True):
        scores = task.score(sample, output)
        assert any(not score.position for score in scores) or task.reads != "rows"
        for score in scores:
            table.setdefault((score.metric, score.position), []).append(score.stats)
    names = [sample.document for sample in samples]
    whole = {len(stats) for (_, position), stats in table.items() if not position}
    return {
        key: interval(key[0], stats, names[: len(stats)], seed=0)[0] for key, stats in table.items()
    }, whole or {len(stats) for stats in table.values()}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("tokenizer", [Bytes(), Bytes(bos_id=None), Words()])
@pytest.mark.parametrize("place", [0, 1])
def test_samples_repeat_and_fill_the_budget_without_exceeding_it(spec, tokenizer, place):
    task = tasks.parse(spec)
    length = LENGTHS.get(spec, (600, 1024))[place]
    samples = task.samples(given(task), tokenizer, length, TRAINED, seed=7)
    assert samples == task.samples(given(task), tokenizer, length, TRAINED, seed=7)
    assert list(dict.fromkeys(sample.document for sample in samples)) == [
        one.id for one in given(task)
    ]
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        assert 0.95 * length <= tokens_used(sample) <= length or sample.position in WITHOUT_CONTEXT
        assert not sample.position or tokens_used(sample) == length or task.reads == "rows"
        assert bool(sample.cut) == (task.reads == "rows" and sample.position not in WITHOUT_CONTEXT)
        assert sample.passes or (sample.prompt and sample.max_new_tokens and sample.reference)
        assert tokenizer.bos_id is None or sample.prompt[:1] in ((), (tokenizer.bos_id,))
        assert tokenizer.bos_id not in sample.prompt[1:]
        for one in sample.passes:
            assert 1 <= one.score_from < len(one.tokens)
            assert tokenizer.bos_id is None or one.tokens[0] == tokenizer.bos_id
            assert tokenizer.bos_id not in one.tokens[1:]


@pytest.mark.parametrize("spec", SPECS)
def test_the_reference_as_prediction_scores_best(spec):
    task = tasks.parse(spec)
    samples = task.samples(given(task), Bytes(), ROOMY, TRAINED, seed=0)
    scored, counts = values(task, samples, [played(one, lambda _: 0.0, True) for one in samples])
    assert counts == {len(samples)} or task.reads == "rows"  # some metrics are of some data sets
    for (metric, _), value in scored.items():
        assert value == pytest.approx(BEST.get(metric, 1.0))
    assert len(samples) >= 3


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_right_and_nothing_said_scores_zero_where_more_is_better(spec):
    task = tasks.parse(spec)
    samples = task.samples(given(task), Bytes(), ROOMY, TRAINED, seed=0)
    scored, counts = values(
        task, samples, [played(one, lambda _: 9.0, False, answer="") for one in samples]
    )
    assert counts == {len(samples)} or task.reads == "rows"
    for (metric, _), value in scored.items():
        better_is_more = METRICS[metric].better == "higher"
        assert value == 0.0 if better_is_more else value >= 9.0 - 1e-9


@pytest.mark.parametrize("spec", OF_TEXT)
def test_a_document_that_is_too_short_is_named_with_its_tokens_and_what_to_do(spec):
    short = Document("pamphlet", "a few words")
    with pytest.raises(tasks.TaskError, match=r"'pamphlet' has 11 tokens.*--len.*--n.*--data"):
        tasks.parse(spec).samples([short], Bytes(), 512, TRAINED, seed=0)


@pytest.mark.parametrize("spec", SPECS)
def test_a_length_without_room_is_refused_with_the_length(spec):
    with pytest.raises(tasks.TaskError, match=r"--len 1\b"):
        tasks.parse(spec).samples(given(tasks.parse(spec)), Bytes(), 1, TRAINED, seed=0)


@pytest.mark.parametrize("spec", SPECS)
def test_every_metric_of_a_task_is_in_the_table_with_its_detail(spec):
    task = tasks.parse(spec)
    sample = task.samples(given(task), Bytes(), ROOMY, TRAINED, seed=0)[0]
    for score in task.score(sample, played(sample, lambda _: 1.0, True)):
        assert METRICS[score.metric].name == score.metric
        assert METRICS[score.metric].detail


@pytest.mark.parametrize("spec", HIDDEN)
def test_a_hidden_answer_does_not_depend_on_length_or_on_other_samples(spec):
    task = tasks.parse(spec)
    many = task.samples(given(task) * 4, Bytes(), ROOMY, TRAINED, seed=3)
    few = task.samples(given(task), Bytes(), 2 * ROOMY, TRAINED, seed=3)
    assert [one.reference for one in few] == [one.reference for one in many[:3]]
    assert len({one.prompt for one in many}) == len(many)
    assert task.samples(given(task), Bytes(), ROOMY, TRAINED, seed=3) == many[:3]
    other = task.samples(given(task), Bytes(), ROOMY, TRAINED, seed=4)
    assert not {one.prompt for one in other} & {one.prompt for one in many}


@pytest.mark.parametrize("spec", HIDDEN)
def test_the_prompt_holds_every_part_of_the_hidden_answer(spec):
    task = tasks.parse(spec)
    for sample in task.samples(given(task), Bytes(), ROOMY, TRAINED, seed=0):
        text = Bytes().decode(sample.prompt)
        for part in sample.reference.split():
            assert part in text
        answer = Bytes().encode(" " + ", ".join(sample.reference.split()) + ".")
        said = Bytes().decode(answer[: sample.max_new_tokens])
        right = played(sample, lambda _: 0.0, True, answer=said)
        assert all(score.stats[0] == 1 for score in task.score(sample, right))
        wrong = played(sample, lambda _: 9.0, False, answer=text[:60])
        assert all(score.stats[0] == 0 for score in task.score(sample, wrong))


@pytest.mark.parametrize("protocol", ["ppl", "ppl(last=64)", "repeat", "repeat(unit=16)"])
def test_the_id_stays_while_the_context_grows(protocol):
    task = tasks.parse(protocol)
    ids = {
        tuple(sample.id for sample in task.samples(DOCUMENTS, Bytes(), length, TRAINED, seed=0))
        for length in (256, 512, 2048)
    }
    assert len(ids) == 1


def test_the_package_imports_no_numpy_and_the_tasks_no_torch():
    code = (
        "import sys, tasks\n"
        "assert 'numpy' not in sys.modules\n"
        "for name in tasks.TASKS: tasks.parse(name)\n"
        "import tasks.corpus\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sacrebleu', 'rouge_score'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
