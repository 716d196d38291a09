"""LongBench: 21 data sets of questions, summaries, examples, retrieval and code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.longbench.datasets import DATASETS, GROUPS, by_category
from tasks.longbench.rows import Groups, LongBenchRows
from tasks.rows import Row
from tasks.spec import choices

__all__ = ["TASK", "LongBench"]


@dataclass(frozen=True)
class LongBench(LongBenchRows):
    """The official score of each data set, 0 to 100, and the leaderboard's averages.

    --data holds the benchmark's NAME.jsonl, or names a data set on the hub with a config for each
    that is no script, such as Xnhyacinth/LongBench; --n is rows a data set, the first, fewer where
    it has fewer. Prompts and limits are those of dataset2prompt.json and dataset2maxlen.json
    where the data has them (`python -m harness fetch longbench DIR` gets them), otherwise own
    wording; the column `data` says which.

    A value of its own has every data set; `en single-doc-qa` and so on are means of data-set means,
    `en` and `zh` means over the six categories as on the leaderboard, where code counts in both;
    `en flat` and `zh flat` are means over data sets, as papers on caches give them. The value of
    all is the mean over categories, whatever their language: with subset=en that of `en`.

    Questions and summaries have BLEU and ROUGE too, against the reference that scores best, for a
    data set and over all such rows of a language; BLEU of answers below four words is near 0.

    `code_sim-levenshtein` is what the data sets of code score with python-Levenshtein installed,
    which the benchmark's requirements are without; it is part of no average above.

    A prompt that is too long loses its middle, as in pred.py, with the context length less the
    answer as max_length. That keeps both ends, but a question that is longer than half the budget
    is cut; `cut=context` cuts the context alone, and leaves instruction and question whole.

    Source: Bai et al. 2023, https://arxiv.org/abs/2308.14508; github.com/THUDM/LongBench.

    Differs: answer and chat template are part of the length, and the template is the model's own,
    put around the prompt's tokens; a prompt that becomes longer when the text of its halves is
    encoded again is cut a little more; an answer of samsum ends at all of the model's
    end-of-sequence tokens, where pred.py gives its tokenizer's alone.
    """

    name: ClassVar[str] = "longbench"
    subset: tuple[str, ...] = choices(GROUPS, what="data sets or groups joined by +")

    def position(self, name: str, row: Row) -> str:
        """The data set."""
        return name

    def averages(self, position: str) -> Mapping[str, Groups]:
        """All, each language by category and flat, the category, the data set.

        Only samples of a language reach its averages: other members of a group have no count there.
        """
        mine, categories = DATASETS[position], by_category(self.subset)
        found: dict[str, Groups] = {"": list(categories.values())}
        for lang in mine.langs:
            found[lang] = list(categories.values())
            found[f"{lang} flat"] = [(name,) for name in self.subset]
            found[f"{lang} {mine.category}"] = [categories[mine.category]]
        return {**found, position: [(position,)]}


TASK = LongBench
