"""What a task is: documents in, samples out; a model's output in, sufficient statistics out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tasks.spec import RowError, TaskError, canonical

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.rows import Row

__all__ = [
    "Document",
    "Output",
    "Pass",
    "RowError",
    "Sample",
    "Score",
    "Source",
    "Table",
    "Task",
    "TaskError",
    "Tokenizer",
]


class Tokenizer(Protocol):
    """What a task needs of a tokenizer."""

    @property
    def bos_id(self) -> int | None:
        """Id of the begin-of-sequence token, None where the tokenizer has none."""

    @property
    def end_id(self) -> int | None:
        """Id of the token that the tokenizer puts behind every text, None where it puts none."""

    @property
    def chat(self) -> tuple[str, str] | None:
        """Texts before and behind a user's message; None where the model is none for chat."""

    def encode(self, text: str) -> list[int]:
        """Token ids of the text, without any special token."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, each without any special token."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters [start, end) of each token of the text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the token ids, without special tokens."""


@dataclass(frozen=True)
class Source:
    """A file that a task looks for in the data: by the end of its path, and what stands in."""

    pattern: str
    otherwise: str = "none"


@dataclass(frozen=True)
class Table:
    """A file of rows that a task needs: ends of its path, the first that is there counts.

    Rows whose field has one of the values in `without` are left out, and counted. On the hub they
    are those of `config`.
    """

    patterns: tuple[str, ...]
    config: str = ""
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """One text of the corpus, or one row of a table; intervals resample documents.

    `sources` holds the text of the files that the task looks for, as far as the data has them;
    `keys` the rising character intervals that matter, if the data marks them.
    """

    id: str
    text: str
    keys: tuple[tuple[int, int], ...] | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    table: str = ""
    row: Row | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Pass:
    """One forward pass; `tokens[score_from:]` are scored, 1 <= score_from < len(tokens).

    Where tokens are `hidden` (rising places, the first is score_from), the model is given a mask in
    their stead and these alone are scored.
    """

    tokens: tuple[int, ...]
    score_from: int
    hidden: tuple[int, ...] = ()

    @property
    def scored(self) -> Sequence[int]:
        """Places of the scored tokens."""
        return self.hidden or range(self.score_from, len(self.tokens))


@dataclass(frozen=True)
class Sample:
    """What the model is to do for one document.

    The id names the document and the end point: samples of the same id are paired across patches.
    The model generates when `max_new_tokens` is above 0: exactly so many tokens where `until` is
    None, otherwise at most so many, up to the end-of-sequence token or to the first of the strings
    in `until`, neither of which is part of the answer; the token ids in `ends` end it as
    end-of-sequence tokens do, and none of them is among its first `min_new_tokens`. `chat` says
    that the prompt stands in the model's chat template. `position` says where in its input the
    answer stands, or of which part of the task the sample is, for tasks that score by it; `keys`
    and `score_from` which tokens of the first pass count, for tasks that choose among them; `depth`
    the share of the prompt's tokens that stand before what is asked for.

    `borders` cut a prompt whose contexts can be read apart: context k is prompt[borders[k]:
    borders[k + 1]]; what stands before the first border (with BOS) and what stands behind the last
    (the question, never empty) belongs to all of them.

    `references` are the accepted answers where there may be several, `reference` is then the
    first; `classes` all labels to choose from; `fields` what else the benchmark's own files of
    predictions say of the row, by name, as JSON has it. `cut` says what was taken out of a prompt
    that was too long: nothing, some of its `context`, or of its `wording` too.
    """

    id: str
    document: str
    passes: tuple[Pass, ...] = ()
    prompt: tuple[int, ...] = ()
    max_new_tokens: int = 0
    until: tuple[str, ...] | None = None
    ends: tuple[int, ...] = ()
    min_new_tokens: int = 0
    chat: bool = False
    reference: str = ""
    references: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    cut: str = ""
    position: str = ""
    reference_tokens: tuple[int, ...] = ()
    keys: tuple[int, ...] | None = None
    score_from: int = 0
    depth: float | None = None
    borders: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Length of the longest input, what is generated behind it included."""
        passes = (len(one.tokens) for one in self.passes)
        return max(len(self.prompt) + self.max_new_tokens, *passes, 0)


@dataclass(frozen=True)
class Output:
    """What the model did: one array a pass, as long as its scored tokens, and the answer."""

    nll: tuple[NDArray[np.float64], ...]
    hits: tuple[NDArray[np.bool_], ...]
    generated: tuple[int, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Score:
    """Sufficient statistics of one sample: sums over samples give the metric's value."""

    metric: str
    stats: tuple[float, ...]
    position: str = ""


@dataclass(frozen=True)
class Task(ABC):
    """A task; its parameters are the fields of the dataclass.

    `reads` says what its documents are: `documents` of the data, n samples of the data's whole text
    as one `haystack`, `rows` of `tables`, or `nothing` but ids. `sources` are single files that it
    takes from the data besides; a source named as what it reads stands for the text of all
    documents. `masks` says that its passes hide tokens, for models that fill them in.
    """

    name: ClassVar[str]
    masks: ClassVar[bool] = False
    reads: ClassVar[str] = "documents"
    sources: ClassVar[Mapping[str, Source]] = {}

    @property
    def spec(self) -> str:
        """The canonical spec: parameters at their default are left out."""
        return canonical(self)

    @property
    def tables(self) -> Mapping[str, Table]:
        """The files whose rows these parameters ask for, by name."""
        return {}

    @abstractmethod
    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return the samples of the documents, each within `context_length` tokens.

        Raises:
            TaskError: the length, a parameter or a document does not fit the others.
        """

    def scored_tokens(self, sample: Sample) -> int:
        """Tokens of the passes that the metrics rest on."""
        return sum(len(one.scored) for one in sample.passes)

    @abstractmethod
    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return the sample's sufficient statistics, one entry a metric and position."""
