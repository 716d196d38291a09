"""Facts about people and things, far apart in real text; the question needs one or two of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Document, Output, Sample, Score, Task, TaskError, Tokenizer
from tasks.draws import Draws
from tasks.haystack import Haystack, following, hide
from tasks.spec import integer

__all__ = ["TASK", "Facts"]

HEAD = "Some sentences about people are mixed into this text. The last move of each counts."
MOVE, TAKE = " {person} went to the {place}.", " {person} picked up the {thing}."
WHERE = "\n\nBy the sentences about people, where is {what} now? Answer: in the"
PEOPLE = ("Amira", "Boris", "Chloe", "Dario", "Edith", "Farid")
PLACES = ("attic", "bakery", "cellar", "garden", "harbour", "kitchen", "library", "stable")
THINGS = ("lantern", "map", "violin")
FACTS, MOST, SPARE = 6, 30, 4
DEPTHS = 1001


@dataclass(frozen=True)
class Facts(Task):
    """Whether the answer names the right place and no other.

    People go to places, `facts` times; the one who is asked for goes twice or more, and the last
    move counts. With hops=2 that person picks a thing up on the way, and the thing is asked for.
    The sentences stand in their order at random depths of the data's text, from its beginning on.

    Source: Kuratov et al. 2024 (BABILong), https://arxiv.org/abs/2406.10149, tasks qa1 and qa2,
    after Weston et al. 2015 (bAbI), https://arxiv.org/abs/1502.05698.

    Differs: own people, places and wording; no examples; the data's text instead of PG19; nothing
    is put down again.
    """

    name: ClassVar[str] = "facts"
    reads: ClassVar[str] = "haystack"
    hops: int | None = integer("facts that the answer needs, 1 or 2", "1")
    facts: int | None = integer("moves in the text", str(FACTS))

    def __post_init__(self) -> None:
        """Refuse other numbers of hops, and stories too short or too long."""
        if (self.hops or 1) > 2:
            raise TaskError(f"facts(hops={self.hops}): expected 1 or 2")
        if not 2 <= (self.facts or FACTS) <= MOST:
            raise TaskError(f"facts(facts={self.facts}): expected 2 to {MOST}")

    def samples(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        context_length: int,
        trained_length: int,
        seed: int,
    ) -> list[Sample]:
        """Return one sample a document; the haystack is its text."""
        haystack = Haystack(documents[0].text, tokenizer)
        samples = []
        for index, document in enumerate(documents):
            draws = Draws(seed, self.name, self.hops or 1, self.facts or FACTS, index)
            story, asked, answer = self._story(draws)
            depths = sorted(draws.pick(range(DEPTHS), len(story)))
            needles = [
                (depth / (DEPTHS - 1), following(tokenizer, line))
                for depth, line in zip(depths, story, strict=True)
            ]
            new = max(len(following(tokenizer, f" {place}.")) for place in PLACES) + SPARE
            prompt = hide(
                tokenizer,
                HEAD,
                haystack.read(0.0),
                needles,
                WHERE.format(what=asked),
                (context_length, new),
            )
            samples.append(
                Sample(
                    id=document.id,
                    document=document.id,
                    prompt=prompt,
                    max_new_tokens=new,
                    until=(),
                    reference=answer,
                )
            )
        return samples

    def _story(self, draws: Draws) -> tuple[list[str], str, str]:
        """The sentences in order, who or what is asked for, and the place."""
        people = draws.pick(PEOPLE, len(PEOPLE))
        count = self.facts or FACTS
        movers = [people[0]] * 2 + [people[draws.below(len(people))] for _ in range(count - 2)]
        movers = draws.pick(movers, count)
        places = list(_places(draws, movers))
        lines = [
            MOVE.format(person=person, place=place)
            for person, place in zip(movers, places, strict=True)
        ]
        own = [step for step, person in enumerate(movers) if person == people[0]]
        answer = places[own[-1]]
        if self.hops != 2:
            return lines, people[0], answer
        thing = THINGS[draws.below(len(THINGS))]
        before = own[draws.below(len(own))]  # taken before one of the moves, carried from then on
        lines.insert(before, TAKE.format(person=people[0], thing=thing))
        return lines, f"the {thing}", answer

    def score(self, sample: Sample, output: Output) -> list[Score]:
        """Return (1 if the answer names the place and no other, 1)."""
        said = output.text.lower()
        named = [place for place in PLACES if place in said]
        return [Score("exact_match", (float(named == [sample.reference]), 1.0))]


def _places(draws: Draws, movers: Sequence[str]) -> Iterator[str]:
    """A place for each move, never the one where the person is."""
    now: dict[str, str] = {}
    for person in movers:
        others = [place for place in PLACES if place != now.get(person)]
        now[person] = others[draws.below(len(others))]
        yield now[person]


TASK = Facts
