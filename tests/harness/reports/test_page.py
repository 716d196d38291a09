import dataclasses
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from harness.cli import main
from harness.journal import Journal
from harness.reports.findings import (
    about_cost,
    about_length,
    about_retrieval,
    front,
    rank_correlation,
)
from harness.reports.page import render_page
from harness.reports.rerun import command_of
from harness.reports.svg import Axis, Line, Point, chart
from harness.results import Record, Row
from tests.harness.reports.test_compare import NLL, cell, failed, run, shifted
from tests.harness.reports.test_report import measured
from tests.harness.test_results import ROW

VOID = {"meta", "br", "wbr"}
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("BROWSER") or next(filter(None, map(shutil.which, NAMES)), "")
NASTY = "<script>alert('x')</script>&\"'"


class Strict(HTMLParser):
    """Every tag is closed in order; all tags, attributes and texts are kept."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.values: dict[str, list[str]] = {}
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.values.setdefault(name, []).append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def found(patch: str, value: float, depth: str = "", length: int = 64, text: str = "") -> Record:
    row = dataclasses.replace(
        ROW,
        patch=patch,
        task="needle",
        context_length=length,
        metric="string_match",
        value=value,
        better="higher",
        ci_low=None,
    )
    rows = (row, dataclasses.replace(row, position="depth 0.5"))
    key = {"model": "small", "task": "needle", "patch": patch, "context_length": length}
    sample = {
        "id": "0",
        "document": "0",
        "text": text,
        "scores": [["string_match", "", [value, 1.0]]],
    }
    return Record(key, rows, (sample,))


PATCHES = {"none": 0.0, "ntk": -0.5, "yarn": 0.25}
RECORDS = [
    *(measured(patch, 64, shifted(by)) for patch, by in PATCHES.items()),
    *(measured(patch, 128, shifted(2 * by)) for patch, by in PATCHES.items()),
    measured("pi", 128, [0.0], status="oom"),
    *(found(patch, abs(by)) for patch, by in PATCHES.items()),
    *(found(patch, abs(by) / 2, length=128) for patch, by in PATCHES.items()),
]


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    page = Strict(render_page(RECORDS))
    assert page.tags.count("svg") >= 4
    assert page.tags.count("script") == 1
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not {"src", "href", "srcset", "action"} & set(page.values)
    assert "http:" not in render_page(RECORDS)
    assert "https:" not in render_page(RECORDS)
    assert "url(" not in render_page(RECORDS)


def test_a_name_may_break_behind_its_joints() -> None:
    row = dataclasses.replace(RECORDS[0].rows[0], task="ruler(tasks=vt+cwe)")
    page = render_page([dataclasses.replace(RECORDS[0], rows=(row,))])
    assert page.count("ruler(tasks=vt+<wbr>cwe)") == 2  # the head and the line of the table
    assert "--task 'ruler(tasks=vt+cwe)'" in "".join(Strict(page).texts)


def test_names_errors_and_predictions_are_escaped() -> None:
    bad = failed(RECORDS[0])
    row = dataclasses.replace(bad.rows[0], patch=NASTY, error=NASTY, model=NASTY, data=NASTY)
    records = [
        *RECORDS,
        dataclasses.replace(bad, rows=(row,)),
        found(NASTY, 0.9, length=128, text=NASTY),
    ]
    page = Strict(render_page(records))
    assert page.tags.count("script") == 1
    texts = "".join(page.texts)
    assert texts.count("<script>alert") >= 5
    assert json.dumps(NASTY) in texts


@pytest.mark.skipif(not BROWSER, reason="no headless browser: BROWSER or one on the PATH")
def test_a_browser_lets_nothing_leave_the_page(tmp_path: Path) -> None:
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    leak = f'<img src="{address}/image"><script>fetch("{address}/text")</script></body>'
    whole = render_page(RECORDS).replace("</body>", leak)  # as if something were not escaped
    policy = re.search(r"<meta http-equiv=.*?>", whole)
    assert policy
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    seen = []
    try:
        for name, page in (("bare", whole.replace(policy[0], "")), ("whole", whole)):
            (tmp_path / name).with_suffix(".html").write_text(page, encoding="utf-8")
            place = (tmp_path / f"{name}.html").as_uri()
            subprocess.run(
                [BROWSER, *options, "--dump-dom", place], capture_output=True, timeout=60
            )
            seen.append(sorted(asked))
            asked.clear()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen == [["/image", "/text"], []]


def test_every_cell_has_its_command_and_signature() -> None:
    page = "".join(Strict(render_page(RECORDS)).texts)
    assert page.count("python -m harness --model small") == len(RECORDS)
    assert page.count("|seed:0|") == len(RECORDS)


def test_the_command_of_a_cell_is_read_back_as_that_cell() -> None:
    from harness.cli import _run_parser

    record = cell("yarn(factor=4)", NLL, 2048, n=7, device="cuda")
    changes = {"patch": "yarn(factor=4)", "context_length": 2048, "data": "my books; qa x@1"}
    row = dataclasses.replace(record.rows[0], **changes, chunk=512, batch=4)
    words = shlex.split(command_of(dataclasses.replace(record, rows=(row,))))
    options = _run_parser().parse_args(words[3:])
    assert (options.patch, options.len, options.n) == ("yarn(factor=4)", "2k", 7)
    assert (options.data, options.chunk, options.batch) == ("my books", "512", 4)
    assert (options.device, options.dtype, options.trained_length) == ("cuda", "float32", "64")


@pytest.mark.parametrize(
    ("ntk", "words"),
    [
        (shifted(-0.5), "ntk beats none at 128 by 0.500 nll"),
        (shifted(-0.1, spread=3.0), "6 documents tell no patch from none at 128; ntk is 0.100"),
        (shifted(0.5), "No patch has a better nll than none at 128"),
        (shifted(-0.5)[:3], "3 documents are too few to tell it from none"),
    ],
)
def test_a_title_says_what_the_documents_tell(ntk: list[float], words: str) -> None:
    records = [measured("none", 128, NLL[: len(ntk)]), measured("ntk", 128, ntk)]
    assert words in about_length(records)


def test_a_title_about_retrieval_needs_a_clear_order() -> None:
    def pairs(order: list[float]) -> str:
        losses = [dataclasses.replace(ROW, value=float(index)) for index in range(len(order))]
        rows = [dataclasses.replace(ROW, task="needle", value=value) for value in order]
        return about_retrieval(list(zip(losses, rows, strict=True)))

    assert "goes with better needle (rank correlation 1.00" in pairs([5, 4, 3, 2, 1, 0])
    assert "goes with worse needle (rank correlation -1.00" in pairs([0, 1, 2, 3, 4, 5])
    assert "does not tell" in pairs([3, 1, 2, 2, 3, 1])
    assert "needle is the same, 1, whatever" in pairs([1, 1, 1, 1, 1, 1])
    assert "3 different points are too few" in pairs([2, 1, 0])


def test_a_title_names_those_who_keep_the_loss_and_lose_what_was_hidden() -> None:
    def pair(patch: str, loss: float, value: float, low: float, high: float) -> tuple[Row, Row]:
        shared = dataclasses.replace(ROW, patch=patch, context_length=4096)
        found = dataclasses.replace(shared, task="needle", ci_low=low, ci_high=high, value=value)
        return dataclasses.replace(shared, value=loss), found

    best, dear = pair("rerope", 3.3, 0.5, 0.3, 0.7), pair("none", 5.0, 0, 0, 0)
    lost, half = pair("streaming", 3.4, 0.05, 0, 0.15), pair("window", 3.465, 0, 0, 0)
    near, apart = pair("dca", 3.3, 0.2, 0.0, 0.3), pair("yarn", 3.47, 0, 0, 0.1)
    assert about_retrieval([best, dear, lost, half, near, apart]) == (
        "At 4k streaming, window: nll within 5 % of the lowest, needle 0 to 0.05, 0.5 under rerope"
    )
    assert "needle 0.05, 0.5 under rerope" in about_retrieval([best, dear, lost])
    assert "too few" in about_retrieval([best, dear, near, apart])


def test_cells_at_one_point_count_once() -> None:
    loss = dataclasses.replace(ROW, value=1.0)
    row = dataclasses.replace(ROW, task="needle", value=1.0)
    assert "2 different points" in about_retrieval([(loss, row)] * 9 + [(row, loss), (ROW, row)])


def test_rank_correlation_shares_ranks_of_equal_values() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rank_correlation([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(9 / math.sqrt(90))
    assert math.isnan(rank_correlation([1, 2], [5, 5]))


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    costs = {"a": (1.0, 5.0), "b": (2.0, 6.0), "c": (3.0, 4.0), "d": (4.0, 4.0)}
    rows = [
        dataclasses.replace(ROW, patch=name, seconds=seconds, value=value)
        for name, (seconds, value) in costs.items()
    ]
    assert [row.patch for row in front(rows, "seconds")] == ["a", "c"]


def test_a_title_about_cost_praises_nobody_for_what_all_have() -> None:
    rows = [dataclasses.replace(ROW, patch=one, seconds=s, value=0.5) for s, one in enumerate("ab")]
    assert about_cost(rows, "seconds", "time") == "All have the same nll; a takes the least time"
    assert about_cost(rows[:1], "seconds", "time") == "a is the cheapest and has the best nll"
    rows[1] = dataclasses.replace(rows[1], value=0.6)
    assert about_cost(rows, "seconds", "time") == "a is the cheapest and has the best nll"


def test_points_lie_where_their_values_are() -> None:
    points = tuple(Point(x, y, y - 1, y + 1) for x, y in [(512.0, 3.0), (1024.0, 5.0), (2048, 4.0)])
    x = Axis("length", is_log=True, ticks=((512, "512"), (1024, "1k"), (2048, "2k")))
    text = chart([Line("a", 0, points)], x, Axis("nll"), "title")
    places = [tuple(map(float, one)) for one in re.findall(r"translate\((\S+) (\S+)\)", text)]
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.3)
    assert places[1][1] < places[2][1] < places[0][1]  # up is less in SVG
    assert places[0][1] - places[2][1] == pytest.approx(places[2][1] - places[1][1], abs=0.3)
    Strict(text)


def test_values_that_are_no_numbers_or_too_large_break_no_chart() -> None:
    values = (math.inf, math.nan, 1.0, 1e300, 2.0)
    points = tuple(Point(index + 1.0, value) for index, value in enumerate(values))
    text = chart([Line("a", 0, points)], Axis("x"), Axis("y", end=3.0), "title")
    assert text.count("<title") == 3
    assert "nan" not in text
    assert "inf" not in text
    assert chart([Line("a", 0, (Point(1.0, math.nan),))], Axis("x"), Axis("y"), "title") == ""
    assert "<title" in chart([Line("a", 9, (Point(1.0, 0.0),))], Axis("x"), Axis("y"), "title")


def test_report_writes_one_page_of_several_runs_without_torch(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", cell("none", NLL)), run(tmp_path / "b", cell("ntk", NLL))
    code = (
        "import sys; from harness.cli import main; "
        "sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    )
    target = str(tmp_path / "page.html")
    subprocess.run([sys.executable, "-c", code, "report", a, b, "--html", target], check=True)
    texts = Strict((tmp_path / "page.html").read_text()).texts
    assert {"none", "ntk"} <= set(texts)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["report", "A", "A"], 2, "give --html FILE"),
        (["report", "A", "nowhere", "--html", "x.html"], 6, "no such directory"),
        (["report", "A", "--html", "A/file/x"], 6, "cannot be written"),
        (["report", "empty", "--html", "x.html"], 6, "no journal"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run(Path("A"), cell("none", NLL))
    run(Path("empty"))
    Path("A/file").touch()
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


CLICK = """<script>
const button = [...document.querySelectorAll("table.cells th button")]
  .find(one => one.textContent === "value");
