"""The arrows of the house, by parsing imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.models import MODELS
from patches import PATCHES
from tasks import TASKS

ROOT = Path(__file__).parent.parent
PACKAGES = ("harness", "patches", "tasks", "scripts", "tests")
ALLOWED = {
    "harness": {"harness", "patches", "tasks"},
    "patches": {"patches"},
    "tasks": {"tasks"},
    "scripts": {"scripts", "harness", "patches", "tasks"},
}
ROPE_WORDS = {"yarn", "truncate", "none"}  # of transformers and llama.cpp in engines.py
FILES = [
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
]


def imported(path: Path) -> Iterator[str]:
    """Top-level names of all imports of a file, wherever they stand."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            words = [word.value for word in node.args[:1] if isinstance(word, ast.Constant)]
            yield from (str(word).partition(".")[0] for word in words)


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_along_the_arrows(package: str) -> None:
    for path in FILES:
        if path.parts[0] == package:
            assert set(imported(path)) & set(PACKAGES) <= ALLOWED[package], path


def test_tasks_know_neither_torch_nor_transformers() -> None:
    for path in FILES:
        if path.parts[0] == "tasks":
            assert not {"torch", "transformers"} & set(imported(path)), path


def test_one_file_of_patches_imports_transformers() -> None:
    users = {str(path) for path in FILES if "transformers" in set(imported(path))}
    assert {path for path in users if path.startswith("patches/")} <= {"patches/apply.py"}


def test_the_harness_names_no_patch_and_no_task() -> None:
    names = {*PATCHES, *TASKS} - {*MODELS}  # llama3 is a model too
    for path in FILES:
        if path.parts[0] != "harness":
            continue
        tree = ast.parse((ROOT / path).read_text())
        other_words = {"fmt", "reduction"} | (
            {"default"} if path.name in ("cli.py", "options.py") else set()
        )
        arguments = {
            id(keyword.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg in other_words
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in arguments:
                if path.name == "engines.py" and node.value in ROPE_WORDS:
                    continue
                assert node.value not in names, f"{path}:{node.lineno}: {node.value!r}"


def test_files_and_functions_stay_short() -> None:
    for path in FILES:
        if path.parts[0] not in ("harness", "patches", "tasks"):
            continue
        text = (ROOT / path).read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 45, f"{path}: {node.name}"
