"""The grammar of task specs and its errors."""

import pytest

import tasks
from tasks import TASKS, TaskError, describe, parse


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("ppl", "ppl"),
        ("ppl()", "ppl"),
        (" ppl( protocol = last ) ", "ppl"),
        ("ppl(protocol=sliding,stride=2k)", "ppl(protocol=sliding,stride=2048)"),
        ("ppl(stride=2k,protocol=sliding)", "ppl(protocol=sliding,stride=2048)"),
        ("ppl(protocol=by-position,bucket=128)", "ppl(protocol=by-position,bucket=128)"),
        ("continuation(lang=en,new=50)", "continuation(new=50)"),
        ("continuation(lang=zh)", "continuation(lang=zh)"),
        ("repeat(unit=1m)", "repeat(unit=1048576)"),
    ],
)
def test_the_canonical_spec_has_no_defaults_and_reads_back(given, canonical):
    task = parse(given)
    assert task.spec == canonical
    assert parse(task.spec) == task


@pytest.mark.parametrize("name", TASKS)
def test_every_task_names_itself_and_describes_its_parameters_and_source(name):
    assert parse(name).name == name
    text = describe(name)
    assert "Source:" in text
    assert "Parameters:\n  " in text


def test_an_unknown_task_is_refused_with_the_accepted_and_the_nearest():
    with pytest.raises(TaskError) as error:
        parse("pplx")
    assert str(error.value) == (
        f"unknown task 'pplx'; expected one of {', '.join(TASKS)}; did you mean 'ppl'? "
        "(python -m harness list tasks)"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ppl(strid=2k)", r"unknown parameter 'strid' of task 'ppl'.*did you mean 'stride'\?"),
        (
            "ppl(protocol=slidin)",
            r"ppl\(protocol=slidin\): expected one of last, sliding.*'sliding'",
        ),
        ("continuation(lang=fr)", r"lang=fr.*en, zh"),
        ("ppl(last=0)", r"last=0.*at least 1"),
        ("ppl(last=-4)", r"last=-4.*integer"),
        ("ppl(last=2kb)", r"last=2kb.*such as 2k"),
        ("ppl(last=1.5k)", r"last=1\.5k"),
        ("ppl(last=٣)", r"last=٣"),
        ("ppl(last=1,last=2)", r"'last' is given twice"),
        ("ppl(last)", r"'last' is no parameter; expected key=value"),
        ("ppl(last=)", r"'last=' is no parameter"),
        ("ppl(last=1", r"not a task"),
        ("ppl(last=1))", r"not a task"),
        ("ppl+repeat", r"not a task"),
        ("", r"not a task"),
        ("ppl(stride=8)", r"'stride' belongs to protocol=sliding"),
        ("ppl(protocol=sliding,last=8)", r"'last' belongs to protocol=last"),
        ("ppl(protocol=sliding,bucket=8)", r"'bucket' belongs to protocol=by-position"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_value(spec, message):
    with pytest.raises(TaskError, match=message) as error:
        parse(spec)
    assert "\n" not in str(error.value)


def test_the_task_error_is_one_class_everywhere():
    from tasks.base import TaskError as from_base
    from tasks.spec import TaskError as from_spec

    assert tasks.TaskError is from_base is from_spec
    assert issubclass(from_base, ValueError)
