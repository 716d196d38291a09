"""Words of a Chinese text, by the optional package jieba."""

import os
import warnings
from functools import cache
from importlib import import_module
from logging import WARNING
from pathlib import Path
from typing import Any

from tasks.spec import TaskError

__all__ = ["words"]


def words(text: str) -> list[str]:
    """Segment a text as jieba 0.42.1 does in exact mode, with its model for unknown words.

    Joined, the words are the text: punctuation and blanks are words too. The scores depend on the
    dictionary, so one of our own is loaded that no other code can have added words to.

    Raises:
        TaskError: jieba is missing, or its cache cannot be written.

    Source: github.com/fxsjy/jieba, `cut(text, cut_all=False)`, as LongBench's metrics.py calls it.
    """
    return list(_segmenter().cut(text, cut_all=False))


@cache
def _segmenter() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at import it warns about its own escapes and setuptools
        try:
            jieba = import_module("jieba")
        except ImportError:
            raise TaskError(
                "Chinese answers are scored on words, for which the package jieba is missing; "
                "pip install jieba==0.42.1 (or this project with the extra 'zh')"
            ) from None
        jieba.setLogLevel(WARNING)
        segmenter = jieba.Tokenizer()
        segmenter.tmp_dir = str(_cache_directory())
        segmenter.initialize()
    return segmenter


def _cache_directory() -> Path:
    """A directory of the user's own: jieba trusts the file that it finds, and its default is /tmp.

    Raises:
        TaskError: the directory cannot be made or written.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = root / "length-harness" / "jieba"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise TaskError(
            f"{directory}: cannot be made ({error.strerror}), and jieba needs a cache; set "
            "XDG_CACHE_HOME to a directory of your own"
        ) from None
    if not os.access(directory, os.W_OK):
        raise TaskError(f"{directory}: cannot be written; set XDG_CACHE_HOME to your own directory")
    return directory
