"""Gold against predicted sentences: precision, recall and F1, micro-averaged. Pure arithmetic.

An item counts as correct where the same sentence has it in gold and in the prediction:

- span: start and end of an entity.
- entity: span and type.
- relation ("Rel" in the field): label and ordered spans; both spans are predicted as entities, of any type.
- relation_exact ("Rel+"): label, ordered spans, and the types of both.

The items of a sentence are a set: one given twice counts once, and two entities of different type on one span are two
entity items and one span item. Direction counts for every relation label, symmetric ones included, as in the paper.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from enpar.sentence import Entity, Sentence

# An item begins with its label (empty for a span), so that items are counted by type without further ado.
Item = tuple[Any, ...]


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
    _check_aligned(gold, predicted)
    return {name: _total(_count(gold, predicted, items).values()) for name, items in _ITEMS.items()}


def by_type(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> dict[str, dict[str, Score]]:
    """`entity` for each entity type and `relation_exact` for each relation type, of gold or prediction, sorted.

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    _check_aligned(gold, predicted)
    return {
        name: {label: _total([counts]) for label, counts in sorted(_count(gold, predicted, _ITEMS[name]).items())}
        for name in ("entity", "relation_exact")
    }


def entity_items(sentence: Sentence) -> set[Item]:
    """(type, start, end) of each entity."""
    return {(e.type, e.start, e.end) for e in sentence.entities}


def relation_items(sentence: Sentence) -> set[Item]:
    """(label, head, tail) of each relation, its arguments as Entities: what `relation_exact` compares."""
    return {(r.type, sentence.entities[r.head], sentence.entities[r.tail]) for r in sentence.relations}


def _span_items(sentence: Sentence) -> set[Item]:
    return {("", e.start, e.end) for e in sentence.entities}


def _relation_spans(sentence: Sentence) -> set[Item]:
    return {(label, _span(head), _span(tail)) for label, head, tail in relation_items(sentence)}


def _span(entity: Entity) -> tuple[int, int]:
    return entity.start, entity.end


_ITEMS: dict[str, Callable[[Sentence], set[Item]]] = {
    "span": _span_items,
    "entity": entity_items,
    "relation": _relation_spans,
    "relation_exact": relation_items,
}


def _count(
    gold: Sequence[Sentence], predicted: Sequence[Sentence], items: Callable[[Sentence], set[Item]]
) -> dict[str, Counter[str]]:
    """For each label, how many items are `gold`, `predicted` and `correct`."""
    counts: dict[str, Counter[str]] = {}
    for true, guess in zip(gold, predicted, strict=True):
        wanted, found = items(true), items(guess)
        for name, some in (("gold", wanted), ("predicted", found), ("correct", wanted & found)):
            for item in some:
                counts.setdefault(item[0], Counter())[name] += 1
    return counts


def _total(counts: Iterable[Counter[str]]) -> Score:
    total: Counter[str] = Counter()
    for some in counts:
        total += some
    gold, predicted, correct = total["gold"], total["predicted"], total["correct"]
    return {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, gold),
        "f1": _ratio(2 * correct, gold + predicted),
        "gold": gold,
        "predicted": predicted,
        "correct": correct,
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _check_aligned(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold sentences, but {len(predicted)} predicted ones")
    for i, (true, guess) in enumerate(zip(gold, predicted, strict=True)):
        if true.tokens != guess.tokens:
            raise ValueError(f"sentence {i}: the tokens of gold and prediction differ")
