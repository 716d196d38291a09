"""LongBench's data sets: where each belongs, how long it may answer, and how it ends.

Source: Bai et al. 2023, https://arxiv.org/abs/2308.14508, tables 1 and 3, and the benchmark's
pred.py and config/dataset2maxlen.json (github.com/THUDM/LongBench, MIT).
"""

from dataclasses import dataclass

from tasks.official.longbench import DATASETS as METRICS

__all__ = ["CODE", "DATASETS", "EXTENDED", "GROUPS", "DataSet", "by_category", "groups_of"]


@dataclass(frozen=True)
class DataSet:
    """A data set; `langs` are the averages that it counts in, `chat` says whether it is chatted.

    With `line` a newline token ends the answer too, but neither that nor the end-of-sequence token
    is its first.
    """

    category: str
    langs: tuple[str, ...]
    new: int
    chat: bool = True
    line: bool = False

    @property
    def lang(self) -> str:
        """Language of its answers; code counts as English."""
        return self.langs[0]


SINGLE, MULTI, SUMMARY = "single-doc-qa", "multi-doc-qa", "summarization"
FEW, SYNTHETIC, CODE = "few-shot", "synthetic", "code"
EN, ZH, BOTH = ("en",), ("zh",), ("en", "zh")

DATASETS: dict[str, DataSet] = {
    "narrativeqa": DataSet(SINGLE, EN, 128),
    "qasper": DataSet(SINGLE, EN, 128),
    "multifieldqa_en": DataSet(SINGLE, EN, 64),
    "multifieldqa_zh": DataSet(SINGLE, ZH, 64),
    "hotpotqa": DataSet(MULTI, EN, 32),
    "2wikimqa": DataSet(MULTI, EN, 32),
    "musique": DataSet(MULTI, EN, 32),
    "dureader": DataSet(MULTI, ZH, 128),
    "gov_report": DataSet(SUMMARY, EN, 512),
    "qmsum": DataSet(SUMMARY, EN, 512),
    "multi_news": DataSet(SUMMARY, EN, 512),
    "vcsum": DataSet(SUMMARY, ZH, 512),
    "trec": DataSet(FEW, EN, 64, chat=False),
    "triviaqa": DataSet(FEW, EN, 32, chat=False),
    "samsum": DataSet(FEW, EN, 128, chat=False, line=True),
    "lsht": DataSet(FEW, ZH, 64, chat=False),
    "passage_count": DataSet(SYNTHETIC, EN, 32),
    "passage_retrieval_en": DataSet(SYNTHETIC, EN, 32),
    "passage_retrieval_zh": DataSet(SYNTHETIC, ZH, 32),
    "lcc": DataSet(CODE, BOTH, 64, chat=False),
    "repobench-p": DataSet(CODE, BOTH, 64, chat=False),
}
assert DATASETS.keys() == METRICS.keys()

EXTENDED = (
    "qasper",
    "multifieldqa_en",
    "hotpotqa",
    "2wikimqa",
    "gov_report",
    "multi_news",
    "trec",
    "triviaqa",
    "samsum",
    "passage_count",
    "passage_retrieval_en",
    "lcc",
    "repobench-p",
)


def groups_of(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return groups to choose from: all of the names, then by language and by category."""
    found = {"all": names}
    for name in names:
        one = DATASETS[name]
        for group in (*one.langs, one.category):
            found[group] = (*found.get(group, ()), name)
    return found


def by_category(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the names by their category."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        category = DATASETS[name].category
        found[category] = (*found.get(category, ()), name)
    return found


GROUPS = groups_of(tuple(DATASETS))
