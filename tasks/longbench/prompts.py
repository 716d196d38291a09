"""What LongBench asks: the official prompts and limits where the data has them, otherwise ours."""

from collections.abc import Mapping, Sequence

from tasks.base import TaskError
from tasks.longbench.datasets import DATASETS
from tasks.templates import table_of, templates

__all__ = ["OWN", "limits", "prompts"]

QA = (
    "Below is a text, and then a question about it.\n\n{context}\n\nReply with the answer alone, "
    "in as few words as you can.\n\nQuestion: {input}\nAnswer:"
)
PASSAGES = (
    "Below are passages, and then a question that they answer together.\n\n{context}\n\nReply with "
    "the answer alone, in as few words as you can.\n\nQuestion: {input}\nAnswer:"
)
SHOTS = "Some worked examples come first; do the last one in the same way.\n\n{context}\n\n{input}"
CODE = "Go on with this code by one line.\n{context}{input}"
OWN = {
    "narrativeqa": QA,
    "qasper": QA.replace(
        "\n\nQuestion", ' Where the text does not say: "unanswerable".\n\nQuestion'
    ),
    "multifieldqa_en": QA,
    "multifieldqa_zh": (
        "下面是一篇文章。\n\n{context}\n\n根据文章回答, 只写答案。\n\n问题: {input}\n答案:"
    ),
    "hotpotqa": PASSAGES,
    "2wikimqa": PASSAGES,
    "musique": PASSAGES,
    "dureader": "下面是几篇文章。\n\n{context}\n\n根据这些文章回答问题。\n\n问题: {input}\n答案:",
    "gov_report": "Report:\n{context}\n\nSum the report up on one page.\n\nSummary:",
    "qmsum": "Minutes:\n{context}\n\nReply from the minutes in a few sentences.\n\n{input}\nReply:",
    "multi_news": "Articles:\n{context}\n\nSum all articles up on one page.\n\nSummary:",
    "vcsum": "会议内容:\n{context}\n\n请概括这次会议。\n\n概括:",
    "trec": SHOTS,
    "triviaqa": SHOTS,
    "samsum": SHOTS,
    "lsht": "先看例子, 再用同样的方法给最后一条新闻分类。\n\n{context}\n\n{input}",
    "passage_count": (
        "Below are paragraphs; some occur more than once.\n\n{context}\n\nHow many different "
        "paragraphs are there? Reply with the number alone.\n\nNumber: "
    ),
    "passage_retrieval_en": (
        "Below are numbered paragraphs, and then a summary of one of them.\n\n{context}\n\n"
        "Summary: {input}\n\nWhich paragraph is it of? Reply such as: Paragraph 3\n\nReply: "
    ),
    "passage_retrieval_zh": (
        "下面是带编号的段落, 最后是其中一段的摘要。\n\n{context}\n\n摘要: {input}\n\n"
        "摘要属于哪一段? 回答形式如: 段落3\n\n回答: "
    ),
    "lcc": CODE,
    "repobench-p": CODE,
}


def prompts(official: str | None, names: Sequence[str]) -> Mapping[str, str]:
    """Return the template of each data set: the text of dataset2prompt.json, or own wording.

    Raises:
        TaskError: malformed.
    """
    return templates("dataset2prompt.json", official, OWN, names)


def limits(official: str | None, names: Sequence[str]) -> Mapping[str, int]:
    """Return how many tokens each data set may answer in: dataset2maxlen.json, or the same numbers.

    Raises:
        TaskError: malformed.
    """
    if official is None:
        return {name: DATASETS[name].new for name in names}
    table = table_of("dataset2maxlen.json", official, names)
    for name in names:
        if type(table[name]) is not int or table[name] < 1:
            raise TaskError(
                f"dataset2maxlen.json: {name}: {table[name]!r}; expected an integer of at least 1"
            )
    return table
