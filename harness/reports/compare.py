"""The command `compare`: are the cells of one run better or worse than those of another?

Imports no torch.
"""

import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import patches
from harness.errors import HarnessError
from harness.journal import read_journal
from harness.options import Parser, add_json
from harness.reports.as_json import print_json
from harness.reports.comparison import Comparison, as_entry, cell_of, compare, render
from harness.reports.pairs import FEWEST_DOCUMENTS
from harness.results import Record
from harness.terminal import show_text

__all__ = ["main"]

HOLDS = 1
IDENTITY = ("model", "task", "context_length", "patch")
FIXED = ("task", "context_length", "n", "seed", "data_digest", "tokenizer")  # make the samples
CONDITION = re.compile(r"\s*(worse|better)\s*>\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*")
SHOWN = 3  # values of a setting that an error names


@dataclass(frozen=True)
class Side:
    """Cells of a run, or of one patch of it."""

    directory: Path
    records: list[Record]
    patch: str = ""


@dataclass(frozen=True)
class Condition:
    """`worse>0.5%`: told worse, and by more than that share of A's value (without %: more than)."""

    verdict: str
    limit: float
    is_share: bool

    def holds(self, one: "Comparison") -> bool:
        """True if a comparison meets it; a cell that failed in B alone is worse by any amount."""
        if one.difference is None:
            return self.verdict == "worse" and one.verdict == "B failed"
        if one.verdict != self.verdict:
            return False
        size = abs(one.difference.value)
        return size > (self.limit / 100 * abs(one.value_a) if self.is_share else self.limit)


