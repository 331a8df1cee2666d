from dataclasses import replace

import pytest
from hypothesis import given
from sentences import ACME, ADA, BOB, PAIRS, sentence

from enpar.mistakes import KINDS, Mistake, confusion, count_mistakes, entity_mistakes, relation_mistakes
from enpar.scores import entity_items, relation_items, score
from enpar.sentence import Entity, Relation

WORKS = sentence([ADA, ACME, BOB], [Relation("WORKS", 0, 1)])


def kinds(mistakes):
    return [mistake.kind for mistake in mistakes]


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ([ADA], [ADA], []),
        ([ACME], [replace(ACME, type="PER")], ["entity type"]),
        ([ACME], [replace(ACME, end=5)], ["boundary"]),
        ([ACME], [Entity(3, 6, "PER")], ["boundary"]),  # whatever the type
        ([ACME], [Entity(4, 6, "ORG")], ["missed", "spurious"]),  # touching is not overlapping
        ([ACME], [], ["missed"]),
        ([], [ACME], ["spurious"]),
        # One gold entity, two predictions that overlap it: one is its boundary mistake, the other is too many.
        ([Entity(1, 5, "ORG")], [Entity(1, 2, "ORG"), Entity(2, 5, "PER")], ["boundary", "spurious"]),
        # The right span goes before one that overlaps.
        ([ACME], [replace(ACME, end=5), replace(ACME, type="PER")], ["entity type", "spurious"]),
        # What is right is no candidate for another mistake.
        ([ADA, Entity(0, 2, "ORG")], [ADA], ["missed"]),
    ],
)
def test_kinds_of_entities(gold, predicted, expected):
    assert kinds(entity_mistakes(sentence(gold), sentence(predicted))) == expected


def test_the_closest_prediction_stands_for_a_gold_entity():
    gold, near, far = Entity(1, 5, "ORG"), Entity(1, 4, "PER"), Entity(4, 6, "ORG")
    assert entity_mistakes(sentence([gold]), sentence([far, near])) == [
        Mistake("boundary", ("ORG", 1, 5), ("PER", 1, 4)),
        Mistake("spurious", None, ("ORG", 4, 6)),
    ]
    same, other = Entity(1, 4, "ORG"), Entity(2, 5, "PER")  # as many tokens: gold's type decides
    assert entity_mistakes(sentence([gold]), sentence([other, same]))[0].predicted == ("ORG", 1, 4)


@pytest.mark.parametrize(
    ("entities", "relations", "expected"),
    [
        ([ADA, ACME], [("WORKS", 0, 1)], []),
        ([ADA, ACME], [("WORKS", 1, 0)], ["direction"]),
        ([ADA, ACME], [("OWNS", 0, 1)], ["relation type"]),
        ([ADA, ACME], [("OWNS", 1, 0)], ["relation type"]),
        ([ADA, replace(ACME, type="PER")], [("WORKS", 0, 1)], ["entity type"]),
        ([ADA, replace(ACME, end=5)], [("WORKS", 0, 1)], ["boundary"]),
        ([ADA, replace(ACME, end=5)], [("OWNS", 0, 1)], ["missed", "spurious"]),
        ([ADA, BOB], [("WORKS", 0, 1)], ["missed", "spurious"]),
        ([ADA, ACME], [], ["missed"]),
        ([ADA, ACME, BOB], [("WORKS", 0, 1), ("WORKS", 0, 2)], ["spurious"]),
        # Both fit: one relation is one mistake.
        ([ADA, ACME], [("WORKS", 1, 0), ("OWNS", 0, 1)], ["direction", "spurious"]),
    ],
)
def test_kinds_of_relations(entities, relations, expected):
    predicted = sentence(entities, [Relation(*relation) for relation in relations])
    assert kinds(relation_mistakes(WORKS, predicted)) == expected


def test_counts_name_every_kind():
    gold = [WORKS, sentence([ADA])]
    predicted = [sentence([ADA, ACME], [Relation("WORKS", 1, 0)]), sentence([replace(ADA, type="ORG")])]
    none = dict.fromkeys(KINDS, 0)
    assert count_mistakes(gold, predicted) == {
        "entity": none | {"missed": 1, "entity type": 1},
        "relation_exact": none | {"direction": 1},
    }


@given(PAIRS)
def test_every_wrong_item_belongs_to_one_mistake(pairs):
    for gold, predicted in pairs:
        for items, find in ((entity_items, entity_mistakes), (relation_items, relation_mistakes)):
            mistakes = find(gold, predicted)
            missed = [mistake.gold for mistake in mistakes if mistake.gold is not None]
            wrong = [mistake.predicted for mistake in mistakes if mistake.predicted is not None]
            assert len(missed) == len(set(missed)) and set(missed) == items(gold) - items(predicted)
            assert len(wrong) == len(set(wrong)) and set(wrong) == items(predicted) - items(gold)
            assert {mistake.kind for mistake in mistakes} <= KINDS.keys()


@given(PAIRS)
def test_counts_of_kinds_sum_to_the_wrong_items(pairs):
    gold, predicted = zip(*pairs, strict=True)
    scores = score(gold, predicted)
    for name, counts in count_mistakes(gold, predicted).items():
        pairs_of_items = sum(counts.values()) - counts["missed"] - counts["spurious"]
        assert pairs_of_items + counts["missed"] == scores[name]["gold"] - scores[name]["correct"]
        assert pairs_of_items + counts["spurious"] == scores[name]["predicted"] - scores[name]["correct"]


def test_confusion_by_hand():
    gold = sentence([ADA, ACME, BOB], [Relation("WORKS", 0, 1), Relation("KNOWS", 0, 2), Relation("OWNS", 2, 1)])
    moved = replace(BOB, start=4)  # a wrong boundary takes its relations out of the matrix
    found = sentence(
        [replace(ADA, type="ORG"), ACME, moved],
        [Relation("OWNS", 0, 1), Relation("KNOWS", 0, 2), Relation("WORKS", 1, 0)],
    )
    assert confusion([gold, WORKS], [found, WORKS]) == {
        "labels": ["KNOWS", "OWNS", "WORKS"],
        "counts": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]],
        "gold_elsewhere": 2,
        "predicted_elsewhere": 1,
    }


@given(PAIRS)
def test_confusion_holds_every_relation(pairs):
    gold, predicted = zip(*pairs, strict=True)
    total, found = score(gold, predicted)["relation"], confusion(gold, predicted)
    rows = found["counts"]
    assert sum(map(sum, rows[:-1])) + found["gold_elsewhere"] == total["gold"]
    assert sum(sum(row[:-1]) for row in rows) + found["predicted_elsewhere"] == total["predicted"]
    assert sum(rows[i][i] for i in range(len(rows) - 1)) == total["correct"]
    assert rows[-1][-1] == 0
