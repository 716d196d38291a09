"""InfiniteBench: retrieval, books, dialogues, mathematics and code of 100k tokens and more."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Source, Table, Task, TaskError, Tokenizer
from tasks.metrics import grouped_stats, overlap_stats
from tasks.middle import Parts, cut_field, fit
from tasks.official import infinitebench
from tasks.rows import Row
from tasks.spec import choices
from tasks.templates import parts_of, templates

__all__ = ["GROUPS", "OWN", "TASK", "InfiniteBench"]

NEW = {
    "passkey": 6,
    "number_string": 12,
    "kv_retrieval": 50,
    "longbook_sum_eng": 1200,
    "longbook_choice_eng": 40,
    "longbook_qa_eng": 40,
    "longbook_qa_chn": 40,
    "longdialogue_qa_eng": 40,
    "math_find": 3,
    "math_calc": 30_000,
    "code_run": 5,
    "code_debug": 5,
}
GROUPS = {
    "all": infinitebench.DATASETS,
    "retrieval": ("passkey", "number_string", "kv_retrieval"),
    "book": ("longbook_sum_eng", "longbook_choice_eng", "longbook_qa_eng", "longbook_qa_chn"),
    "dialogue": ("longdialogue_qa_eng",),
    "math": ("math_find", "math_calc"),
    "code": ("code_run", "code_debug"),
}
OF_CHOICES = ("longbook_choice_eng", "code_debug")
OPTIONS = ("OPTION_A", "OPTION_B", "OPTION_C", "OPTION_D")
OF_INPUT = {"code_run": ("func", "func_call"), "math_find": ("prefix",)}
IN_INPUT = {"code_run": r"func_[0-9]+\(-?[0-9]+\)", "math_find": r"The .+(?= of)"}
OF_TEXT = {"longbook_sum_eng": "en", "longbook_qa_eng": "en", "longbook_qa_chn": "zh"}
QA = "Read this text.\n\n{context}\n\nQuestion: {input}\nReply in as few words as you can.\nAnswer:"
LISTED = "{input}\nA. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}"
CHOICE = f"Read this text.\n\n{{context}}\n\nQuestion: {LISTED}\nReply with one letter.\nAnswer:"
OWN = {
    "passkey": "A number is hidden in this text.\n\n{context}\n\n{input}",
    "number_string": "A row of digits is hidden in this text.\n\n{context}\n\n{input}",
    "kv_retrieval": "Find the value of one key in this object.\n\n{context}\n\n{input}",
    "longbook_sum_eng": "Book:\n\n{context}\n\nSum the book up.\n\nSummary:",
    "longbook_choice_eng": CHOICE,
    "longbook_qa_eng": QA,
    "longbook_qa_chn": "读下面的书。\n\n{context}\n\n问题: {input}\n请尽量简短地回答。\n答案:",
    "longdialogue_qa_eng": (
        "In this script one name is written as $$MASK$$.\n\n{context}\n\nWhose name is it? Reply "
        "with the name.\nName:"
    ),
    "math_find": "{context}\n\n{input}",
    "math_calc": "Say all results on the way to the end, in order.\n\n{context}\n\nResults:",
    "code_run": "Functions:\n\n{context}\n\n{input}\nReply with the returned number alone:",
    "code_debug": (
        f"One of these functions has an obvious error.\n\n{{context}}\n\n{LISTED}\nLetter:"
    ),
}


@dataclass(frozen=True)
class InfiniteBench(Task):
    """The official score of each of 12 data sets, 0 to 100, and the mean over them.

    --data holds the benchmark's NAME.jsonl, with the fields context, input, answer and options;
    --n is rows a data set, the first of its file. An answer is a number, a word, a choice, a list
    of numbers that counts up to its first mistake, or free text, which has F1 or ROUGE-Lsum, and
    BLEU and ROUGE besides. A prompt too long loses its middle, and with `cut=context` its context
    alone does.

    Source: Zhang et al. 2024, https://arxiv.org/abs/2402.13718; github.com/OpenBMB/InfiniteBench,
    src/eval_utils.py and src/compute_scores.py.

    No chat template stands around the prompts: none does where the benchmark runs open models, in
    eval_yarn_mistral.py, eval_yi_200k.py, eval_chatglm.py and eval_rwkv.py.

    Differs: own wording unless the data has infinitebench/prompts.json, of data set to a template
    with {context}, {input} and the benchmark's other places. The benchmark has its prompts in its
    code, by model; `fetch infinitebench DIR` brings those of src/prompt.py for yarn-mistral, which
    other open models are asked with too. An answer takes a quarter of the length at most: math_calc
    asks for 30 000 tokens.
    """

    name: ClassVar[str] = "infinitebench"
    reads: ClassVar[str] = "rows"
    sources: ClassVar[Mapping[str, Source]] = {
        "prompts": Source("infinitebench/prompts.json", "own")
    }
    subset: tuple[str, ...] = choices(GROUPS, what="data sets or groups joined by +")
    cut: str = cut_field()

    @property
    def tables(self) -> Mapping[str, Table]:
        """The file of each data set."""
        return {name: Table((f"{name}.jsonl",), name) for name in self.subset}

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a row."""
        official = documents[0].sources.get("prompts")
        asked = templates("infinitebench/prompts.json", official, OWN, self.subset, _places)
        samples = []
        for document in documents:
            name, row = document.table, document.row
            assert row is not None
            new = max(1, min(NEW[name], context_length // 4))
            try:
                references = _references(name, row)
                parts = _parts(asked[name], name, row)
                fitted = fit(tokenizer, parts, context_length, new, self.cut, joined=True)
            except TaskError as error:
                raise type(error)(f"sample '{document.id}': {error}") from None
            samples.append(
                Sample(
                    id=document.id,
                    document=document.id,
                    prompt=fitted.tokens,
                    max_new_tokens=new,
                    until=(),
                    reference=_said(name, references),
                    references=references,
                    cut=fitted.cut,
                    position=name,
                )
            )
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return the official score, of all data sets and of the one; for text BLEU and ROUGE."""
        name = sample.position
        value = 100 * infinitebench.score(name, output.text, sample.references)
        groups = {"": [(one,) for one in self.subset], name: [(name,)]}
        scores = [
            Score("infinitebench", grouped_stats(sets, name, value), place)
            for place, sets in groups.items()
        ]
        if name in OF_TEXT:
            overlaps = overlap_stats(output.text, sample.references, OF_TEXT[name])
            scores += [Score(metric, found, at) for metric, found in overlaps for at in groups]
        return scores


def _places(name: str) -> tuple[str, ...]:
    """What a template may ask for: {question} is {input} by another name."""
    return ("input", "question", *(OPTIONS if name in OF_CHOICES else OF_INPUT.get(name, ())))


def _fields(name: str, row: Row) -> dict[str, str]:
    """What is put in these places, as far as the row gives it."""
    asked = row.text("input")
    fields = {"input": asked, "question": asked}
    if name in OF_CHOICES:
        options = row.texts("options")
        if len(options) != 4:
            raise row.error(f"{len(options)} options; expected 4")
        return fields | dict(zip(OPTIONS, options, strict=True))
    found = re.search(IN_INPUT[name], asked) if name in IN_INPUT else None
    if found and name == "code_run":
        fields |= {"func_call": found.group(), "func": found.group().partition("(")[0]}
    elif found:
        fields["prefix"] = f"What is {found.group().lower()} in the following list?"
    return fields


def _parts(template: str, name: str, row: Row) -> Parts:
    try:
        return parts_of(template, row.text("context"), **_fields(name, row))
    except KeyError as error:
        raise row.error(
            f"field 'input' gives the template no {{{error.args[0]}}}; expected a text that "
            f"fits {IN_INPUT[name]}"
        ) from None


def _references(name: str, row: Row) -> tuple[str, ...]:
    """The answers of a row, of a choice its text and letter; checked by scoring an empty one."""
    answer = row.field("answer")
    if isinstance(answer, list) and answer and isinstance(answer[0], list):
        answer = answer[0]  # of math_calc
    listed = [str(one) for one in (answer if isinstance(answer, list) else [answer])]
    if answer is None or not any(one.strip() for one in listed):
        raise row.error("field 'answer' holds no text or number; expected a reference")
    if name in OF_CHOICES:
        options = row.texts("options")
        if listed[0] not in options:
            raise row.error("field 'answer' is none of the options")
        listed = [listed[0], "ABCD"[options.index(listed[0]) % 4]]
    try:
        infinitebench.score(name, "", listed)
        _ = [float(one) for one in listed if name.startswith("math")]
    except ValueError as error:
        raise row.error(f"field 'answer': {error}") from None
    return tuple(listed)


def _said(name: str, references: tuple[str, ...]) -> str:
    """The answer that is right by all means."""
    if name == "math_calc":
        return ", ".join(references)
    return f"{references[1]}." if name in OF_CHOICES else references[0]


TASK = InfiniteBench
