from tests.harness.conftest import checkpoint, data, own_checkpoint

__all__ = ["checkpoint", "data", "own_checkpoint"]
