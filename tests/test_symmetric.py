from hypothesis import given
from sentences import ACME, ADA, BOB, PAIRS, sentence

from enpar.scores import score
from enpar.sentence import Relation
from enpar.symmetric import explain, normalise, symmetric_labels


def test_only_symmetric_relations_are_right_in_either_direction():
    gold = [sentence([ADA, ACME, BOB], [Relation("COMPARE", 2, 0), Relation("USED-FOR", 0, 1)])]
    predicted = [sentence([BOB, ADA, ACME], [Relation("COMPARE", 1, 0), Relation("USED-FOR", 2, 1)])]
    assert score(gold, predicted)["relation_exact"]["correct"] == 0
    both = [normalise(sentences, {"COMPARE"}) for sentences in (gold, predicted)]
    assert [s.relations for s in both[0]] == [(Relation("COMPARE", 0, 2), Relation("USED-FOR", 0, 1))]
    assert score(*both)["relation_exact"] == {
        "precision": 0.5, "recall": 0.5, "f1": 0.5, "gold": 2, "predicted": 2, "correct": 1,
    }  # fmt: skip


@given(PAIRS)
def test_all_but_the_direction_stays(pairs):
    gold, predicted = zip(*pairs, strict=True)
    ordered = [normalise(sentences, {"R"}) for sentences in (gold, predicted)]
    assert [normalise(sentences, {"R"}) for sentences in ordered] == ordered
    assert normalise(gold, set()) == list(gold)
    before, after = score(gold, predicted), score(*ordered)
    assert (after["span"], after["entity"]) == (before["span"], before["entity"])
    for name in ("relation", "relation_exact"):  # a relation and its reverse are one then
        assert after[name]["gold"] <= before[name]["gold"] and after[name]["predicted"] <= before[name]["predicted"]


def test_known_labels_are_found_however_they_are_written():
    labels = ["USED-FOR", "Compare", "CONJUNCTION", "PER-SOC", "PHYS", "Compare"]
    assert symmetric_labels(labels) == ("CONJUNCTION", "Compare", "PER-SOC")


def test_the_way_is_told_with_the_labels():
    assert explain("directed", ["COMPARE"]) == (
        "The direction of every relation counts, symmetric ones included (COMPARE)."
    )
    assert explain("normalised", ["A", "B"]).startswith("Symmetric relations (A, B) are right in either direction")
    assert explain("directed", []) == "The direction of every relation counts, symmetric ones included."
    assert explain("normalised", []).startswith("No relation is known to be symmetric")
