"""The command `doctor`: what works here, one line each."""

import fcntl
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.errors import HarnessError
from harness.lengths import parse_length
from harness.options import Parser
from harness.terminal import show_text

__all__ = ["OPTIONAL", "REQUIRED", "main"]

BROKEN = 1
GIB = 1024**3
REQUIRED = (
    *("accelerate", "datasets", "gguf", "jinja2", "numpy", "rapidfuzz", "rouge-score", "sacrebleu"),
    "safetensors",
    *("torch", "tqdm", "transformers", "wonderwords"),
)
OPTIONAL = {"matplotlib": "figures", "jieba": "Chinese scores of rescore"}
HUB = "https://huggingface.co"
HUB_SECONDS = 4.0
EXPECTED = (ArithmeticError, AttributeError, ImportError, OSError, RuntimeError, ValueError)
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}


@dataclass(frozen=True)
class Check:
    """One line: its name, what it does, and whether the program needs it.

    Attributes:
        run: returns what was found; raises one of EXPECTED if it does not work.
    """

    name: str
    run: Callable[[], str]
    is_required: bool = True


def main(argv: Sequence[str]) -> int:
    """Print a line for each check; returns 1 if something that is needed does not work."""
    parser = Parser(
        prog="python -m harness doctor",
        description="What works here: ok, missing (not needed), or BROKEN (exit code 1).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/run"), help="where results go (default: as run)"
    )
    parser.add_argument("--noise", metavar="MODEL", help="instead: how exact its losses are")
    parser.add_argument("--len", help="tokens that --noise reads (default: the trained length)")
    parser.add_argument("--device", help="of --noise: auto, cpu, cuda or cuda:N (default: auto)")
    options = parser.parse_args(argv)
    if options.noise is not None:
        return _noise(options.noise, options.len, options.device or "auto")
    if options.len or options.device:
        raise HarnessError("--len and --device belong to --noise MODEL; give it, or leave them out")
    broken = 0
    for check in _checks(options.out):
        start = time.perf_counter()
        try:
            word, text = "ok", check.run()
        except EXPECTED as error:
            word = "BROKEN" if check.is_required else "missing"
            text = " ".join(str(error).split()) or type(error).__name__
        broken += word == "BROKEN"
        took = time.perf_counter() - start
        show_text(f"{word:7}  {check.name}: {text} ({took:.1f} s)")
    if broken:
        print(f"{broken} things that are needed do not work", file=sys.stderr)
    return BROKEN if broken else 0


def _noise(model: str, length: str | None, device: str) -> int:
    tokens = parse_length(length) if length else None
    from harness.noise import render_noise
    from harness.plan import resolve_device

    show_text(render_noise(model, tokens, resolve_device(device)))
    return 0


def _checks(out: Path) -> Iterator[Check]:
    yield Check("packages", _packages)
    for name, use in OPTIONAL.items():
        yield Check(name, partial(_package, name, use), is_required=False)
    yield Check("disk", lambda: _disk(out))
    yield Check("locks", lambda: _locks(out))
    yield Check("devices", _devices)
    yield Check("kernels cpu", lambda: _kernels("cpu", ("float32", "bfloat16")))
    if _has_cuda():
        yield Check("kernels cuda", lambda: _kernels("cuda", ("float32", "bfloat16")))
    yield Check("model tiny", _model)
    yield Check("hub", _hub, is_required=False)


def _package(name: str, use: str) -> str:
    return f"{version(name)}, for {use}"


def _packages() -> str:
    """Versions of what is needed.

    Raises:
        ImportError: one is not there.
    """
    found, lacking = [], []
    for name in REQUIRED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lacking.append(name)
    if lacking:
        raise ImportError(f"{', '.join(lacking)} not installed; `pip install {' '.join(lacking)}`")
    return f"python {sys.version.split()[0]}, {', '.join(found)}"


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A new directory where results would go, or in the nearest parent that is there."""
    place = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as directory:
        yield Path(directory)


def _disk(out: Path) -> str:
    with _scratch(out) as directory:
        with (directory / "file").open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        (directory / "file").replace(directory / "renamed")
        free = shutil.disk_usage(directory).free / GIB
        return f"{directory.parent} can be written, {free:.1f} GiB free"


def _locks(out: Path) -> str:
    """Two handles of one file: the second must not get the lock.

    Raises:
        OSError: it does, or nothing can be locked; two runs would then mix their lines.
    """
    with _scratch(out) as directory, (directory / "lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (directory / "lock").open("w") as second:
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"runs that share {directory.parent} wait for each other"
    raise OSError(f"{directory.parent}: a locked file can be locked again; keep --out elsewhere")


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def _devices() -> str:
    import torch

    names = [f"cpu, {torch.get_num_threads()} threads"]
    for index in range(torch.cuda.device_count()):
        one = torch.cuda.get_device_properties(index)
        names.append(f"cuda:{index} {one.name}, {one.total_memory / GIB:.0f} GiB")
    return "; ".join(names) + ("" if len(names) > 1 else "; no CUDA device")


def _kernels(device: str, dtypes: Sequence[str]) -> str:
    """Fused attention and its log-sum-exp against dense float64.

    Raises:
        RuntimeError: they are apart.
    """
    import torch

    from patches.kernels import fused_attention

    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, 48, 32, generator=generator, dtype=torch.float64)
        for heads in (4, 2, 2)
    )
    scores = (query @ key.repeat_interleave(2, 1).mT) / 32**0.5
    scores.masked_fill_(torch.ones(48, 48).triu(1).bool(), -torch.inf)
    wanted = scores.softmax(-1) @ value.repeat_interleave(2, 1)
    texts = []
    for name in dtypes:
        given = [x.to(device, getattr(torch, name)) for x in (query, key, value)]
        out, lse = fused_attention(*given, is_causal=True, scaling=32**-0.5)
        apart = max(
            float((out.double().cpu() - wanted).abs().max()),
            float((lse.double().cpu() - scores.logsumexp(-1)).abs().max()),
        )
        if not apart <= TOLERANCES[name]:
            raise RuntimeError(f"{name}: fused attention is {apart:.1e} from dense attention")
        texts.append(f"{name} within {apart:.0e} of dense attention")
    return ", ".join(texts)


def _model() -> str:
    import torch

    from harness.checkpoint import open_checkpoint
    from patches.apply import check_identity

    checkpoint = open_checkpoint("tiny")
    model = checkpoint.load(torch.float32, torch.device("cpu"))
    difference = check_identity(model)
    parameters = sum(one.numel() for one in model.parameters())
    return f"{parameters / 1e6:.1f} M parameters load, the hook differs by {difference:.0e}"


def _hub() -> str:
    """Whether the hub answers.

    Raises:
        OSError: it does not, or must not be asked.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise OSError("offline, as HF_HUB_OFFLINE says; local paths and --model tiny work")
    url, problems = os.environ.get("HF_ENDPOINT") or HUB, ["no answer in time"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=HUB_SECONDS
            ):
                problems.clear()
        except urllib.error.HTTPError:  # it is there, whatever it says
            problems.clear()
        except (OSError, ValueError) as error:
            problems[:] = [str(error)]

    thread = threading.Thread(target=ask, daemon=True)  # looking a name up has no timeout
    thread.start()
    thread.join(HUB_SECONDS)
    if problems:
        raise OSError(f"{url} not reached ({problems[0]}); local paths and --model tiny work")
    return f"{url} answers"
