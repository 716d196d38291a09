import signal
from collections.abc import Iterator

import pytest

from tests.harness.conftest import checkpoint, data, own_checkpoint

__all__ = ["checkpoint", "data", "own_checkpoint"]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard: shells let jobs in the background ignore it, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
