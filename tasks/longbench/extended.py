"""LongBench-E: thirteen of the data sets, with as many rows of every length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.longbench.datasets import EXTENDED, by_category, groups_of
from tasks.longbench.rows import Groups, LongBenchRows
from tasks.official.longbench import bucket
from tasks.rows import Row
from tasks.spec import choices

__all__ = ["TASK", "LongBenchE"]


@dataclass(frozen=True)
class LongBenchE(LongBenchRows):
    """LongBench's scores by the length of the row: `0-4k`, `4-8k`, `8k+`, and of each data set.

    --data holds the benchmark's NAME_e.jsonl. The length is the row's own, in words, and not in the
    model's tokens. The value of a bucket is the mean over the six categories of the means of their
    data sets, the macro-average of the paper's figure 3; `0-4k flat` is the mean over data sets.
    The value of a data set is that of all its rows, `NAME 0-4k` that of those in the bucket, as
    eval.py has it. --n rows are the first of the file, whatever their length. All else is as in
    `longbench`.

    Source: Bai et al. 2023, https://arxiv.org/abs/2308.14508, section 4.1;
    github.com/THUDM/LongBench.

    Differs: as `longbench`.
    """

    name: ClassVar[str] = "longbench-e"
    ending: ClassVar[str] = "_e"
    subset: tuple[str, ...] = choices(groups_of(EXTENDED), what="data sets or groups joined by +")

    def position(self, name: str, row: Row) -> str:
        """The data set and the bucket."""
        return f"{name} {bucket(row.number('length'))}"

    def averages(self, position: str) -> Mapping[str, Groups]:
        """All and the bucket by category and flat, the data set, and its bucket."""
        name, _, length = position.partition(" ")
        categories: Groups = list(by_category(self.subset).values())
        flat: Groups = [(one,) for one in self.subset]
        found = {"": categories, length: categories, "flat": flat, f"{length} flat": flat}
        return {**found, name: [(name,)], position: [(name,)]}


TASK = LongBenchE
