from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentences import ACME, ADA, BOB, PAIRS, labelled, sentence

from enpar.scores import by_type, grouped, score
from enpar.sentence import Entity, Relation, Sentence


def counts(scores):
    return {name: (s["gold"], s["predicted"], s["correct"]) for name, s in scores.items()}


def test_a_case_by_hand():
    gold = [
        sentence([ADA, ACME, BOB], [Relation("WORKS", 0, 1), Relation("KNOWS", 0, 2)]),
        sentence([ADA]),
    ]
    predicted = [
        # ORG taken for PER: span right, type wrong; WORKS then counts as `relation` only; KNOWS is reversed.
        sentence([ADA, replace(ACME, type="PER"), BOB], [Relation("WORKS", 0, 1), Relation("KNOWS", 2, 0)]),
        sentence([Entity(0, 2, "PER")]),
    ]
    scores = score(gold, predicted)
    assert counts(scores) == {
        "span": (4, 4, 3),
        "entity": (4, 4, 2),
        "relation": (2, 2, 1),
        "relation_exact": (2, 2, 0),
    }
    assert scores["span"]["f1"] == scores["span"]["precision"] == scores["span"]["recall"] == 0.75
    assert scores["relation_exact"]["f1"] == 0.0


def test_precision_and_recall_differ():
    scores = score([sentence([ADA, ACME, BOB])], [sentence([ADA])])
    assert scores["entity"] == {
        "precision": 1.0,
        "recall": 1 / 3,
        "f1": 0.5,
        "gold": 3,
        "predicted": 1,
        "correct": 1,
    }


def test_the_order_of_entities_does_not_matter():
    gold = sentence([ADA, ACME], [Relation("WORKS", 0, 1)])
    predicted = sentence([ACME, ADA], [Relation("WORKS", 1, 0)])
    assert all(s["f1"] == 1 for s in score([gold], [predicted]).values())


def test_duplicates_count_once_and_types_of_one_span_are_items_of_their_own():
    gold = sentence([ADA, replace(ADA, type="ORG")])
    assert counts(score([gold], [sentence([ADA, ADA])])) == {
        "span": (1, 1, 1),
        "entity": (2, 1, 1),
        "relation": (0, 0, 0),
        "relation_exact": (0, 0, 0),
    }
    # The same relation between the two readings of one span: one `relation`, two `relation_exact`.
    twice = sentence(
        [ADA, replace(ADA, type="ORG"), ACME], [Relation("R", 0, 2), Relation("R", 1, 2), Relation("R", 0, 2)]
    )
    assert counts(score([twice], [twice]))["relation"] == (1, 1, 1)
    assert counts(score([twice], [twice]))["relation_exact"] == (2, 2, 2)


def test_items_are_matched_within_their_sentence_only():
    assert counts(score([sentence([ADA]), sentence()], [sentence(), sentence([ADA])]))["entity"] == (1, 1, 0)


def test_nothing_is_zero():
    assert all(s["f1"] == s["precision"] == s["recall"] == 0.0 for s in score([], []).values())
    assert by_type([sentence()], [sentence()]) == {"entity": {}, "relation_exact": {}}


def test_by_type():
    gold = sentence([ADA, ACME, BOB], [Relation("WORKS", 0, 1)])
    predicted = sentence([ADA, replace(ACME, type="LOC")], [Relation("KNOWS", 0, 1)])
    result = by_type([gold], [predicted])
    assert list(result["entity"]) == ["LOC", "ORG", "PER"]
    assert counts(result["entity"]) == {"LOC": (0, 1, 0), "ORG": (1, 0, 0), "PER": (2, 1, 1)}
    assert counts(result["relation_exact"]) == {"KNOWS": (0, 1, 0), "WORKS": (1, 0, 0)}


def test_groups_hold_the_items_of_gold_and_of_the_prediction():
    gold = [sentence([ADA, ACME]), sentence([BOB])]
    predicted = [sentence([ADA]), sentence([BOB, ADA])]
    result = grouped(gold, predicted, "entity", lambda true, item: (len(true.entities), item[0]))
    assert counts(result) == {(2, "PER"): (1, 1, 1), (2, "ORG"): (1, 0, 0), (1, "PER"): (1, 2, 1)}


@pytest.mark.parametrize("predicted", [[], [Sentence(("x",))], [sentence(), sentence()]])
def test_sentences_must_align(predicted):
    for function in (score, by_type):
        with pytest.raises(ValueError, match="sentence"):
            function([sentence()], predicted)


@given(st.lists(labelled(), min_size=1, max_size=4))
def test_gold_against_itself_is_perfect(gold):
    for scores in (score(gold, gold), *by_type(gold, gold).values()):
        assert all(s["precision"] == s["recall"] == s["f1"] == (1.0 if s["gold"] else 0.0) for s in scores.values())


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_sentences_changes_nothing(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert score(*zip(*pairs, strict=True)) == score(*zip(*shuffled, strict=True))


@given(PAIRS)
def test_types_add_up(pairs):
    gold, predicted = zip(*pairs, strict=True)
    total, parts = score(gold, predicted), by_type(gold, predicted)
    for name, types in parts.items():
        for count in ("gold", "predicted", "correct"):
            assert sum(s[count] for s in types.values()) == total[name][count]


@given(PAIRS)
def test_a_wrong_prediction_never_raises_precision(pairs):
    gold, predicted = zip(*pairs, strict=True)
    last = predicted[-1]
    # Neither the type nor the label is any of gold's; span and relation spans may be right, so they are left out.
    wrong = Entity(0, 6, "WRONG")
    index = len(last.entities)
    worse = replace(last, entities=(*last.entities, wrong), relations=(*last.relations, Relation("W", index, index)))
    before, after = score(gold, predicted), score(gold, (*predicted[:-1], worse))
    for name in ("entity", "relation", "relation_exact"):
        assert after[name]["precision"] <= before[name]["precision"]
        assert after[name]["recall"] == before[name]["recall"]
        assert after[name]["predicted"] == before[name]["predicted"] + 1
