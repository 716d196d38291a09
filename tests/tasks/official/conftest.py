"""jieba's cache of the tests is a directory of the tests."""

import pytest

from tasks.official import chinese


@pytest.fixture(autouse=True, scope="session")
def cache_home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(directory))
        chinese._segmenter.cache_clear()
        yield directory
        chinese._segmenter.cache_clear()
