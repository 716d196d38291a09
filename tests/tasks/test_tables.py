"""Rows of several files: which are taken, what they are called, and what is refused."""

import json

import pytest

from tasks import tables
from tasks.base import Source, Table, TaskError
from tasks.corpus import load
from tasks.rows import read

SOURCES = {"prompts": Source("ask.json", "own")}
TABLES = {"a": Table(("a.jsonl",)), "b": Table(("b.json", "other.jsonl"))}


def put(path, name, rows):
    path.mkdir(exist_ok=True)
    (path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def loaded(data, n=2, wanted=None):
    return load(str(data), n, "rows", SOURCES, wanted or TABLES)


@pytest.fixture
def data(tmp_path):
    put(tmp_path / "deep", "a.jsonl", [{"x": number} for number in range(5)])
    (tmp_path / "b.json").write_text(json.dumps([{"x": "only"}]))
    return tmp_path


def test_the_first_rows_of_each_table_fewer_where_it_has_fewer(data):
    corpus = loaded(data)
    assert [(one.id, one.table, one.row.fields) for one in corpus.documents] == [
        ("a:1", "a", {"x": 0}),
        ("a:2", "a", {"x": 1}),
        ("b:1", "b", {"x": "only"}),
    ]
    assert corpus.documents[1].row.where == f"{data}/deep/a.jsonl:2"
    assert corpus.name == f"{data}; prompts own" and not corpus.documents[0].sources


def test_empty_lines_keep_the_numbers_of_the_others(data):
    (data / "deep" / "a.jsonl").write_text('\n{"x": 1}\r\n\n{"x": "\u2028"}\n')
    assert [one.id for one in loaded(data).documents] == ["a:2", "a:4", "b:1"]


def test_sources_go_with_every_row_and_into_name_and_digest(data):
    before = loaded(data)
    (data / "ask.json").write_text("{}")
    after = loaded(data)
    assert all(one.sources == {"prompts": "{}"} for one in after.documents)
    assert after.name.startswith(f"{data}; prompts ask.json@") and before.digest != after.digest


def test_the_digest_is_of_the_rows_taken(data):
    digests = {loaded(data, n).digest for n in (1, 2, 5, 9)}
    assert len(digests) == 3
    put(data / "deep", "a.jsonl", [{"x": 0}, {"x": 1}, {"x": "changed"}])
    assert loaded(data, 2).digest in digests and loaded(data, 3).digest not in digests


def test_the_first_pattern_that_is_there_counts(data):
    put(data, "other.jsonl", [{"x": "other"}])
    assert loaded(data).documents[-1].row.fields == {"x": "only"}
    (data / "b.json").unlink()
    assert loaded(data).documents[-1].row.fields == {"x": "other"}
    only = loaded(data / "other.jsonl", 1, {"b": TABLES["b"]})
    assert [one.id for one in only.documents] == ["b:1"]


def test_rows_that_are_left_out_are_said_and_do_not_count(data):
    table = {"a": Table(("a.jsonl",), without={"x": (0, 2)})}
    corpus = loaded(data, 2, table)
    assert [one.id for one in corpus.documents] == ["a:2", "a:4"]
    assert corpus.name == f"{data}; prompts own; a without 2 rows"
    with pytest.raises(TaskError, match=r"a\.jsonl: no row for a"):
        loaded(data, 2, {"a": Table(("a.jsonl",), without={"x": (0, 1, 2, 3, 4)})})


def test_missing_files_are_named_and_what_there_is_is_offered(data):
    more = TABLES | {"c": Table(("c.jsonl",)), "d": Table(("d.jsonl",))}
    with pytest.raises(TaskError, match=r"no c\.jsonl, d\.jsonl in it; .* with subset=a\+b$"):
        loaded(data, 1, more)
    with pytest.raises(TaskError, match=r"no c\.jsonl in it; give the benchmark's files$"):
        loaded(data, 1, {"c": more["c"]})
    with pytest.raises(TaskError, match=r"nowhere: no such file.*a\.jsonl, b\.json in it"):
        loaded(data / "nowhere")
    with pytest.raises(TaskError, match=r"rows are needed, such as a\.jsonl; .*--data"):
        load(None, 1, "rows", SOURCES, TABLES)
    (data / "a.jsonl").write_text("{}\n")
    with pytest.raises(TaskError, match=r"2 files called a\.jsonl"):
        loaded(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"x": 1}\n{"x"\n', r"a\.jsonl:2: not JSON .*column 5"),
        (b'{"x": 1}\n[1]\n', r"a\.jsonl:2: a list; expected an object"),
        (b"\xff", r"a\.jsonl: not UTF-8 at byte 0"),
        (b"\n \n", r"a\.jsonl: empty"),
    ],
)
def test_a_malformed_row_is_named_with_its_line(data, text, message):
    (data / "deep" / "a.jsonl").write_bytes(text)
    with pytest.raises(TaskError, match=message):
        loaded(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"b\.json: not JSON"),
        ("{}", r"b\.json: an object; expected a list of objects"),
        ("[{}, 3]", r"b\.json:2: 3; expected an object"),
    ],
)
def test_a_malformed_list_is_named(tmp_path, text, message):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(TaskError, match=message):
        read(tmp_path / "b.json")


def test_rows_come_from_the_configs_of_a_hub_data_set(monkeypatch):
    asked = []

    def hub_rows(data, expected):
        asked.append(data)
        return "test", [{"x": data, "number": number} for number in range(3)]

    monkeypatch.setattr(tables, "hub_rows", hub_rows)
    wanted = {"a": Table(("a.jsonl",), "a_e"), "b": Table(("b.jsonl",))}
    corpus = loaded("owner/name", 2, wanted)
    assert asked == ["owner/name:a_e", "owner/name"]
    assert [one.id for one in corpus.documents] == ["a:0", "a:1", "b:0", "b:1"]
    assert corpus.documents[1].row.where == "owner/name:a_e:test:1"
    assert corpus.name == "owner/name; prompts own"
    loaded("owner/name:own", 1, {"a": wanted["a"]})
    assert asked[2:] == ["owner/name:own"]
    with pytest.raises(TaskError, match="no such file or directory"):
        loaded("nowhere")
