"""What is fetched for a task, how it is recognised, and how L-Eval's templates are made."""

import hashlib
import json
from pathlib import Path

import pytest

import tasks
from tasks.base import Source
from tasks.files import named
from tasks.leval import KINDS
from tasks.pinned import PINNED, Pinned, is_official, on_github

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "prompts"
TABLE = '{\n "qa": "{context}é"\n}\n'
FILE = Pinned(
    "ruler/templates.json",
    "some/where at 000000000000",
    hashlib.sha256(TABLE.encode()).hexdigest(),
    (on_github("some/where", "0" * 40, "templates.json"),),
)


def test_what_is_pinned_is_what_tasks_look_for() -> None:
    for name, files in PINNED.items():
        sources = tasks.parse(name).sources
        wanted = {sources[key].pattern for key in ("prompts", "limits") if key in sources}
        assert {file.name for file in files} == wanted
        for file in files:
            assert len(file.sha256) == 64
            assert file.remotes and (file.take is not None or len(file.remotes) == 1)


@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data/prompts")
def test_the_digests_are_those_of_the_benchmarks_files() -> None:
    folders = {"longbench": "longbench_v1", "longbench-v2": "longbench_v2"}
    for name, folder in folders.items():
        for file in PINNED[name]:
            assert file.is_it((SHARED / folder / file.name).read_bytes())


def test_a_row_says_whether_prompts_are_the_official_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PINNED, "ruler", (FILE,))
    path = tmp_path / "ruler" / "templates.json"
    path.parent.mkdir()
    sources = {"prompts": Source("ruler/templates.json", "own")}
    path.write_text(TABLE)
    assert is_official(path)
    (line,) = named(sources, {"prompts": path}, {"prompts": TABLE})
    assert line.startswith("prompts official templates.json@")
    path.write_text(TABLE + " ")
    (line,) = named(sources, {"prompts": path}, {"prompts": TABLE + " "})
    assert line.startswith("prompts templates.json@")
    assert named(sources, {}, {}) == ["prompts own"]
    path.write_text(TABLE)
    assert not is_official(path.rename(tmp_path / "templates.json"))


# What the two files of L-Eval are like, in other words.
CONFIG = """import gone
def about(args, name):
    if "gsm" in name:
        prompt = "As before. "
    elif "topic" in name:
        prompt  = "Talks. "
    elif "coursera" in name:
        prompt = "Letters. "
    elif "codeU" in name:
        prompt = "Code."
    elif "sci_fi" in name:
        prompt = "\\"True\\" or not."
    elif "exam" in args.metric:
        prompt = "A letter. "
    else:
        prompt = "Do it. "
    return prompt
"""
TEST = """for name in data:
    if "gsm" in name:
        context = document + "\\n\\n" + asked
        message = START + about + context
    elif "topic" in name:
        context = document + "\\n\\n" + asked
    elif exam:
        context = "Text: {document} \\nQ: {inst}. "
        message = START + about + context + END
        message += "\\nA:"
    else:
        context = "Text: {document} Do: {inst} " + f"\\nIn {len(out.split())} words."
    text = message.replace(document, "<long>")
    try:
        text_inputs = message.format(document=document, inst=asked)
    except ValueError:
        text_inputs = message
    text_inputs = asked.replace("in the document.", "in the world") + " Now.\\nA:"
"""


def test_templates_of_leval_come_out_of_two_sources() -> None:
    (file,) = PINNED["leval"]
    assert file.take is not None and [one.member for one in file.remotes] == ["", ""]
    found = json.loads(json.dumps(file.take(CONFIG.encode(), TEST.encode())))
    for name in ("tpo", "quality"):
        assert found[name] == "A letter. Text: {context} \nQ: {input}. \nA:"
    assert found["coursera"] == "Letters. Text: {context} \nQ: {input}. \nA:"
    assert found["sci_fi"] == '"True" or not.Text: {context} \nQ: {input}. \nA:'
    assert found["gsm100"] == "As before. {context}\n\n{input}"
    assert found["topic_retrieval_longchat"] == "Talks. {context}\n\n{input}"
    assert found["codeU"] == "Code.{context}\n\n{input}"
    assert found["sci_fi world"] == "{context}{input} Now.\nA:"
    assert found["sci_fi replaced"] == ["in the document.", "in the world"]
    free = {name for name, kind in KINDS.items() if kind != "exam"}
    assert {found[name] for name in free} == {
        "Do it. Text: {context} Do: {input} \nIn {words} words."
    }
    assert set(found) == {*KINDS, "sci_fi world", "sci_fi replaced"}


@pytest.mark.parametrize(
    "change", [("Talks", '" + "'), ('"As before. "', "7"), ("prompt = ", "said = "), ("def", "df")]
)
def test_a_source_that_reads_otherwise_is_not_the_file(change: tuple[str, str]) -> None:
    (file,) = PINNED["leval"]
    assert not file.is_it(file.made([CONFIG.replace(*change).encode(), TEST.encode()]))
    assert not file.is_it(file.made([CONFIG.encode(), TEST.encode()]))
