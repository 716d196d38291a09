import signal
from collections.abc import Iterator

import pytest

from tests.harness.conftest import checkpoint, data, own_checkpoint

__all__ = ["checkpoint", "data", "own_checkpoint"]

HEARD = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


@pytest.fixture(autouse=True)
def heard_signals() -> Iterator[None]:
    """Signals are heard: jobs in the background and under nohup inherit that they are ignored."""
    before = {number: signal.signal(number, handler) for number, handler in HEARD.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