def main(argv: Sequence[str]) -> int:
    """Compare B with A; returns 1 if --fail-if holds for any pair of cells.

    Raises:
        HarnessError: a mistake in the arguments, or cells that are not alike.
        ResultsError: a journal cannot be read.
    """
    parser = Parser(
        prog="python -m harness compare",
        description="Paired differences B - A of two runs, with 95 % intervals over documents.",
        epilog="exit codes: 0; 1 --fail-if holds; 2 usage, or cells that are not alike; 6 a "
        "journal that cannot be read or is corrupt",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("a", metavar="A", help="the --out of a run, or DIR:PATCH for one patch of it")
    add("b", metavar="B", help="what is compared with it, likewise")
    add("--fail-if", help="exit 1 if any pair is so: worse>0.5%%, worse>0.02 or better>0")
    add("--metric", default="", help="metrics by comma (default: the first of each task)")
    add(
        "--noise", type=float, default=0.0, help="differences up to this are noise (doctor --noise)"
    )
    add("--across", default="", help="settings that may differ, by comma, such as dtype,device")
    add_json(parser)
    options = parser.parse_args(argv)
    if not 0 <= options.noise < math.inf:
        raise HarnessError(f"--noise {options.noise:g}: expected a number of at least 0")
    condition = _condition(options.fail_if) if options.fail_if is not None else None
    across = _across(options.across)
    a, b = _select(options.a), _select(options.b)
    if a.patch or b.patch:
        across |= {"patch"}
    pairs = _pairs(a, b, across)
    metrics = [name.strip() for name in options.metric.split(",") if name.strip()]
    comparisons = [one for pair in pairs for one in compare(*pair, metrics, options.noise)]
    if not comparisons:
        raise HarnessError(f"--metric {options.metric}: {_metrics_there(pairs)}")
    if options.json:
        print_json("compare", {"comparisons": [as_entry(one) for one in comparisons]})
    else:
        show_text(render(comparisons, options.a, options.b).removesuffix("\n"))
    if condition is None:
        return 0
    return HOLDS if _any(condition, comparisons) else 0


def _any(condition: Condition, comparisons: Iterable[Comparison]) -> bool:
    """Whether a condition holds for any comparison.

    Raises:
        HarnessError: there are too few documents for a verdict.
    """
    found = False
    for one in comparisons:
        if one.difference and one.difference.documents < FEWEST_DOCUMENTS:
            raise HarnessError(
                f"--fail-if: {one.difference.documents} documents give no verdict; run both sides "
                f"with --n {FEWEST_DOCUMENTS} or more"
            )
        if condition.holds(one):
            found = True
            print(f"--fail-if holds: {_place(one)}", file=sys.stderr)
    return found


def _condition(text: str) -> Condition:
    match = CONDITION.fullmatch(text)
    if match is None:
        raise HarnessError(
            f"--fail-if '{text}': expected worse or better, > and a number with an optional %, "
            "such as 'worse>0.5%'"
        )
    return Condition(match[1], float(match[2]), bool(match[3]))


def _across(text: str) -> set[str]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    fixed = sorted(names & set(FIXED))
    if fixed:
        raise HarnessError(
            f"--across {fixed[0]}: other samples cannot be paired; run both sides with the same"
        )
    return names


def _select(text: str) -> Side:
    """Read `DIR` or `DIR:PATCH`."""
    directory, spec = text, ""
    if not Path(text).is_dir():
        ends = [place for place, one in enumerate(text) if one == ":"]
        place = next((place for place in ends if Path(text[:place]).is_dir()), None)
        if place is not None:
            directory, spec = text[:place], text[place + 1 :].strip()
    records = read_journal(Path(directory))
    if not records:
        raise HarnessError(f"{directory}: its journal has no finished cell; run it first")
    if not spec:
        return Side(Path(directory), records)
    there = list(dict.fromkeys(record.rows[0].patch for record in records))
    wanted = spec if spec in there else str(patches.parse(spec))
    if wanted not in there:
        raise HarnessError(f"{text}: no cell with patch '{wanted}'; it has {', '.join(there)}")
    chosen = [record for record in records if record.rows[0].patch == wanted]
    return Side(Path(directory), chosen, wanted)


def _pairs(a: Side, b: Side, across: set[str]) -> list[tuple[Record, Record]]:
    """Pairs of cells alike in every setting but those that may differ.

    Raises:
        HarnessError: nothing in common, cells that differ in something else, an unknown setting.
    """
    settings = {name for record in (*a.records, *b.records) for name in record.key}
    unknown = sorted(across - settings)
    if unknown:
        accepted = ", ".join(sorted(settings - set(FIXED)))
        raise HarnessError(f"--across {unknown[0]}: expected settings of a cell: {accepted}")
    names = [name for name in IDENTITY if name not in across]
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in a.records:
        groups.setdefault(tuple(record.key.get(name) for name in names), []).append(record)
    is_one_run = a.directory.resolve() == b.directory.resolve()
    pairs: list[tuple[Record, Record]] = []
    for record in b.records:
        candidates = groups.get(tuple(record.key.get(name) for name in names), [])
        unlike = [_unlike(one, record, settings - across) for one in candidates]
        alike = [one for one, differ in zip(candidates, unlike, strict=True) if not differ]
        if candidates and not alike:
            raise HarnessError(_refusal(candidates[0], record, unlike[0]))
        pairs += [(one, record) for one in alike if not is_one_run or one.key != record.key]
    if (
        not pairs
        and is_one_run
        and [one.key for one in a.records] == [one.key for one in b.records]
    ):
        raise HarnessError(
            "A and B are the same cells; give two runs, or two patches of one as RUN:none RUN:ntk"
        )
    if not pairs:
        raise HarnessError(_nothing_in_common(a.records, b.records, names))
    met = {id(record) for pair in pairs for record in pair}
    for side, name in ((a, "A"), (b, "B")):
        alone = sum(id(record) not in met for record in side.records)
        if alone and not is_one_run:
            print(f"{alone} cells of {name} have no partner and are left out", file=sys.stderr)
    return pairs


def _unlike(a: Record, b: Record, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if a.key.get(name) != b.key.get(name))


def _refusal(a: Record, b: Record, names: Sequence[str]) -> str:
    differ = ", ".join(f"{name} ({a.key.get(name)}, {b.key.get(name)})" for name in names)
    text = f"A and B are not alike: {cell_of(b.rows[0])} differs in {differ}"
    if set(names) & set(FIXED):
        return f"{text}; run both sides with the same"
    return f"{text}; if that is what you compare, give --across {','.join(names)}"


def _nothing_in_common(a: Sequence[Record], b: Sequence[Record], names: Sequence[str]) -> str:
    parts = []
    for name in names:
        ours, theirs = ({str(one.key.get(name)): None for one in side} for side in (a, b))
        if not ours.keys() & theirs.keys():
            shown = (", ".join([*side][:SHOWN]) for side in (ours, theirs))
            parts.append(f"{name}: {' in A, '.join(shown)} in B")
    text = f"A and B have no cell in common ({'; '.join(parts) or 'no two cells to compare'})"
    other_model = any(part.startswith("model:") for part in parts)
    return text + ("; --across model pairs two names of a model" if other_model else "")


def _metrics_there(pairs: Iterable[tuple[Record, Record]]) -> str:
    there = dict.fromkeys(row.metric for _, b in pairs for row in b.rows if row.metric)
    return f"the cells have no such metric; expected one of {', '.join(there)}"


def _place(one: Comparison) -> str:
    share = ""
    if one.difference and one.value_a:
        share = f" by {abs(one.difference.value / one.value_a):.2%}"
    return f"{cell_of(one.b)} {one.b.metric} {one.verdict}{share}"
