"""Continue a document and compare with what really follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Pass, Sample, Score, Task, TaskError, Tokenizer
from tasks.fit import default_of, encode, prefix
from tasks.metrics import accuracy_stats, bleu_stats, rouge_stats
from tasks.spec import choice, integer

__all__ = ["TASK", "Continuation"]

MAX_NEW = 100
FOREIGN_SHARE = 0.1


@dataclass(frozen=True)
class Continuation(Task):
    """BLEU, ROUGE-1/2/L and token accuracy of the tokens that follow a prompt.

    The prompt is the document's first `context_length - new` tokens, BOS included; `new` tokens
    are generated greedily and compared with the text of the true next `new` tokens. Token accuracy
    is by teacher forcing on the same tokens: the true ones are given, each argmax is compared.

    BLEU is corpus BLEU over all documents (sacrebleu's defaults); ROUGE is the mean of the
    documents' F (rouge-score, no stemmer). With lang=zh BLEU takes the tokenizer `zh` and ROUGE
    counts characters; the metrics are then named bleu-zh, rouge1-zh, …

    Source: Han et al. 2023 (LM-Infinite), https://arxiv.org/abs/2308.16137, the table of
    generation quality: 100 tokens generated, BLEU and ROUGE.

    Differs: the source gives ROUGE-Lsum, this is ROUGE-L. `new` is below 100 where the trained
    length is below 400. A text with many letters other than a-z is refused with lang=en, because
    rouge-score drops those letters.
    """

    name: ClassVar[str] = "continuation"
    new: int | None = integer("tokens generated", "min(100, trained length / 4)")
    lang: str = choice("en", "zh", what="units compared: words, or Chinese characters")

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document."""
        new = default_of("new", self.new, min(MAX_NEW, trained_length // 4))
        bos = prefix(tokenizer)
        given = context_length - len(bos) - new
        if given < 1:
            raise TaskError(
                f"--len {context_length}: no room for a prompt before {new} new tokens; raise "
                "--len or give a smaller continuation(new=…)"
            )
        samples = []
        for document in documents:
            if self.lang == "en":
                _check_letters(document)
            text = encode(document, tokenizer, given + new, f"a length of {context_length}")
            prompt, following = (*bos, *text[:given]), tuple(text[given : given + new])
            samples.append(
                Sample(
                    id=f"{document.id}[{given}:{given + new}]",
                    document=document.id,
                    passes=(Pass((*prompt, *following), len(prompt)),),
                    prompt=prompt,
                    max_new_tokens=new,
                    reference=tokenizer.decode(following),
                    reference_tokens=following,
                )
            )
        return samples

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return n-gram counts for BLEU, (F, 1) for each ROUGE, (right, scored) for accuracy."""
        suffix = "-zh" if self.lang == "zh" else ""
        rouge = rouge_stats(output.text, sample.reference, self.lang)
        return [
            Score(f"bleu{suffix}", bleu_stats(output.text, sample.reference, self.lang)),
            *(Score(f"{name}{suffix}", stats) for name, stats in rouge.items()),
            Score("accuracy", accuracy_stats(output)),
        ]


def _check_letters(document: Document) -> None:
    """Refuse a document whose letters the English tokenizers drop."""
    letters = [character for character in document.text if character.isalpha()]
    foreign = [character for character in letters if not character.isascii()]
    if len(foreign) > FOREIGN_SHARE * len(letters):
        raise TaskError(
            f"document '{document.id}': {len(foreign) / len(letters):.0%} of the letters are none "
            f"of a-z, such as '{foreign[0]}', and lang=en would not count them; use "
            "continuation(lang=zh), which compares characters"
        )


TASK = Continuation
