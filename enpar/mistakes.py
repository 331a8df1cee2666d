"""What kind of mistake each wrong item is, and which relation is taken for which.

A wrong prediction and the gold item that it stands for are one mistake: every gold item that was not found and every
predicted item that is not in gold belong to exactly one.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypedDict

from enpar.scores import Item, check_aligned, entity_items, relation_items, relation_spans, span_of
from enpar.sentence import Entity, Sentence

KINDS: Mapping[str, str] = {
    "boundary": "An entity that overlaps a gold one, but begins or ends elsewhere; a relation with the right label "
    "between such entities.",
    "entity type": "An entity with the right boundaries and another type; a relation that is right but for the types "
    "of its entities.",
    "relation type": "A relation between the right two entities, with another label.",
    "direction": "A relation with the right label between the right two entities, but from tail to head.",
    "missed": "A gold entity or relation that nothing predicted stands for.",
    "spurious": "A predicted entity or relation that stands for nothing in gold.",
}
"""The kinds of mistakes; where several fit, entity type goes before direction, relation type and boundary."""

# How well a predicted item stands for a gold one: 0 not at all.
Likeness = Callable[[Item, Item], int]


class Mistake(NamedTuple):
    """A kind, the gold item that was not found, and the wrong prediction; one of the two may be missing."""

    kind: str
    gold: Item | None
    predicted: Item | None


class Confusion(TypedDict):
    """Labels of relations, gold by predicted.

    Attributes:
        labels: of the rows and columns, which have one more at the end: no relation.
        counts: rows are gold, columns predicted. Shape: (labels + 1, labels + 1)
        gold_elsewhere: gold relations with an argument that was not predicted; in none of the rows.
        predicted_elsewhere: predicted relations with an argument that is not in gold; in none of the columns.
    """

    labels: list[str]
    counts: list[list[int]]
    gold_elsewhere: int
    predicted_elsewhere: int


def entity_mistakes(gold: Sentence, predicted: Sentence) -> list[Mistake]:
    """The mistakes among the items of `entity` (type, start, end) of one sentence."""
    rules = [("entity type", _same_span), ("boundary", _entity_overlap)]
    return _mistakes(entity_items(gold), entity_items(predicted), rules)


def relation_mistakes(gold: Sentence, predicted: Sentence) -> list[Mistake]:
    """The mistakes among the items of `relation_exact` (label, head, tail) of one sentence."""
    rules = [
        ("entity type", _same_but_types),
        ("direction", _reversed),
        ("relation type", _same_pair),
        ("boundary", _relation_overlap),
    ]
    return _mistakes(relation_items(gold), relation_items(predicted), rules)


def count_mistakes(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> dict[str, dict[str, int]]:
    """How many mistakes of each kind there are, of `entity` and of `relation_exact`.

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    check_aligned(gold, predicted)
    pairs = list(zip(gold, predicted, strict=True))
    counts = {
        name: Counter(mistake.kind for pair in pairs for mistake in find(*pair))
        for name, find in (("entity", entity_mistakes), ("relation_exact", relation_mistakes))
    }
    return {name: {kind: some[kind] for kind in KINDS} for name, some in counts.items()}


def confusion(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> Confusion:
    """Count which label each pair of entities has in gold and which in the prediction.

    A pair counts if both of its spans are entities (of any type) in gold and in the prediction alike; what is wrong
    elsewhere is no confusion of labels. The pair is ordered: one relation reversed is one missed and one spurious.

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    check_aligned(gold, predicted)
    cells: Counter[tuple[str | None, str | None]] = Counter()
    elsewhere = [0, 0]
    for true, guess in zip(gold, predicted, strict=True):
        spans = set(map(span_of, true.entities)) & set(map(span_of, guess.entities))
        labels: dict[tuple[Item, Item], tuple[set[str], set[str]]] = {}
        for side, sentence in enumerate((true, guess)):
            for label, head, tail in relation_spans(sentence):
                if head in spans and tail in spans:
                    labels.setdefault((head, tail), (set(), set()))[side].add(label)
                else:
                    elsewhere[side] += 1
        for wanted, found in labels.values():
            cells.update(_aligned(wanted, found))
    names = sorted({label for sentence in (*gold, *predicted) for label, *_ in relation_items(sentence)})
    counts = [[cells[row, column] for column in (*names, None)] for row in (*names, None)]
    return {
        "labels": names,
        "counts": counts,
        "gold_elsewhere": elsewhere[0],
        "predicted_elsewhere": elsewhere[1],
    }


def _aligned(wanted: set[str], found: set[str]) -> list[tuple[str | None, str | None]]:
    """The labels of one pair side by side: equal ones first, then the others in order, what is left with None."""
    missed, spurious = sorted(wanted - found), sorted(found - wanted)
    longer = max(len(missed), len(spurious))
    padded = [[*some, *[None] * (longer - len(some))] for some in (missed, spurious)]
    return [*((label, label) for label in wanted & found), *zip(*padded, strict=True)]


def _mistakes(wanted: set[Item], found: set[Item], rules: Sequence[tuple[str, Likeness]]) -> list[Mistake]:
    """Pair missed with spurious items, rule by rule, the closest first; what is left is missed or spurious."""
    missed, spurious = wanted - found, found - wanted
    mistakes = []
    for kind, likeness in rules:
        pairs = ((likeness(gold, guess), gold, guess) for gold in missed for guess in spurious)
        for _, gold, guess in sorted((-alike, gold, guess) for alike, gold, guess in pairs if alike):
            if gold in missed and guess in spurious:
                missed.remove(gold)
                spurious.remove(guess)
                mistakes.append(Mistake(kind, gold, guess))
    mistakes += [Mistake("missed", gold, None) for gold in sorted(missed)]
    mistakes += [Mistake("spurious", None, guess) for guess in sorted(spurious)]
    return mistakes


# ---- likeness of two entities (type, start, end), and of two relations (label, head, tail) ------------------------


def _same_span(gold: Item, guess: Item) -> int:
    return int(gold[1:] == guess[1:])


def _entity_overlap(gold: Item, guess: Item) -> int:
    """Shared tokens; of two with as many, the one with gold's type is closer."""
    shared = _shared(gold[1:], guess[1:])
    return 2 * shared + int(gold[0] == guess[0]) if shared else 0


def _same_but_types(gold: Item, guess: Item) -> int:
    return int(gold[0] == guess[0] and _spans(gold) == _spans(guess))


def _reversed(gold: Item, guess: Item) -> int:
    return int(gold[0] == guess[0] and _spans(gold) == _spans(guess)[::-1])


def _same_pair(gold: Item, guess: Item) -> int:
    """The pair in gold's order is closer than reversed."""
    if gold[0] == guess[0]:
        return 0
    return 2 * int(_spans(gold) == _spans(guess)) or int(_spans(gold) == _spans(guess)[::-1])


def _relation_overlap(gold: Item, guess: Item) -> int:
    heads, tails = (_shared(a, b) for a, b in zip(_spans(gold), _spans(guess), strict=True))
    return heads + tails if gold[0] == guess[0] and heads and tails else 0


def _spans(relation: Item) -> tuple[tuple[int, int], tuple[int, int]]:
    head: Entity = relation[1]
    tail: Entity = relation[2]
    return span_of(head), span_of(tail)


def _shared(one: Item, other: Item) -> int:
    """Tokens that two spans share."""
    shared: int = min(one[1], other[1]) - max(one[0], other[0])
    return max(0, shared)
