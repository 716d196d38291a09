from tests.harness.conftest import checkpoint, data

__all__ = ["checkpoint", "data"]
