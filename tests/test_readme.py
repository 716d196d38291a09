"""The README's tables name what is there."""

import re
from pathlib import Path

from patches import PATCHES
from tasks import TASKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the first table of a section, without its two head lines."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_methods_is_the_registry() -> None:
    table = {row[0].strip("`"): (row[1], row[2]) for row in rows("Methods")}
    assert table == {name: (entry.seam, entry.summary) for name, entry in PATCHES.items()}


def test_the_table_of_tasks_is_the_registry() -> None:
    assert {row[0].strip("`") for row in rows("Tasks")} == set(TASKS)


def test_the_tree_is_the_tree() -> None:
    named = re.findall(r"^    (\w+)/ ", section("The tree"), flags=re.MULTILINE)
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"}
    folders -= {"build", "length_harness.egg-info", "__pycache__"}
    assert set(named) <= folders
    assert {"harness", "patches", "tasks", "results", "scripts", "tests"} == set(named)


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_is_short_and_finished() -> None:
    assert len(README.splitlines()) <= 180
    assert "@@" not in README
