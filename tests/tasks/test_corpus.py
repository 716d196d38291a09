"""Where documents come from, which are taken, and what is said when they cannot be."""

import hashlib
import json
import sys
from types import SimpleNamespace

import pytest

from tasks.base import Source, TaskError
from tasks.corpus import load


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_default_corpus_is_the_whole_language_reference_in_equal_parts():
    from pydoc_data.topics import topics

    whole = load(None, 1)
    parts = load(None, 8)
    assert whole.name == parts.name == "pydoc"
    assert len(parts.documents) == 8
    in_order = sorted(parts.documents, key=lambda one: int(one.id[6:].split(":")[0]))
    assert "".join(one.text for one in in_order) == whole.documents[0].text
    assert all(one.text.endswith("\n") for one in parts.documents)
    sizes = [len(one.text) for one in parts.documents]
    assert max(sizes) - min(sizes) < 200
    first, last = min(topics), max(topics)
    assert whole.documents[0].text.startswith(topics[first].strip("\n")[:200])
    assert whole.documents[0].text.endswith(topics[last].strip("\n")[-200:] + "\n")


def test_the_default_corpus_has_a_digest_of_its_texts():
    corpus = load(None, 3)
    assert corpus == load(None, 3)
    assert len(corpus.digest) == 12
    assert corpus.digest != load(None, 4).digest


