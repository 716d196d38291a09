"""Rows of data sets on the HuggingFace hub, asked for once."""

import importlib
import re
from collections.abc import Sequence
from typing import Any

from tasks.spec import TaskError

__all__ = ["HUB_ID", "hub_rows"]

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(:[\w.-]+)?")
SPLITS = ("test", "validation", "train")
HUB_TIMEOUT = 10.0


def hub_rows(data: str, expected: str) -> tuple[str, Sequence[dict[str, Any]]]:
    """Return the first split there is of SPLITS, and its rows.

    Args:
        data: `owner/name` or `owner/name:config`.
        expected: what else may be given, for errors.

    Raises:
        TaskError: it is not reached, does not load, or has other splits.
    """
    name, _, config = data.partition(":")
    try:
        datasets, hub = (
            importlib.import_module("datasets"),
            importlib.import_module("huggingface_hub"),
        )
    except ImportError:
        raise TaskError(
            f"--data {data}: no such file or directory, and data sets of the hub need the package "
            "`datasets`; pip install datasets"
        ) from None
    problems = (OSError, ValueError, RuntimeError, hub.errors.HTTPError)
    try:
        _reach(hub, name)
        splits = datasets.get_dataset_split_names(name, config or None)
        split = next((split for split in SPLITS if split in splits), None)
        rows = datasets.load_dataset(name, config or None, split=split) if split else []
    except (*problems, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TaskError(
            f"--data {data}: no such file or directory, and not loaded as a data set of the hub: "
            f"{reason}; give {expected} (owner/name:config), or set HF_HUB_OFFLINE=1 to use a "
            "cached copy"
        ) from None
    if split is None:
        raise TaskError(f"--data {data}: splits {', '.join(splits)}; expected {', '.join(SPLITS)}")
    return split, rows


def _reach(hub: Any, name: str) -> None:
    """Ask once for the data set: `datasets` would repeat a failing request for half a minute."""
    try:
        hub.HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except hub.errors.OfflineModeIsEnabled:
        return  # a cached copy answers
