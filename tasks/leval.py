"""L-Eval: several questions about one long document, with short answers or free ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tasks.base import (
    Document,
    Output,
    RowError,
    Sample,
    Score,
    Source,
    Table,
    Task,
    TaskError,
    Tokenizer,
)
from tasks.chat import chat_field, chat_of
from tasks.fit import default_of
from tasks.metrics import grouped_stats, overlap_stats
from tasks.middle import Parts, fit_all
from tasks.official import leval
from tasks.rows import Row
from tasks.spec import choices, integer
from tasks.templates import parts_of, templates

__all__ = ["GROUPS", "KINDS", "TASK", "LEval"]

NEW = 512
JUDGED = ("LLM", "human")
WORLD = "sci_fi world"  # the same question without the story
REPLACED = "sci_fi replaced"
OF_WORLD = ("the world described in the document", "the real world")
CLOSED = ("coursera", "quality", "topic_retrieval_longchat", "tpo", "gsm100", "codeU", "sci_fi")
F1 = (
    *("financial_qa", "legal_contract_qa", "multidoc_qa", "narrative_qa"),
    *("natural_question", "scientific_qa"),
)
KINDS = {
    name: "exam" if name in CLOSED else "f1" if name in F1 else "rouge" for name in leval.DATASETS
}
GROUPS = {
    "all": leval.DATASETS,
    "closed": CLOSED,
    "open": tuple(name for name in leval.DATASETS if name not in CLOSED),
}
PARTS = {"topic_retrieval_longchat": 3, "sci_fi": 2}  # scores whose means are averaged
CHOICE = (
    "Read this text.\n\n{context}\n\nQuestion about the text: {input}\nReply with the letter of "
    "the right choice alone.\nAnswer:"
)
ASKED = "Read this text.\n\n{context}\n\n{input}"
OWN = dict.fromkeys(leval.DATASETS, f"{ASKED}\nReply with {{words}} words.\nAnswer:") | {
    "quality": CHOICE,
    "tpo": CHOICE,
    "coursera": CHOICE.replace(
        "letter of the right choice alone", "letters of all right choices, such as A or BD"
    ),
    "topic_retrieval_longchat": "A talk about several topics:\n\n{context}\n\n{input}\nTopic:",
    "gsm100": (
        "Solve the last question as the ones before it are solved. End with: The answer is N\n\n"
        "{context}\n\n{input}"
    ),
    "codeU": "Functions:\n\n{context}\n\n{input}\nAnswer:",
    "sci_fi": "Story:\n\n{context}\n\n{input}\nBy the story alone, True or False?\nAnswer:",
    WORLD: "{context}{input}\nBy what is known, True or False?\nAnswer:",
}


@dataclass(frozen=True)
class LEval(Task):
    """The official score of each of 20 data sets, 0 to 100, and the mean over those of a kind.

    leval-exam: exact match of closed questions, which gives 0.25 for some of the right letters.
    leval-f1: F1 of short answers. leval-rouge: the geometric mean of a data set's mean ROUGE-1, -2
    and -L, of summaries. topic_retrieval_longchat is the mean of its first, second and third
    questions, sci_fi that of answers by the story, and in the world, which are asked for without
    the story. Free answers have BLEU and ROUGE-1, -2 and -L by themselves too, of a data set and
    over all such rows.

    --data holds the benchmark's NAME.jsonl, --n is documents a data set. All questions about a
    document are asked; their prompts begin with the same tokens. Intervals resample documents.
    Rows whose evaluation is LLM or human need a judge and are left out, as in auto_eval.py; the
    column `data` counts those passed over. A document too long loses its end, codeU's its start, to
    make room for its longest question. Open questions say how many words the reference has.

    Source: An et al. 2023, https://arxiv.org/abs/2307.11088; github.com/OpenLMLab/LEval: 512 tokens
    an answer, the cuts and the number of words are those of Baselines/llama2-chat-test.py.

    Differs: own wording unless the data has leval/prompts.json, of data set (and `sci_fi world`) to
    a template with {context}, {input} and for free answers {words}; `sci_fi replaced` is a list of
    the words about the document and those about the world. The benchmark has its prompts in its
    code: `fetch leval DIR` brings those of llama2-chat-test.py, the system prompt in front of the
    message as in longchat-test.py. With chat=on all of it is the user's message, `Answer:` too, and
    that of gsm100 and codeU is closed. Documents are cut by tokens, not by steps of 250 words. An
    answer of sci_fi is read by itself.
    """

    name: ClassVar[str] = "leval"
    reads: ClassVar[str] = "rows"
    sources: ClassVar[Mapping[str, Source]] = {"prompts": Source("leval/prompts.json", "own")}
    subset: tuple[str, ...] = choices(GROUPS, what="data sets or groups joined by +")
    new: int | None = integer("tokens that an answer may take", "512")
    chat: str = chat_field()

    @property
    def tables(self) -> Mapping[str, Table]:
        """The file of each data set, without the rows for judges."""
        return {
            name: Table((f"{name}.jsonl",), name, {"evaluation": JUDGED}) for name in self.subset
        }

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a question, two for sci_fi.

        Those about a document follow each other, so that it is read once.
        """
        names = (*self.subset, *([WORLD] if "sci_fi" in self.subset else ()))
        asked = _asked(documents[0].sources.get("prompts"), names)
        new = default_of("new", self.new, NEW)
        chat = chat_of(tokenizer, self.chat, self.name)
        samples = []
        for document in documents:
            try:
                questions = sorted(_questions(document, asked), key=lambda one: one.alone)
                parts = [one.parts for one in questions]
                from_start = document.table == "codeU"
                fitted = fit_all(tokenizer, parts, context_length - chat.size, new, from_start)
            except (TaskError, ValueError) as error:
                kind = RowError if isinstance(error, RowError) else TaskError
                raise kind(f"document '{document.id}': {error}") from None
            samples += [
                Sample(
                    id=f"{document.id}, {one.id}",
                    document=document.id,
                    prompt=prompt.tokens if one.alone else chat.around(tokenizer, prompt.tokens),
                    max_new_tokens=new,
                    until=(),
                    chat=chat.size > 0 and not one.alone,
                    reference=one.reference,
                    references=(one.reference,),
                    fields=one.fields,
                    cut=prompt.cut,
                    position=one.position,
                )
                for one, prompt in zip(questions, fitted, strict=True)
            ]
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return the official score, of all of its kind and of the data set; BLEU and ROUGE too."""
        name, kind = sample.position.split(" ")[0], KINDS[sample.position.split(" ")[0]]
        places = {"": self.subset, name: (name,)}  # other kinds have no count in this metric
        if kind == "rouge":
            rouge = (*leval.rouge(output.text, sample.reference).values(), 1.0)
            stats = {
                place: sum((rouge if one == name else (0.0,) * 4 for one in sets), start=())
                for place, sets in places.items()
            }
        else:
            value = _value(name, output.text, sample.reference)
            stats = {
                place: grouped_stats([_members(one) for one in sets], sample.position, value)
                for place, sets in places.items()
            }
        scores = [Score(f"leval-{kind}", found, place) for place, found in stats.items()]
        if kind != "exam":
            overlaps = overlap_stats(output.text, sample.references, "en")
            scores += [Score(metric, found, at) for metric, found in overlaps for at in places]
        return scores


def _asked(official: str | None, names: Sequence[str]) -> Mapping[str, Any]:
    """Templates, and what turns a question about fiction into one about the world."""
    file = "leval/prompts.json"
    asked = templates(file, official, OWN, names, _places)
    match asked.get(REPLACED, OF_WORLD):
        case [str(), str()]:
            return asked
    raise TaskError(f"{file}: {REPLACED}: expected two texts, what is replaced and by what")


@dataclass(frozen=True)
class Question:
    """One question about a document, and the part of the task that its score counts in.

    `fields` are those of the row that the benchmark writes for it; none for the second of a row,
    which is asked alone: without the document, and without a chat template as there.
    """

    id: str
    position: str
    parts: Parts
    reference: str
    fields: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False


def _places(name: str) -> tuple[str, ...]:
    """What a template may ask for."""
    return ("input",) if KINDS.get(name, "exam") == "exam" else ("input", "words")


def _members(name: str) -> list[str]:
    """The parts of a data set whose means are averaged, as positions."""
    return [f"{name} {part}" for part in range(PARTS[name])] if name in PARTS else [name]


def _questions(document: Document, asked: Mapping[str, Any]) -> Iterator[Question]:
    """All questions of a row, checked by reading their references."""
    name, row = document.table, document.row
    assert row is not None
    context, of_world = row.text("input"), asked.get(REPLACED, OF_WORLD)
    for place, (instruction, reference) in enumerate(_pairs(name, row), 1):
        fields = {"query": instruction, "gt": reference, "evaluation": KINDS[name]}
        words = str(len(reference.split()))
        parts = parts_of(asked[name], context, input=instruction, words=words)
        if name != "sci_fi":
            position = _members(name)[(place - 1) % PARTS.get(name, 1)]
            yield Question(f"question {place}", position, parts, reference, fields)
            continue
        real = parts_of(asked[WORLD], "", input=instruction.replace(*of_world))
        by_story, in_world = leval.read_judgement_reference(reference)
        yield Question(f"question {place}", f"{name} 0", parts, by_story, fields)
        yield Question(f"question {place} in the world", f"{name} 1", real, in_world, alone=True)


def _pairs(name: str, row: Row) -> list[tuple[str, str]]:
    instructions, references = row.texts("instructions"), row.texts("outputs")
    row.word("evaluation", (KINDS[name],))
    if len(instructions) != len(references):
        raise row.error(f"{len(instructions)} instructions and {len(references)} outputs")
    for place, reference in enumerate(references, 1):
        if not reference.strip():
            raise row.error(f"question {place} has a blank output; expected a reference")
        try:
            leval.pairs(name, "[fact: ]", reference)
        except ValueError as error:
            raise row.error(f"question {place}: {error}") from None
    return list(zip(instructions, references, strict=True))


def _value(name: str, prediction: str, reference: str) -> float:
    if name == "sci_fi":  # asked for one after the other
        prediction, reference = f"{prediction} [fact: ]", f"{reference} [fact: ]"
    pair = leval.pairs(name, prediction, reference)[0]
    return 100 * (leval.f1(*pair) if KINDS[name] == "f1" else leval.exact_match(*pair))


TASK = LEval
