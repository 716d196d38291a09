"""The windows that models bring themselves: read from the config, lifted, or kept as regions."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from patches.base import Extent, Patch, Region
from patches.rotary import settings

__all__ = ["hiding", "lifted_note", "unwindowed"]

UNBOUNDED = 1 << 30
SLIDING, CHUNKED = "sliding_window", "attention_chunk_size"


def hiding(config: Any, extent: Extent) -> dict[int, Region]:
    """The layers whose own window hides keys at this length, with what it leaves visible."""
    layers = int(config.num_hidden_layers)
    sliding, chunk = (size_of(config, name) for name in (SLIDING, CHUNKED))
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        used = sliding and getattr(config, "use_sliding_window", True)
        kinds = ["sliding" if used else "full"] * layers
    found = {}
    for layer, kind in enumerate(kinds):
        if "sliding" in kind and sliding and sliding < extent.context_length:
            found[layer] = Region(distance=(0, sliding))
        elif "chunked" in kind and chunk and chunk < extent.context_length:
            found[layer] = Region(chunk_size=chunk, lag=(0, 1))
    return found


def size_of(config: Any, name: str) -> int | None:
    """A window's size if the config has it."""
    size = getattr(config, name, None)
    return size if isinstance(size, int) and size > 0 else None


def lifted_note(windows: dict[int, Region], patch: Patch) -> tuple[str, ...]:
    """What to tell of windows that a patch switches off."""
    if not windows or patch.native_window:
        return ()
    region = next(iter(windows.values()))
    size = region.chunk_size or region.distance[1]
    return (
        f"the model's own window of {size} tokens is off under '{patch}' on {len(windows)} layers; "
        "add +native-window to leave those layers as they are",
    )


@contextmanager
def unwindowed(config: Any) -> Iterator[None]:
    """Switch the model's own windows off: masks read them from the config at every forward."""
    with ExitStack() as stack:
        for name in (SLIDING, CHUNKED):
            size = size_of(config, name)
            if size is not None:
                stack.enter_context(settings(config, {name: size}))
                setattr(config, name, UNBOUNDED)
        yield
