"""The command line: arguments in, one line for each mistake, exit codes. Imports no torch."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import patches
import tasks
from harness.errors import HarnessError, caret, one_line
from harness.lengths import parse_length, parse_lengths
from harness.names import list_names, show_name
from harness.options import (
    Parser,
    add_json,
    add_measuring,
    add_shared,
    check_shared,
    measurer_of,
    parse_retry,
    parse_shard,
)
from harness.results import FAILED
from patches.spec import did_you_mean, split_specs

__all__ = ["commands", "main"]

INTERRUPTED = 130
EPILOG = """\
commands: run (when none is given), plan (its time and memory, cell by cell; runs nothing),
          list [patches|tasks|models], show NAME, show attention,
          recommend (the patch to deploy), report DIR, compare A B (two runs),
          export (a patch as an engine's setting), completion bash (what Tab offers),
          doctor (what works here), keys (of documents, for longppl),
          rescore DIR (metrics again from a run's answers), rescore --format FORMAT DIR
          (prediction files of a benchmark; no model), fetch BENCHMARK DIR (official prompts)

examples:
  python -m harness --model tiny --patch none,pi,ntk,rerope+logn --len 512:8k:x2
  python -m harness --model llama --patch ntk --len 32k
  python -m harness --model smollm2 --patch 'yarn(factor={2,4})' --len 16k --data books/
  python -m harness show attention --patch none,streaming --len 2k --figure attention.png

the same command goes on where it stopped; started twice it shares the cells; failed cells are
run again with --retry only; Ctrl-C or SIGTERM finishes the cell under way, twice stops at once

exit codes: 0 all cells done; 2 usage; 3 some cells failed (recorded as rows); 4 model or data not
available; 5 does not fit; 6 results cannot be written or are corrupt; 130 interrupted; 141 nobody
reads the output any more"""


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; results go to stdout, the rest to stderr."""
    try:
        return _dispatch(list(argv))
    except HarnessError as error:
        return _fail(error, error.exit_code)
    except (patches.PatchError, tasks.TaskError) as error:
        return _fail(error, HarnessError.exit_code)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED


def _fail(error: HarnessError | patches.PatchError | tasks.TaskError, code: int) -> int:
    print(f"error: {one_line(str(error))}", file=sys.stderr)
    print(caret(error.text, error.at), end="", file=sys.stderr)
    return code


def commands() -> dict[str, Callable[[list[str]], int]]:
    """What the first word may be; each takes the others and returns the exit code."""
    return {
        "run": _run,
        "plan": lambda rest: _run([*rest, "--dry-run"]),
        "list": list_names,
        "show": _show,
        "recommend": _elsewhere("advice.recommend"),
        "report": _elsewhere("reports.reporting"),
        "compare": _elsewhere("reports.compare"),
        "export": _elsewhere("deploy.export"),
        "completion": _elsewhere("completion"),
        "doctor": _elsewhere("doctor"),
        "keys": _keys,
        "fetch": _elsewhere("fetch"),
        "rescore": _elsewhere("answers.rescore"),
    }


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        return _run(argv)
    known = commands()
    if argv[0] not in known:
        raise HarnessError(
            f"unknown command '{argv[0]}'; expected one of {', '.join(known)} or options such "
            f"as --patch ntk{did_you_mean(argv[0], known)} (python -m harness --help)"
        )
    return known[argv[0]](argv[1:])


def _elsewhere(module: str) -> Callable[[list[str]], int]:
    """A command whose arguments are read where its work is done; imported when it is asked for."""

    def command(argv: list[str]) -> int:
        code: int = import_module(f"harness.{module}").main(argv)
        return code

    return command


def _run_parser() -> Parser:
    parser = Parser(
        prog="python -m harness",
        description="Measure what patches do to a language model on long inputs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default="tiny", help="names, paths or hub ids, by comma (default: tiny)")
    add("--task", default="ppl", help="specs such as ppl,ppl(protocol=sliding) (default: ppl)")
    add("--len", help="context lengths: 8192, 32k, 4k,8k, 512:8k:x2 (default: the trained length)")
    add("--n", type=int, default=3, help="documents (default: 3)")
    add("--seed", type=int, default=0, help="of samples and intervals (default: 0)")
    add("--batch", type=int, default=1, help="answers generated together (default: 1)")
    add("--out", type=Path, default=Path("results/run"), help="directory (default: results/run)")
    add("--csv", type=Path, help="also write this command's rows to a file")
    add("--figure", type=Path, help="draw value against length: .png, .pdf or .svg")
    add("--save-samples", action="store_true", help="also write OUT/samples/CELL.jsonl")
    add("--retry", default="", help=f"failed, or some of {','.join(FAILED)}: measure those again")
    add("--shard", default="1/1", help="i/N: this part of the cells (default: all)")
    add("--dry-run", action="store_true", help="print time and memory of each cell; run nothing")
    add_measuring(parser)
    add_json(parser)
    add_shared(parser)
    return parser


def _run(argv: list[str]) -> int:
    options = _run_parser().parse_args(argv)
    lengths = parse_lengths(options.len) if options.len else None
    if options.n < 1:
        raise HarnessError(f"--n {options.n}: expected an integer of at least 1")
    if options.seed < 0:
        raise HarnessError(f"--seed {options.seed}: expected an integer of at least 0")
    if options.batch < 1:
        raise HarnessError(f"--batch {options.batch}: expected an integer of at least 1")
    models = tuple(name.strip() for name in options.model.split(",") if name.strip())
    if not models:
        raise HarnessError(f"--model '{options.model}': expected names, such as tiny,smollm2")
    task_specs = split_specs(options.task)
    for spec in task_specs:
        tasks.parse(spec)
    if options.dry_run and options.figure:
        raise HarnessError(f"--figure {options.figure}: a plan draws nothing; leave it out")
    settings = check_shared(options) | {
        "retry": parse_retry(options.retry),
        "shard": parse_shard(options.shard),
    }
    with nullcontext() if options.dry_run else measurer_of(options) as measurer:
        from harness.commands import Targets, measure
        from harness.plan import Request

        request = Request(
            models=models,
            tasks=tuple(task_specs),
            lengths=lengths,
            n=options.n,
            seed=options.seed,
            batch=options.batch,
            **settings,
        )
        if options.dry_run:
            from harness.forecast.dryrun import print_plan

            return print_plan(request, options.out, options.csv, options.json)
        targets = Targets(options.csv, options.figure, options.save_samples, options.json)
        return measure(request, options.out, targets, measurer)


def _show(argv: list[str]) -> int:
    return _show_attention(argv[1:]) if argv[:1] == ["attention"] else show_name(argv)


def _show_attention(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m harness show attention",
        description="Where the attention of each layer goes under patches, on one document.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default="tiny", help="name, path or hub id (default: tiny)")
    add("--len", required=True, help="tokens of the document to read, such as 2k")
    add("--sinks", default="4", help="first tokens that are counted together (default: 4)")
    add("--window", help="newest keys, with the current one (default: min(trained, --len / 4))")
    add("--csv", type=Path, help="write a row a patch and layer to a file")
    add("--figure", type=Path, help="draw the shares: .png, .pdf or .svg")
    add_shared(parser)
    options = parser.parse_args(argv)
    length, sinks = parse_length(options.len), parse_length(options.sinks, "--sinks")
    window = parse_length(options.window, "--window") if options.window else None
    shared = check_shared(options)
    from harness.attention import Reading
    from harness.commands import show_attention

    reading = Reading(model=options.model, length=length, sinks=sinks, window=window, **shared)
    show_attention(reading, options.csv, options.figure)
    return 0


def _keys(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m harness keys",
        description="Mark the key tokens of documents with a model, for ppl(protocol=longppl).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default="tiny", help="name, path or hub id (default: tiny)")
    add("--len", required=True, help="tokens of each document to read, such as 8k")
    add("--short", help="tokens of short context (default: min(4k, trained length / 2))")
    add("--n", type=int, default=3, help="documents (default: 3)")
    add("--out", type=Path, required=True, help="FILE.jsonl to write; --data takes it")
    add_shared(parser)
    parser.set_defaults(figure=None)
    options = parser.parse_args(argv)
    options.csv = options.out
    short = f",short={parse_length(options.short, '--short')}" if options.short else ""
    shared = check_shared(options)
    if len(shared["patches"]) != 1:
        raise HarnessError(f"--patch {options.patch}: keys are found with one patch; give one")
    from harness.keys import write_keys
    from harness.plan import Request, resolve_device

    request = Request(
        models=(options.model,),
        tasks=(f"ppl(protocol=longppl{short})",),
        lengths=(parse_length(options.len),),
        n=options.n,
        seed=0,
        **shared,
    )
    write_keys(request, resolve_device(options.device), options.out)
    return 0
