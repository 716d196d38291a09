"""A chat template rendered in a process of its own: it is a program that comes with a model.

transformers runs it in jinja's sandbox, which bounds neither its time nor its memory.
"""

import resource
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.worker import server

__all__ = ["render"]

STATM = Path("/proc/self/statm")
SECONDS = 5.0
ROOM = 1 << 30  # bytes that it may take
LONGEST = 1 << 20  # characters that it may give
ADVICE = "leave chat=on out or give another model"


def render(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """Messages as the template of a HuggingFace tokenizer has them, an answer begun behind them.

    Raises:
        HarnessError: it fails, or takes more than SECONDS, ROOM or LONGEST.
    """
    context = server()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, tokenizer, [*messages]), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()  # it has begun
        if not ours.poll(SECONDS):
            problem = f"is not done after {SECONDS:g} s"
        else:
            problem, text = ours.recv()
            if not problem:
                return str(text)
    except EOFError:
        process.join()
        problem = f"ended its process (exit code {process.exitcode})"
    finally:
        process.kill()
        process.join()
        ours.close()
    raise HarnessError(f"this model's chat template {problem}; {ADVICE}")


def _serve(pipe: Connection, tokenizer: Any, messages: list[dict[str, str]]) -> None:
    if STATM.exists():
        taken = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (int(4 * SECONDS), int(4 * SECONDS)))  # without parent
    pipe.send(None)
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except MemoryError:
        pipe.send((f"needs more than {ROOM >> 30} GiB of memory", ""))
    except Exception as error:  # of a program that came with a model: any there is
        pipe.send((f"fails: {type(error).__name__}: {error}"[:300], ""))
    else:
        long = len(text) > LONGEST
        pipe.send((f"gives {len(text)} characters", "") if long else ("", text))
