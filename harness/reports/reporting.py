"""The command `report`: its arguments. Imports neither torch nor numpy before they are read."""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.options import Parser, add_json

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Print the table of a run again, or write the page of several.

    Raises:
        HarnessError: a mistake in the arguments, or see `write_predictions`.
        TaskError: an unknown format.
        ResultsError: a journal cannot be read or is corrupt, or a file cannot be written.
    """
    options = _parser().parse_args(argv)
    others = {"--metrics": options.metrics, "--threshold": options.threshold}
    others |= {"--csv": options.csv, "--figure": options.figure, "--json": options.json}
    given = [name for name, value in others.items() if value not in (None, "", False)]
    if given and (options.html or options.format):
        instead_of = "--html" if options.html else "--format"
        raise HarnessError(
            f"{instead_of} writes files instead of tables; leave out {', '.join(given)}"
        )
    if options.html:
        from harness.reports.page import write_page

        write_page(options.directory, options.html)
        return 0
    if len(options.directory) > 1:
        raise HarnessError("report of several runs: they go on one page; give --html FILE")
    if options.format:
        from harness.answers.predictions import write_predictions

        write_predictions(options.directory[0], options.format[0], Path(options.format[1]))
        return 0
    from harness.outputs import report

    if options.figure:
        from harness.reports.figure import check_figure

        check_figure(options.figure)
    metrics = [name.strip() for name in options.metrics.split(",") if name.strip()]
    files = (options.csv, options.figure)
    report(options.directory[0], metrics, *files, options.threshold, options.json)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m harness report", description="Table and figure again, from the journal."
    )
    parser.add_argument("directory", type=Path, nargs="+", help="the --out of a run")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--html", type=Path, help="write one page of all runs instead")
    instead.add_argument(
        "--format",
        nargs=2,
        metavar=("FORMAT", "DIR"),
        help="write the answers as a benchmark's own prediction files instead: longbench, …",
    )
    parser.add_argument("--metrics", default="", help="metrics to show differences of, by comma")
    parser.add_argument("--threshold", type=float, help="value that a usable length must reach")
    parser.add_argument("--csv", type=Path, help="where the rows go (default: DIR/results.csv)")
    parser.add_argument("--figure", type=Path, help="its place (default: DIR/figure.png)")
    add_json(parser)
    return parser