const values = () => [...document.querySelectorAll("table.cells tbody tr")]
  .map(row => row.cells[5].dataset.v).join();
button.click();
const up = values();
button.click();
document.title = `${up};${values()};${document.documentElement.scrollWidth - innerWidth}`;
</script></body>"""


@pytest.mark.skipif(not BROWSER, reason="no headless browser: BROWSER or one on the PATH")
def test_a_browser_sorts_the_table_and_a_phone_needs_no_sideways_scroll(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    long = f"ruler(tasks={'+'.join(f'niah_multikey_{index}' for index in range(12))})"
    named = [dataclasses.replace(row, task=long) for row in RECORDS[0].rows]
    records = [dataclasses.replace(RECORDS[0], rows=tuple(named)), *RECORDS[1:]]
    page.write_text(render_page(records).replace("</body>", CLICK), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,844"]
    shown = subprocess.run(
        [BROWSER, *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    match = re.search(r"<title>(.*?)</title>", shown)
    assert match, shown[:500]
    up, down, overflow = match[1].split(";")
    risen = [float(one) for one in up.split(",") if one]
    fallen = [float(one) for one in down.split(",") if one]
    assert risen == sorted(risen)
    assert fallen == sorted(risen, reverse=True)
    assert len(risen) == len(RECORDS) - 1
    assert up.endswith(",")  # the failed cell has no value and stays last
    assert down.endswith(",")
    assert int(overflow) <= 0


def test_a_page_of_a_thousand_cells_takes_two_seconds(tmp_path: Path) -> None:
    with Journal(tmp_path / "run") as journal:
        for number in range(1000):
            record = cell(f"p{number % 25}", NLL, 64 * (1 + number // 25))
            journal.records[str(number)] = record
    records = list(journal.records.values())
    start = time.process_time()
    render_page(records)
    assert time.process_time() - start < 2
