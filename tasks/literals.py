"""Literals of a Python source, which is parsed and never run."""

import ast
from collections.abc import Iterator

__all__ = ["constant", "texts"]


def constant(source: bytes, name: str) -> object:
    """Return the literal that the source gives to a name of the module.

    Raises:
        SyntaxError: it is no Python.
        ValueError: it gives none to that name, or several.
    """
    (value,) = (
        ast.literal_eval(line.value)
        for line in ast.parse(source).body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name
    )
    return value


def texts(source: bytes, name: str) -> list[tuple[str, ...]]:
    """Return the texts in each value with any that a name is given, in the order of the source.

    Raises:
        SyntaxError: it is no Python.
    """
    found = [
        tuple(_texts(line.value))
        for line in _nodes(ast.parse(source))
        if isinstance(line, ast.AugAssign | ast.Assign) and ast.unparse(_target(line)) == name
    ]
    return [one for one in found if one]


def _target(line: ast.AugAssign | ast.Assign) -> ast.expr:
    return line.target if isinstance(line, ast.AugAssign) else line.targets[0]


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all in it, as they stand in the source."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _nodes(child)


def _texts(node: ast.AST) -> Iterator[str]:
    for one in _nodes(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value
