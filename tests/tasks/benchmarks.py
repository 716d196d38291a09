"""Rows in the layouts of the benchmarks, made here: three of each data set, texts of 1600 words."""

from collections.abc import Mapping
from typing import Any

from tasks.base import Document, Task
from tasks.infinitebench import OF_CHOICES
from tasks.leval import KINDS
from tasks.longbench.datasets import DATASETS
from tasks.rows import Row
from tests.tasks.toy import story

TEXTS = [story(name, 1600).text for name in ("first", "second", "third")]
SAID = "the quick answer is in part {index} of the long text"
SAID_ZH = "答案在第{index}部分的长文章里面"
CLASSES = ("农业", "军事", "体育")
ANSWERS = {
    "trec": "Kind {index}",
    "lsht": "KIND",
    "passage_count": "{index}",
    "passage_retrieval_en": "Paragraph {index}",
    "passage_retrieval_zh": "段落{index}",
    "lcc": "    return value_{index} + other",
    "repobench-p": "    call(value_{index})",
}


def longbench(name: str, index: int) -> dict[str, Any]:
    said = ANSWERS.get(name, SAID_ZH if DATASETS[name].lang == "zh" else SAID)
    answer = said.format(index=index + 3).replace("KIND", CLASSES[index])
    classes = {"trec": [f"Kind {one}" for one in range(3, 6)], "lsht": list(CLASSES)}
    return {
        "input": f"Which part is part {index}?",
        "context": TEXTS[index],
        "answers": [answer, answer[:-1] + "7"] if name == "qasper" else [answer],
        "length": (100, 5000, 9000)[index],
        "dataset": name,
        "language": DATASETS[name].lang,
        "all_classes": classes.get(name),
        "_id": f"{name}-{index}",
    }


def longbench_v2(name: str, index: int) -> dict[str, Any]:
    return {
        "_id": f"v2-{index}",
        "difficulty": ("easy", "hard", "easy")[index],
        "length": ("short", "medium", "long")[index],
        "question": f" Which part is part {index}?\n",
        **{f"choice_{letter}": f"it is part {letter}" for letter in "ABCD"},
        "answer": "ABC"[index],
        "context": f"\n{TEXTS[index]} ",
    }


OUTPUTS = {
    "coursera": "BD",
    "quality": "(C) it is part {index}",
    "tpo": "A",
    "gsm100": "{index}2",
    "codeU": "[1, {index}]",
    "sci_fi": "True [fact: False]",
}


def leval(name: str, index: int) -> dict[str, Any]:
    said = OUTPUTS.get(name, "the quick answer is in part {index} of the long text")
    return {
        "input": TEXTS[index],
        "instructions": [f"Which part is part {place} of it?" for place in range(3)],
        "outputs": [said.format(index=index + place) for place in range(3)],
        "source": name,
        "evaluation": KINDS[name],
    }


FOUND = {
    "passkey": ["7{index}"],
    "number_string": ["70{index}"],
    "kv_retrieval": ["ab-{index}"],
    "longbook_qa_chn": ["答案在第{index}部分"],
    "longdialogue_qa_eng": ["JACK{index}"],
    "math_find": ["4{index}"],
    "math_calc": ["1", "2", "{index}"],
    "code_run": ["-{index}3"],
}


def infinitebench(name: str, index: int) -> dict[str, Any]:
    answer = [one.format(index=index) for one in FOUND.get(name, [SAID])]
    options = [f"part_{letter}" for letter in "abcd"]
    return {
        "id": index,
        "context": TEXTS[index],
        "input": "Which part is it?",
        "answer": [options[index]] if name in OF_CHOICES else answer,
        "options": options if name in OF_CHOICES else [],
    }


MAKERS = {
    "infinitebench": infinitebench,
    "leval": leval,
    "longbench": longbench,
    "longbench-e": longbench,
    "longbench-v2": longbench_v2,
}


def document_of(
    table: str, line: int, fields: dict[str, Any], sources: Mapping[str, str] | None = None
) -> Document:
    row = Row(fields, f"{table}.jsonl:{line}")
    return Document(f"{table}:{line}", "", sources=sources or {}, table=table, row=row)


def documents_of(task: Task, sources: Mapping[str, str] | None = None) -> list[Document]:
    """Three rows of each table of a task."""
    return [
        document_of(table, index + 1, MAKERS[task.name](table, index), sources)
        for table in task.tables
        for index in range(3)
    ]
