"""What LongBench and LongBench-E have in common: a row becomes a sample, an answer its score."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks.base import (
    Document,
    Output,
    Sample,
    Score,
    Source,
    Table,
    Task,
    TaskError,
    Tokenizer,
)
from tasks.chat import Chat, chat_field, chat_of
from tasks.longbench.datasets import CODE, DATASETS
from tasks.longbench.prompts import limits, prompts
from tasks.metrics import grouped_stats, overlap_stats
from tasks.middle import cut_field, fit
from tasks.official import longbench
from tasks.rows import Row
from tasks.templates import parts_of

__all__ = ["LongBenchRows"]

Groups = Sequence[Sequence[str]]
KEPT = ("length",)  # what pred.py takes over from a row besides answers and classes
OF_TEXT = ("qa_f1", "qa_f1_zh", "rouge", "rouge_zh")  # metrics whose references are free text


@dataclass(frozen=True)
class LongBenchRows(Task):
    """Rows of LongBench's data sets, each with its own prompt, limit, end and metric."""

    reads: ClassVar[str] = "rows"
    ending: ClassVar[str] = ""
    sources: ClassVar[Mapping[str, Source]] = {
        "prompts": Source("dataset2prompt.json", "own"),
        "limits": Source("dataset2maxlen.json", "own"),
    }
    subset: tuple[str, ...] = ()
    cut: str = cut_field()
    chat: str = chat_field()

    @property
    def tables(self) -> Mapping[str, Table]:
        """The file of each data set."""
        names = {name: f"{name}{self.ending}" for name in self.subset}
        return {name: Table((f"{file}.jsonl",), file) for name, file in names.items()}

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a row."""
        sources = documents[0].sources
        templates = prompts(sources.get("prompts"), self.subset)
        most = limits(sources.get("limits"), self.subset)
        template = chat_of(tokenizer, self.chat, self.name)
        samples = []
        for document in documents:
            name, row = document.table, document.row
            chat = template if DATASETS[name].chat else Chat()
            assert row is not None
            try:
                context, question = row.text("context"), row.text("input", "question")
                references, classes = _answers(name, row)
                parts = parts_of(templates[name], context, input=question)
                room = context_length - chat.size
                fitted = fit(tokenizer, parts, room, most[name], self.cut)
                position = self.position(name, row)
            except TaskError as error:
                raise type(error)(f"sample '{document.id}': {error}") from None
            samples.append(
                Sample(
                    id=document.id,
                    document=document.id,
                    prompt=chat.around(tokenizer, fitted.tokens),
                    max_new_tokens=most[name],
                    **(_of_a_line(tokenizer) if DATASETS[name].line else {"until": ()}),
                    chat=chat.size > 0,
                    reference=references[0],
                    references=references,
                    classes=classes,
                    fields={name: row.fields[name] for name in KEPT if name in row.fields},
                    cut=fitted.cut,
                    position=position,
                )
            )
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return the official score in every average it counts in; BLEU and ROUGE of free text.

        Of code also the similarity that another package would give.
        """
        name = sample.position.split(" ")[0]
        value = longbench.row_score(name, output.text, sample.references, sample.classes)
        scores = [
            Score("longbench", grouped_stats(groups, name, 100 * value), place)
            for place, groups in self.averages(sample.position).items()
        ]
        similar = longbench.levenshtein_score(name, output.text, sample.references)
        if similar is not None:
            code = [one for one in self.subset if DATASETS[one].category == CODE]
            scores += [
                Score(longbench.LEVENSHTEIN, grouped_stats([sets], name, 100 * similar), place)
                for place, sets in {"": code, name: [name]}.items()
            ]
        if longbench.DATASETS[name] in OF_TEXT:
            text = longbench.scored_text(name, output.text)
            overlaps = overlap_stats(text, sample.references, DATASETS[name].lang)
            scores += [Score(metric, stats, at) for metric, stats in overlaps for at in ("", name)]
        return scores

    @abstractmethod
    def position(self, name: str, row: Row) -> str:
        """The part that a row belongs to; its first word is the data set.

        Raises:
            TaskError: a field of the row is missing.
        """

    @abstractmethod
    def averages(self, position: str) -> Mapping[str, Groups]:
        """Averages that a part counts in, by their name, each as groups of data sets."""


def _of_a_line(tokenizer: Tokenizer) -> dict[str, Any]:
    """How pred.py has an answer end: by the token that a newline ends with, but not at once."""
    return {"until": (), "ends": tuple(tokenizer.encode("\n")[-1:]), "min_new_tokens": 1}


def _answers(name: str, row: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """References and classes of a row, checked by scoring an empty answer."""
    references = tuple(row.texts("answers"))
    if not any(one.strip() for one in references):
        raise row.error("field 'answers' holds blank texts alone; expected a reference")
    named = longbench.DATASETS[name] == "classification"
    classes = tuple(row.texts("all_classes")) if named else ()
    try:
        longbench.row_score(name, "", references, classes)
    except TaskError:
        raise
    except ValueError as error:
        raise row.error(str(error)) from None
    return references, classes
