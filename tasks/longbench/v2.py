"""LongBench v2: multiple choice about long texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Source, Table, Task, TaskError, Tokenizer
from tasks.chat import chat_field, chat_of
from tasks.middle import Parts, cut_field, fit
from tasks.official.longbench_v2 import extract_answer
from tasks.rows import Row

__all__ = ["TASK", "LongBenchV2"]

NEW = 128
TABLE = "longbench-v2"
PLACE = "$DOC$"
OWN = """Below is a text, and then a question about it with four choices.

$DOC$

Question: $Q$
(A) $C_A$
(B) $C_B$
(C) $C_C$
(D) $C_D$

One choice is right. Reply in this form: The correct answer is (letter)
Reply:"""
FIELDS = {
    "$Q$": "question",
    "$C_A$": "choice_A",
    "$C_B$": "choice_B",
    "$C_C$": "choice_C",
    "$C_D$": "choice_D",
}
KEPT = (
    *("_id", "domain", "sub_domain", "difficulty", "length"),
    *(*FIELDS.values(), "answer"),  # what pred.py takes over from a row besides its context
)
LETTERS, DIFFICULTIES, LENGTHS = "ABCD", ("easy", "hard"), ("short", "medium", "long")


@dataclass(frozen=True)
class LongBenchV2(Task):
    """Right letters in percent, of all rows, by difficulty and by length.

    --data holds the benchmark's data.json or a .jsonl file of its rows, or is THUDM/LongBench-v2 on
    the hub; --n is the first rows of it. The prompt is that of 0shot.txt where the data has it
    (`python -m harness fetch longbench-v2 DIR` gets it), otherwise own wording; the column `data`
    says which. The answer is the letter behind `The
    correct answer is`; without one it is wrong. A prompt too long loses its middle, and with
    `cut=context` its context alone does.

    Source: Bai et al. 2024, https://arxiv.org/abs/2412.15204; github.com/THUDM/LongBench.

    Differs: greedy, where the benchmark samples at temperature 0.1; one answer, where it can ask
    for thoughts first (0shot_cot.txt) and for passages found before; max_length is the context
    length less the answer, and 32 tokens more are not held back; a document that holds `$Q$` keeps
    it, where the benchmark puts the question there too.
    """

    name: ClassVar[str] = "longbench-v2"
    reads: ClassVar[str] = "rows"
    sources: ClassVar[Mapping[str, Source]] = {"prompts": Source("0shot.txt", "own")}
    cut: str = cut_field()
    chat: str = chat_field()

    @property
    def tables(self) -> Mapping[str, Table]:
        """The one file."""
        return {TABLE: Table(("data.json", "longbench_v2/sample.jsonl", "*.jsonl"))}

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a row."""
        template = documents[0].sources.get("prompts", OWN)
        missing = [place for place in (PLACE, *FIELDS) if place not in template]
        if missing:
            raise TaskError(f"0shot.txt: no {', '.join(missing)} in it; expected the benchmark's")
        chat = chat_of(tokenizer, self.chat, self.name)
        samples = []
        for document in documents:
            row = document.row
            assert row is not None
            try:
                parts = _parts(template, row)
                room = context_length - chat.size
                fitted = fit(tokenizer, parts, room, NEW, self.cut, joined=True)
                reference = f"The correct answer is ({row.word('answer', LETTERS)})"
                level, size = row.word("difficulty", DIFFICULTIES), row.word("length", LENGTHS)
            except TaskError as error:
                raise type(error)(f"sample '{document.id}': {error}") from None
            samples.append(
                Sample(
                    id=document.id,
                    document=document.id,
                    prompt=chat.around(tokenizer, fitted.tokens),
                    max_new_tokens=NEW,
                    until=(),
                    chat=chat.size > 0,
                    reference=reference,
                    references=(reference,),
                    fields={name: row.fields[name] for name in KEPT if name in row.fields},
                    cut=fitted.cut,
                    position=f"{level} {size}",
                )
            )
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (100 or 0, 1), of all rows, of those as difficult and of those as long."""
        right = extract_answer(output.text) == extract_answer(sample.reference)
        return [
            Score(self.name, (100.0 * right, 1.0), place)
            for place in ("", *sample.position.split(" "))
        ]


def _parts(template: str, row: Row) -> Parts:
    before, _, after = template.partition(PLACE)
    for place, field in FIELDS.items():
        text = row.text(field).strip()
        before, after = before.replace(place, text), after.replace(place, text)
    return Parts(before, row.text("context").strip(), after)


TASK = LongBenchV2
