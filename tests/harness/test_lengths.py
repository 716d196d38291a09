import pytest

from harness.errors import HarnessError
from harness.lengths import parse_lengths, render_length


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("8192", (8192,)),
        ("32k", (32768,)),
        ("1m", (1048576,)),
        ("4k,8k", (4096, 8192)),
        ("512:8k:x2", (512, 1024, 2048, 4096, 8192)),
        ("100:1000:x3", (100, 300, 900)),
        ("256,256:512:x2", (256, 512)),
    ],
)
def test_grammar_of_lengths(text: str, lengths: tuple[int, ...]) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize(
    "text",
    ["32kb", "", "0", "1", "-4", "4k,", "1.5k", "512:8k", "512:8k:2", "512:8k:x1", "8k:512:x2"],
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(HarnessError, match="--len"):
        parse_lengths(text)


def test_the_error_names_what_is_accepted() -> None:
    with pytest.raises(HarnessError) as caught:
        parse_lengths("32kb")
    assert str(caught.value) == (
        "--len 32kb: expected a positive integer with an optional k or m, such as 32k"
    )


@pytest.mark.parametrize("length", [2, 256, 1000, 1024, 32768, 1 << 20])
def test_rendered_lengths_read_back(length: int) -> None:
    assert parse_lengths(render_length(length)) == (length,)
