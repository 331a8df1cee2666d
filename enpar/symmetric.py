"""Symmetric relations, such as "A is compared with B": whether it matters which argument is the head.

To the paper it does: a reversed prediction is wrong. SpERT puts the arguments of these relations in order first, so
that either direction is right. Published scores differ by it, so every report says which way it used.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from enpar.config import Way
from enpar.sentence import Relation, Sentence

# SciERC's two (written in capitals or not, by release) and ACE05's one.
KNOWN = frozenset({"compare", "conjunction", "per-soc"})


def symmetric_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Those of the labels that are known to be symmetric, sorted."""
    return tuple(sorted(label for label in set(labels) if label.casefold() in KNOWN))


def normalise(sentences: Iterable[Sentence], labels: Collection[str]) -> list[Sentence]:
    """Make the argument that comes first in the text the head of each relation with one of these labels."""
    return [_normalise(sentence, labels) for sentence in sentences]


def explain(way: Way, labels: Sequence[str]) -> str:
    """How relations were scored, in a sentence."""
    names = ", ".join(labels)
    if way == "directed":
        return f"The direction of every relation counts, symmetric ones included{f' ({names})' if names else ''}."
    if not names:
        return "No relation is known to be symmetric, so the direction of all counts; symmetric_relations names others."
    return f"Symmetric relations ({names}) are right in either direction; the direction of others counts."


def _normalise(sentence: Sentence, labels: Collection[str]) -> Sentence:
    def ordered(relation: Relation) -> Relation:
        head, tail = sentence.entities[relation.head], sentence.entities[relation.tail]
        swap = relation.type in labels and tail < head
        return Relation(relation.type, relation.tail, relation.head) if swap else relation

    return replace(sentence, relations=tuple(ordered(relation) for relation in sentence.relations))
