"""Reading literals out of a source that is never run."""

import pytest

from tasks.literals import constant, texts


def test_literals_are_read_where_they_are_given() -> None:
    source = (
        b'a = {"b": 1}\nif 1:\n    c = "d"\nc += f"e{f}g" + h("i")\nc = 2\nk["c"] = "j"\nz = f()\n'
    )
    assert constant(source, "a") == {"b": 1}
    assert texts(source, "c") == [("d",), ("e", "g", "i")]
    assert constant(source, "c") == 2
    for name in ("y", "z"):
        with pytest.raises(ValueError, match=r"malformed|unpack"):
            constant(source, name)
