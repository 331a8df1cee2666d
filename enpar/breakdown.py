"""Where relations are found and where they are not: the paper's Figures 7 to 9, as counts and F1."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from enpar.scores import Item, Score, entity_items, grouped, relation_items, score_of
from enpar.sentence import Entity, Sentence


class Figure(NamedTuple):
    """A number that a relation is grouped by, and the groups.

    Attributes:
        title: what the number is.
        number: the number, from the gold sentence and the relation (an item of `relation_exact`).
        edges: the last number of each group but the last, which is open.
        first: the smallest number there can be.
    """

    title: str
    number: Callable[[Sentence, Item], int]
    edges: tuple[int, ...]
    first: int = 0

    @property
    def groups(self) -> list[str]:
        """Names of the groups, such as 0, 1-2 and 3+."""
        starts = [self.first, *(edge + 1 for edge in self.edges)]
        closed = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, self.edges, strict=False)]
        return [*closed, f"{starts[-1]}+"]


def distance(relation: Item) -> int:
    """Tokens between the two entities of a relation; 0 where they touch or overlap."""
    head: Entity = relation[1]
    tail: Entity = relation[2]
    return max(0, tail.start - head.end, head.start - tail.end)


FIGURES = {
    "distance": Figure("Tokens between the two entities", lambda _, item: distance(item), (0, 2, 5, 10, 20)),
    "relations": Figure("Relations in the sentence", lambda gold, _: len(relation_items(gold)), (0, 1, 2, 3, 5)),
    "entities": Figure("Entities in the sentence", lambda gold, _: len(entity_items(gold)), (1, 2, 3, 5, 8)),
    "length": Figure("Tokens in the sentence", lambda gold, _: len(gold.tokens), (10, 20, 30, 40, 50), 1),
}
"""The paper's Figures 7(a), 7(b), 8 and 9; relations and entities of a sentence are gold's, by which it may have 0."""


def breakdowns(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> dict[str, dict[str, Score]]:
    """`relation_exact` for every group of each of `FIGURES`; the counts of a figure's groups sum to the score's.

    The groups are the same for every corpus, so that reports can be compared; one without relations is all 0.

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    return {name: _breakdown(gold, predicted, figure) for name, figure in FIGURES.items()}


def _breakdown(gold: Sequence[Sentence], predicted: Sequence[Sentence], figure: Figure) -> dict[str, Score]:
    def group(sentence: Sentence, item: Item) -> int:
        return bisect_left(figure.edges, figure.number(sentence, item))

    found = grouped(gold, predicted, "relation_exact", group)
    return {name: found.get(i, score_of(0, 0, 0)) for i, name in enumerate(figure.groups)}
