"""RULER: thirteen tasks of retrieval, tracing, counting and questions at any length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Source, Task, TaskError, Tokenizer
from tasks.draws import Draws
from tasks.official.ruler import postprocess, string_match_all, string_match_part
from tasks.ruler.counting import CommonWords, FrequentWords
from tasks.ruler.niah import Niah
from tasks.ruler.qa import Qa, hotpotqa, squad
from tasks.ruler.setting import Part, Setting
from tasks.ruler.vt import VariableTracking
from tasks.spec import choice, choices

__all__ = ["PARTS", "TASK", "Ruler"]

PARTS: dict[str, Part] = {
    "niah_single_1": Niah(haystack="noise"),
    "niah_single_2": Niah(),
    "niah_single_3": Niah(value_kind="uuids"),
    "niah_multikey_1": Niah(keys=4),
    "niah_multikey_2": Niah(haystack="needle"),
    "niah_multikey_3": Niah(haystack="needle", key_kind="uuids", value_kind="uuids"),
    "niah_multivalue": Niah(values=4),
    "niah_multiquery": Niah(keys=4, queries=4),
    "vt": VariableTracking(),
    "cwe": CommonWords(),
    "fwe": FrequentWords(),
    "qa_1": Qa(source="squad", read=squad),
    "qa_2": Qa(source="hotpotqa", read=hotpotqa),
}
NIAH = tuple(name for name, part in PARTS.items() if isinstance(part, Niah))
GROUPS = {
    "all": tuple(PARTS),
    "niah": NIAH,
    "synthetic": tuple(name for name, part in PARTS.items() if not isinstance(part, Qa)),
}


@dataclass(frozen=True)
class Ruler(Task):
    """Mean over the tasks of RULER's score, 0 to 100, and the score of each task.

    niah_single_1 to 3: one needle in noise, in essays, and a UUID in essays. niah_multikey_1 to 3:
    four needles in essays, one of them asked for; a haystack of needles; of needles with UUIDs.
    niah_multivalue and niah_multiquery: four values of a key, four keys. vt: the five variables
    that one value is handed on to. cwe: the ten most common words of a list. fwe: the three most
    frequent coded words. qa_1 and qa_2: questions of SQuAD and HotpotQA among other documents.
    tasks=synthetic leaves the questions out, which need the data's squad.json and hotpotqa.json.

    Prompt and answer fill the length to the token. Sample i of each task is the same for every n;
    its answer does not depend on the length. A needle stands at one of 40 depths, behind the
    sentence nearest to it. The score is the share of references in the answer, for qa whether any
    is. The effective length of the report is the longest whose score reaches 85.6, what the paper
    has for Llama-2-7B at 4k.

    From --data are taken, by name, PaulGrahamEssays.json as haystack (otherwise the text of the
    data), squad*.json, hotpotqa*.json, and ruler/templates.json with the official wording and
    limits (otherwise own wording), which `fetch ruler DIR` brings; the column `data` says which.

    Source: Hsieh et al. 2024, https://arxiv.org/abs/2404.06654; github.com/NVIDIA/RULER.

    Differs: units that do not fit are cut, or the rest is filled by noise in front, where the
    benchmark stays up to a half below the length, and loops for ever where the least does not
    fit; BOS counts in the length; depths are shares of the tokens, and the same 40 in noise and
    among needles, where the benchmark draws any line; no two needles share a key; vt's example has
    ten lines of noise, the benchmark's as many as 500 tokens hold; cwe draws from wonderwords
    alone, which ends between 128k and 256k; sentences end at their punctuation, not where nltk
    says; no chat template unless chat=on, as which the answer's beginning is the model's and the
    rest the user's, and the singular of one needle leaves the words of the chat template alone.
    """

    name: ClassVar[str] = "ruler"
    reads: ClassVar[str] = "haystack"
    sources: ClassVar[Mapping[str, Source]] = {
        "haystack": Source("PaulGrahamEssays.json", "of the data"),
        "prompts": Source("ruler/templates.json", "own"),
        "squad": Source("squad*.json"),
        "hotpotqa": Source("hotpotqa*.json"),
    }
    tasks: tuple[str, ...] = choices(GROUPS, what="names joined by +")
    chat: str = choice("off", "on", what="whether the model's chat template is used")

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document and task; the documents share text and sources."""
        first = documents[0]
        if self.chat == "on" and tokenizer.chat is None:
            raise TaskError("ruler(chat=on): this model has no chat template; leave chat=on out")
        chat = tokenizer.chat if self.chat == "on" else None
        setting = Setting(tokenizer, context_length, first.text, first.sources, chat)
        samples = []
        for name in self.tasks:
            part = PARTS[name]
            for index, document in enumerate(documents):
                draws = Draws(seed, self.name, name, index)
                try:
                    asked = part.sample(setting, draws, index)
                except TaskError as error:
                    raise TaskError(f"{name}: {error}, or leave it out with tasks=") from None
                samples.append(
                    Sample(
                        id=f"{document.id}, {name}",
                        document=document.id,
                        prompt=asked.prompt,
                        max_new_tokens=setting.prompts[part.family].new,
                        until=(),
                        reference="\n".join(asked.references),
                        references=tuple(asked.references),
                        position=name,
                        borders=asked.borders,
                        chat=chat is not None,
                    )
                )
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (100 times the share, 1), of all tasks and of the one."""
        match = string_match_part if PARTS[sample.position].any_of else string_match_all
        share = match(postprocess(output.text), sample.references)
        return [Score("ruler", (100 * share, 1.0), place) for place in ("", sample.position)]


TASK = Ruler
