import pytest
from hypothesis import given
from sentences import ACME, ADA, BOB, PAIRS, sentence

from enpar.breakdown import FIGURES, breakdowns, distance
from enpar.scores import score
from enpar.sentence import Entity, Relation, Sentence


def filled(groups):
    """The groups that are not empty: gold, predicted, correct."""
    counts = {name: (s["gold"], s["predicted"], s["correct"]) for name, s in groups.items()}
    return {name: some for name, some in counts.items() if any(some)}


def test_the_groups():
    assert FIGURES["distance"].groups == ["0", "1-2", "3-5", "6-10", "11-20", "21+"]
    assert FIGURES["relations"].groups == ["0", "1", "2", "3", "4-5", "6+"]
    assert FIGURES["entities"].groups == ["0-1", "2", "3", "4-5", "6-8", "9+"]
    assert FIGURES["length"].groups == ["1-10", "11-20", "21-30", "31-40", "41-50", "51+"]


@pytest.mark.parametrize(
    ("head", "tail", "tokens"),
    [((0, 1), (2, 4), 1), ((2, 4), (0, 1), 1), ((0, 2), (2, 4), 0), ((0, 3), (2, 4), 0), ((1, 2), (1, 2), 0)],
)
def test_distance_is_the_tokens_between(head, tail, tokens):
    assert distance(("R", Entity(*head, "X"), Entity(*tail, "Y"))) == tokens


def test_a_case_by_hand():
    gold = [
        # Two relations over 1 and 4 tokens, three entities, six tokens; the first is found, and a wrong one over 1.
        sentence([ADA, ACME, BOB], [Relation("WORKS", 0, 1), Relation("KNOWS", 0, 2)]),
        # Nothing to find among 12 tokens, and something found.
        Sentence(tuple("abcdefghijkl"), (Entity(0, 1, "X"), Entity(9, 10, "X"))),
    ]
    predicted = [
        sentence([ADA, ACME, BOB], [Relation("WORKS", 0, 1), Relation("WORKS", 1, 2)]),
        Sentence(gold[1].tokens, gold[1].entities, (Relation("R", 0, 1),)),
    ]
    result = breakdowns(gold, predicted)
    assert filled(result["distance"]) == {"1-2": (1, 2, 1), "3-5": (1, 0, 0), "6-10": (0, 1, 0)}
    assert filled(result["relations"]) == {"0": (0, 1, 0), "2": (2, 2, 1)}
    assert filled(result["entities"]) == {"2": (0, 1, 0), "3": (2, 2, 1)}
    assert filled(result["length"]) == {"1-10": (2, 2, 1), "11-20": (0, 1, 0)}


@pytest.mark.parametrize(("tokens", "group"), [(1, "1-10"), (10, "1-10"), (11, "11-20"), (50, "41-50"), (51, "51+")])
def test_the_edges_of_the_groups(tokens, group):
    gold = [Sentence(("x",) * tokens, (Entity(0, 1, "X"),), (Relation("R", 0, 0),))]
    assert filled(breakdowns(gold, gold)["length"]) == {group: (1, 1, 1)}


@given(PAIRS)
def test_the_groups_of_every_figure_sum_to_the_score(pairs):
    gold, predicted = zip(*pairs, strict=True)
    total = score(gold, predicted)["relation_exact"]
    for groups in breakdowns(gold, predicted).values():
        for count in ("gold", "predicted", "correct"):
            assert sum(group[count] for group in groups.values()) == total[count]