def test_a_text_file_is_one_document_named_by_its_file(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\n".encode())
    corpus = load(str(tmp_path / "a.txt"), 1)
    assert [(one.id, one.text) for one in corpus.documents] == [("a.txt", "one\ntwo\n")]
    assert corpus.name == str(tmp_path / "a.txt")
    framed = (8).to_bytes(8, "big") + b"one\ntwo\n"
    assert corpus.digest == hashlib.sha256(framed).hexdigest()[:12]


def test_a_jsonl_file_is_one_document_a_line_and_keeps_ids_that_differ(tmp_path):
    path = tmp_path / "a.jsonl"
    separator = '{"text": "d\u2028d", "id": 7}\n'  # a raw line separator inside a JSON string
    path.write_text(
        lines({"text": "aaaa"}, {"text": "bbb", "_id": "x"}) + "\n" + separator, "utf-8"
    )
    corpus = load(str(path), 3)
    assert [(one.id, one.text) for one in corpus.documents] == [
        ("a.jsonl:1", "aaaa"),
        ("7", "d\u2028d"),
        ("x", "bbb"),
    ]


def test_the_longest_documents_are_taken_and_ties_go_by_id(tmp_path):
    for name, size in [("b", 5), ("a", 5), ("c", 9), ("d", 2)]:
        (tmp_path / f"{name}.txt").write_text(name * size)
    chosen = [[one.id for one in load(str(tmp_path), n).documents] for n in (1, 2, 3)]
    assert chosen == [["c.txt"], ["c.txt", "a.txt"], ["c.txt", "a.txt", "b.txt"]]


def test_the_digest_depends_on_the_texts_and_their_borders_alone(tmp_path):
    digests = {}
    for name, rows in {
        "one": [{"text": "ab"}, {"text": "c"}],
        "same": [{"text": "ab", "id": "p"}, {"text": "c", "id": "q"}],
        "moved": [{"text": "a"}, {"text": "bc"}],
    }.items():
        (tmp_path / f"{name}.jsonl").write_text(lines(*rows))
        digests[name] = load(str(tmp_path / f"{name}.jsonl"), 2).digest
    assert digests["one"] == digests["same"] != digests["moved"]


def test_a_directory_is_read_to_its_leaves_and_equal_ids_get_their_place(tmp_path):
    for folder in ("x", "y", ".hidden"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_text(lines({"text": folder, "id": "same"}))
    (tmp_path / "notes.md").write_text("not read")
    (tmp_path / "c.txt").write_text("c")
    ids = {one.id for one in load(str(tmp_path), 3).documents}
    assert ids == {"x/a.jsonl:1:same", "y/a.jsonl:1:same", "c.txt"}
    with pytest.raises(TaskError, match="has 3 documents"):
        load(str(tmp_path), 4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt: empty"),
        ("a.txt", b" \n\n", r"a\.txt: empty"),
        ("a.txt", b"ok \xff no", r"a\.txt: not UTF-8, byte 0xff at 3"),
        ("a.jsonl", b"\n\n", r"a\.jsonl: empty"),
        ("a.jsonl", b'{"text": "a"}\n{oops\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', r"a\.jsonl:2: a JSON list; expected an object"),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', r"a\.jsonl:1: no field 'text'; fields: body, id"),
        ("a.jsonl", b'{"text": 5}\n', r"a\.jsonl:1: field 'text' is no string"),
        ("a.jsonl", b'{"text": " "}\n', r"a\.jsonl:1: field 'text' is empty"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl:1: .*surrogate"),
        ("a.csv", b"text\na\n", r"a\.csv: suffix '\.csv' unknown; expected a \.txt, "),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=message) as error:
        load(str(tmp_path / name), 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", ["nowhere/a.txt", "a.jsonl", "./nowhere", "/no/such/place", ""])
def test_a_missing_path_is_refused_without_asking_the_hub(monkeypatch, tmp_path, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it would fail otherwise
    if not data:
        data = str(tmp_path / "a b")
    with pytest.raises(TaskError, match=r"no such file or directory; expected a \.txt, "):
        load(data, 1)


def test_a_directory_without_documents_is_refused(tmp_path):
    with pytest.raises(TaskError, match=r"no \.txt, \.jsonl or \.json file in it"):
        load(str(tmp_path), 1)


@pytest.mark.parametrize("n", [0, -3])
def test_n_below_one_is_refused(n):
    with pytest.raises(TaskError, match=f"--n {n}: expected an integer of at least 1"):
        load(None, n)


def test_more_documents_than_there_are_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(TaskError, match=r"--n 2: '.*a\.txt' has 1 documents; lower --n"):
        load(str(tmp_path / "a.txt"), 2)


class Offline(ConnectionError):
    """Stands for the hub's error of that kind."""


class HTTPError(Exception):
    """Stands for the error of the hub's own HTTP library, which is no OSError."""


class DatasetsError(Exception):
    """Stands for the base of the errors of `datasets`."""


@pytest.fixture
def hub(monkeypatch):
    """A hub without a network: set `asked` and `loaded` to a value or to an exception."""
    state = SimpleNamespace(asked=None, loaded={}, calls=[])

    def answer(value):
        if isinstance(value, Exception):
            raise value
        return value

    def dataset_info(name, timeout):
        state.calls.append(("info", name))
        return answer(state.asked)

    def get_dataset_split_names(name, config):
        return list(answer(state.loaded))

    def load_dataset(name, config, split):
        state.calls.append(("load", name, config, split))
        return state.loaded[split]

    errors = SimpleNamespace(HTTPError=HTTPError, OfflineModeIsEnabled=Offline)
    api = SimpleNamespace(dataset_info=dataset_info)
    module = SimpleNamespace(HfApi=lambda: api, errors=errors)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    exceptions = SimpleNamespace(DatasetsError=DatasetsError)
    datasets = SimpleNamespace(
        load_dataset=load_dataset,
        get_dataset_split_names=get_dataset_split_names,
        exceptions=exceptions,
    )
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    return state


def test_a_hub_data_set_gives_the_test_split_before_training_data(hub):
    hub.loaded = {"train": [{"text": "no"}], "test": [{"text": "bb"}, {"text": "aaa"}]}
    corpus = load("owner/books:en", 2)
    assert [(one.id, one.text) for one in corpus.documents] == [("test:1", "aaa"), ("test:0", "bb")]
    assert corpus.name == "owner/books:en"
    assert hub.calls == [("info", "owner/books"), ("load", "owner/books", "en", "test")]


@pytest.mark.parametrize(
    "problem",
    [
        HTTPError("[Errno -2] Name or service not known"),
        ConnectionError("no route"),
        FileNotFoundError("Dataset 'owner/books' doesn't exist"),
    ],
)
def test_an_unreachable_hub_is_asked_once_and_is_one_line(hub, problem):
    hub.asked = problem
    with pytest.raises(
        TaskError, match=r"--data owner/books: no such file.*HF_HUB_OFFLINE"
    ) as error:
        load("owner/books", 1)
    assert str(problem) in str(error.value)
    assert hub.calls == [("info", "owner/books")]


def test_offline_mode_reads_the_cached_copy(hub):
    hub.asked = Offline("offline mode is enabled")
    hub.loaded = {"train": [{"text": "cached"}]}
    assert load("owner/books", 1).documents[0].text == "cached"


@pytest.mark.parametrize(
    "problem",
    [
        ValueError("Config name is missing.\nPlease pick one among ['a', 'b']"),
        RuntimeError("Dataset scripts are no longer supported"),
        DatasetsError("generation failed"),
    ],
)
def test_a_data_set_that_does_not_load_says_why_in_one_line(hub, problem):
    hub.loaded = problem
    with pytest.raises(TaskError, match=str(problem).split("\n")[0]) as error:
        load("owner/books", 1)
    assert "\n" not in str(error.value)


def test_a_data_set_without_text_or_a_known_split_is_refused(hub):
    hub.loaded = {"test": [{"body": "a"}]}
    with pytest.raises(TaskError, match="owner/books:test:0: no field 'text'; fields: body"):
        load("owner/books", 1)
    hub.loaded = {"extra": []}
    with pytest.raises(TaskError, match="splits extra; expected test, validation, train"):
        load("owner/books", 1)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match="pip install datasets"):
        load("owner/books", 1)


def test_a_bug_inside_loading_keeps_its_traceback(hub):
    hub.loaded = KeyError("bug")
    with pytest.raises(KeyError):
        load("owner/books", 1)


def test_a_haystack_is_all_text_in_the_order_of_ids_for_every_sample(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"Text {name}. " * (9 if name == "a" else 1))
    corpus = load(str(tmp_path), 3, "haystack")
    assert [one.id for one in corpus.documents] == ["sample 0", "sample 1", "sample 2"]
    assert {one.text for one in corpus.documents} == {"Text a. " * 9 + "\n\nText b. "}
    assert corpus.digest == load(str(tmp_path), 7, "haystack").digest
    (tmp_path / "b.txt").write_text("Text c. ")
    assert corpus.digest != load(str(tmp_path), 3, "haystack").digest


def test_the_default_haystack_does_not_depend_on_n():
    few, many = (load(None, n, "haystack") for n in (1, 50))
    assert few.documents == many.documents[:1] and few.digest == many.digest
    assert len(few.documents[0].text) > 100_000


def test_tasks_that_read_nothing_get_ids_alone():
    corpus = load(None, 2, "nothing")
    assert [(one.id, one.text) for one in corpus.documents] == [("sample 0", ""), ("sample 1", "")]
    assert corpus.name == corpus.digest == ""


SOURCES = {
    "haystack": Source("essays.json", "of the data"),
    "prompts": Source("ruler/templates.json", "own"),
    "squad": Source("squad*.json"),
}


def put(path, **files):
    for name, text in files.items():
        place = path / name.replace("__", "/").replace("_json", ".json").replace("_txt", ".txt")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def test_a_json_file_is_one_document_and_counts_where_there_is_nothing_else(tmp_path):
    put(tmp_path, a_json=json.dumps({"text": "An essay."}))
    for data in (tmp_path, tmp_path / "a.json"):
        assert load(str(data), 1).documents[0].text == "An essay."
    put(tmp_path, b_txt="A text.")
    assert [one.text for one in load(str(tmp_path), 1).documents] == ["A text."]


def test_sources_are_found_by_the_end_of_their_path_and_named_with_their_digest(tmp_path):
    put(tmp_path, b_txt="Text.", x__squad_dev_json="[1]", y__ruler__templates_json="{}")
    corpus = load(str(tmp_path), 2, "haystack", SOURCES)
    for document in corpus.documents:
        assert dict(document.sources) == {"squad": "[1]", "prompts": "{}"}
        assert document.text == "Text."
    name, haystack, prompts, squad = corpus.name.split("; ")
    assert (name, haystack) == (str(tmp_path), "haystack of the data")
    framed = (2).to_bytes(8, "big") + b"{}"
    assert prompts == f"prompts templates.json@{hashlib.sha256(framed).hexdigest()[:12]}"
    assert squad.startswith("squad squad_dev.json@")


def test_a_haystack_among_the_sources_stands_for_all_documents(tmp_path):
    put(tmp_path, b_txt="Text.", essays_json=json.dumps({"text": "Essay."}))
    corpus = load(str(tmp_path), 1, "haystack", SOURCES)
    assert corpus.documents[0].text == "Essay."
    assert corpus.name.split("; ")[2:] == ["prompts own", "squad none"]


def test_the_digest_holds_every_source(tmp_path):
    put(tmp_path, b_txt="Text.", squad_json="[1]")
    before = load(str(tmp_path), 1, "haystack", SOURCES).digest
    put(tmp_path, squad_json="[2]")
    after = load(str(tmp_path), 1, "haystack", SOURCES).digest
    put(tmp_path, c_txt="More.")
    assert len({before, after, load(str(tmp_path), 1, "haystack", SOURCES).digest}) == 3
    assert load(str(tmp_path), 1, "haystack").documents[0].text == "Text.\n\nMore."


def test_a_directory_of_sources_alone_has_no_haystack(tmp_path):
    put(tmp_path, squad_json="[1]")
    (document,) = load(str(tmp_path), 1, "haystack", SOURCES).documents
    assert document.text == "" and document.sources["squad"] == "[1]"


def test_sources_need_no_data():
    corpus = load(None, 1, "haystack", SOURCES)
    assert not corpus.documents[0].sources and len(corpus.documents[0].text) > 10_000
    assert corpus.name == "pydoc; haystack of the data; prompts own; squad none"


def test_two_files_for_one_source_are_refused(tmp_path):
    put(tmp_path, b_txt="Text.", squad_1_json="[1]", squad_2_json="[2]")
    with pytest.raises(TaskError, match=r"2 files called squad\*\.json.*one of them"):
        load(str(tmp_path), 1, "haystack", SOURCES)


def test_keys_of_a_row_are_intervals_of_its_text_and_part_of_the_digest(tmp_path):
    path, digests = tmp_path / "a.jsonl", set()
    for keys in ([], [[0, 2]], [[0, 2], [2, 5]]):
        path.write_text(lines({"text": "hello", "keys": keys}))
        corpus = load(str(path), 1)
        assert corpus.documents[0].keys == tuple(map(tuple, keys))
        digests.add(corpus.digest)
    path.write_text(lines({"text": "hello"}))
    assert load(str(path), 1).documents[0].keys is None
    assert len({*digests, load(str(path), 1).digest}) == 4


@pytest.mark.parametrize(
    "keys", [[[2, 2]], [[3, 1]], [[0, 3], [2, 4]], [[0, 6]], [[-1, 2]], [[0.5, 2]], [1, 2], 7, None]
)
def test_keys_of_another_form_are_refused(keys, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"text": "hello", "keys": keys}))
    with pytest.raises(TaskError, match=r"a\.jsonl:1: field 'keys' is no list of rising pairs"):
        load(str(tmp_path / "a.jsonl"), 1)
