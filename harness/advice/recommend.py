"""The command `recommend`: which patch to read a length with. Its arguments; no torch before."""

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import patches
from harness.deploy.engines import ENGINES
from harness.errors import HarnessError
from harness.lengths import parse_length
from harness.options import (
    Parser,
    add_json,
    add_measuring,
    add_shared,
    check_shared,
    measurer_of,
    parse_retry,
)
from harness.results import FAILED
from patches.spec import did_you_mean

__all__ = ["main", "parse_budget"]

BUDGET = re.compile(r"(\d+(?:\.\d+)?)([smh])")
SECONDS = {"s": 1, "m": 60, "h": 3600}
EPILOG = """\
Rounds of loss, with a quarter, half and all of the documents: after each the better half stays,
and the best that the engine can take. Then a retrieval probe of those that are left. A round takes
at most half of what is left of the budget, the baselines of the first one whatever they take;
candidates go from cheap to dear, and what there is no time for is named. Nothing is recommended
that is worse than the truncated input in loss or retrieval. Cells are stored in --out as those of
any run: the same command goes on where it stopped, with a budget of its own."""


def main(argv: Sequence[str]) -> int:
    """Search, print what was found, and return the exit code.

    Raises:
        HarnessError: a mistake in the arguments, or see `recommend`.
    """
    options = _parser().parse_args(argv)
    length, end = parse_length(options.len), time.monotonic() + parse_budget(options.budget)
    for name, value, least in (("--n", options.n, 1), ("--seed", options.seed, 0)):
        if value < least:
            raise HarnessError(f"{name} {value}: expected an integer of at least {least}")
    if options.engine not in ENGINES:
        raise HarnessError(
            f"--engine {options.engine}: expected one of {', '.join(ENGINES)}"
            f"{did_you_mean(options.engine, ENGINES)}"
        )
    settings = _settings(options)
    with measurer_of(options) as measurer:
        from harness.advice.recommendation import Wish, recommend
        from harness.plan import Request

        request = Request(
            models=(options.model,),
            tasks=(),
            lengths=(length,),
            n=options.n,
            seed=options.seed,
            **settings,
        )
        wish = Wish(request, length, end, options.engine, options.json)
        return recommend(wish, options.out, measurer)


def parse_budget(text: str) -> float:
    """Read `90s`, `10m` or `2h` as seconds.

    Raises:
        HarnessError: another form, or nothing.
    """
    found = BUDGET.fullmatch(text.strip())
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if not seconds:
        raise HarnessError(
            f"--budget {text}: expected a number above 0 and s, m or h, such as 90s, 10m or 2h"
        )
    return seconds


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The shared options; no patches stand for the candidates of the model and length."""
    given = options.patch
    options.patch = given if given is not None else next(iter(patches.PATCHES))
    settings = check_shared(options) | {"retry": parse_retry(options.retry)}
    return settings if given is not None else settings | {"patches": ()}


def _parser() -> Parser:
    parser = Parser(
        prog="python -m harness recommend",
        description="Find the patch to read a length with, and how to deploy it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default="tiny", help="name, path or hub id (default: tiny)")
    add("--len", required=True, help="tokens that the model is to read, such as 32k")
    add("--budget", default="10m", help="time: 90s, 10m or 2h (default: 10m)")
    add("--engine", default="hf", help=f"to deploy with: {', '.join(ENGINES)} (default: hf)")
    add("--n", type=int, default=10, help="documents of the last round (default: 10)")
    add("--seed", type=int, default=0, help="of samples and intervals (default: 0)")
    add("--out", type=Path, default=Path("results/recommend"), help="(default: results/recommend)")
    add("--retry", default="", help=f"failed, or some of {','.join(FAILED)}: measure those again")
    add_measuring(parser)
    add_json(parser)
    add_shared(parser, "specs to try (default: those of patches/candidates.py)")
    parser.set_defaults(patch=None, csv=None, figure=None)
    return parser
