"""Gold against predicted sentences: precision, recall and F1, micro-averaged. Pure arithmetic.

An item counts as correct where the same sentence has it in gold and in the prediction:

- span: start and end of an entity.
- entity: span and type.
- relation ("Rel" in the field): label and ordered spans; both spans are predicted as entities, of any type.
- relation_exact ("Rel+"): label, ordered spans, and the types of both.

The items of a sentence are a set: one given twice counts once, and two entities of different type on one span are two
entity items and one span item. Direction counts for every relation label, symmetric ones included, as in the paper;
`symmetric.normalise` both sides first where it should not.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from enpar.sentence import Entity, Sentence

# An item begins with its label (empty for a span), so that items are counted by type without further ado.
Item = tuple[Any, ...]
Group = TypeVar("Group", bound=Hashable)


class Score(TypedDict):
    """Fractions from 0 to 1 (0/0 is 0), and the counts that they come from."""

    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int
    correct: int


def score(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> dict[str, Score]:
    """Compute the four scores: span, entity, relation and relation_exact.

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    return {name: grouped(gold, predicted, name, lambda *_: "").get("", score_of(0, 0, 0)) for name in ITEMS}


def by_type(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> dict[str, dict[str, Score]]:
    """`entity` for each entity type and `relation_exact` for each relation type, of gold or prediction, sorted.

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    return {
        name: dict(sorted(grouped(gold, predicted, name, lambda _, item: str(item[0])).items()))
        for name in ("entity", "relation_exact")
    }


def grouped(
    gold: Sequence[Sentence],
    predicted: Sequence[Sentence],
    name: str,
    group: Callable[[Sentence, Item], Group],
) -> dict[Group, Score]:
    """One of the four scores for each group of items; every item, gold or predicted, is in one of them.

    Args:
        gold: the labelled sentences.
        predicted: the predictions, aligned with `gold`.
        name: of the score.
        group: the group of an item, from the gold sentence it belongs to and the item itself.

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    check_aligned(gold, predicted)
    counts: dict[Group, Counter[str]] = {}
    for true, guess in zip(gold, predicted, strict=True):
        wanted, found = ITEMS[name](true), ITEMS[name](guess)
        for count, some in (("gold", wanted), ("predicted", found), ("correct", wanted & found)):
            for item in some:
                counts.setdefault(group(true, item), Counter())[count] += 1
    return {key: score_of(some["gold"], some["predicted"], some["correct"]) for key, some in counts.items()}


def score_of(gold: int, predicted: int, correct: int) -> Score:
    """The score that these counts come to."""
    return {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, gold),
        "f1": _ratio(2 * correct, gold + predicted),
        "gold": gold,
        "predicted": predicted,
        "correct": correct,
    }


def entity_items(sentence: Sentence) -> set[Item]:
    """(type, start, end) of each entity."""
    return {(e.type, e.start, e.end) for e in sentence.entities}


def relation_items(sentence: Sentence) -> set[Item]:
    """(label, head, tail) of each relation, its arguments as Entities: what `relation_exact` compares."""
    return {(r.type, sentence.entities[r.head], sentence.entities[r.tail]) for r in sentence.relations}


def span_of(entity: Entity) -> tuple[int, int]:
    """(start, end)."""
    return entity.start, entity.end


def relation_spans(sentence: Sentence) -> set[Item]:
    """(label, head, tail) of each relation, its arguments as spans: what `relation` compares."""
    return {(label, span_of(head), span_of(tail)) for label, head, tail in relation_items(sentence)}


def _span_items(sentence: Sentence) -> set[Item]:
    return {("", e.start, e.end) for e in sentence.entities}


ITEMS: Mapping[str, Callable[[Sentence], set[Item]]] = {
    "span": _span_items,
    "entity": entity_items,
    "relation": relation_spans,
    "relation_exact": relation_items,
}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def check_aligned(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> None:
    """See that both have the same sentences in the same order.

    Raises:
        ValueError: they have not.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sentences, but {len(predicted)} predicted ones")
    for i, (true, guess) in enumerate(zip(gold, predicted, strict=True)):
        if true.tokens != guess.tokens:
            raise ValueError(f"sentence {i}: the tokens of gold and prediction differ")
