import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentences import ACME, ADA, BOB, PAIRS, sentence

from enpar.scores import ITEMS, score
from enpar.sentence import Relation
from enpar.significance import compare, intervals, sentence_counts

RIGHT = sentence([ADA, ACME], [Relation("WORKS", 0, 1)])
NOTHING = sentence()


def test_counts_are_those_that_f1_is_made_of():
    counts = sentence_counts([RIGHT, RIGHT], [sentence([ADA, BOB]), RIGHT])
    # gold + predicted, and correct, of span, entity, relation, relation_exact
    assert counts.tolist() == [[[4, 1], [4, 1], [1, 0], [1, 0]], [[4, 2], [4, 2], [2, 1], [2, 1]]]


@given(PAIRS, st.integers(0, 5))
def test_an_interval_lies_between_the_worst_and_the_best_sentence(pairs, seed):
    gold, predicted = zip(*pairs, strict=True)
    for name, (low, high) in intervals(sentence_counts(gold, predicted), 100, seed).items():
        alone = [score([a], [b])[name]["f1"] for a, b in pairs]
        assert min(alone) - 1e-12 <= low <= high <= max(alone) + 1e-12


def test_sentences_that_are_alike_leave_no_doubt():
    counts = sentence_counts([RIGHT] * 9, [sentence([ADA])] * 9)
    found = intervals(counts, 100, 1)
    assert found["entity"] == [2 / 3, 2 / 3]
    assert found["relation"] == [0.0, 0.0]


def test_an_interval_is_what_resampling_sentence_by_sentence_gives():
    """Half of 40 sentences are right, half miss all: recall, and so F1, has a known spread."""
    gold, predicted = [RIGHT] * 40, [RIGHT] * 20 + [NOTHING] * 20
    low, high = intervals(sentence_counts(gold, predicted), 20_000, 3)["entity"]
    right = np.random.default_rng(5).integers(0, 40, size=(20_000, 40)) < 20
    share = right.mean(axis=1)
    slow = np.quantile(2 * share / (1 + share), [0.025, 0.975])
    assert np.allclose((low, high), slow, atol=0.02)
    assert low < 2 / 3 < high


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_sentences_changes_nothing(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one, other = (sentence_counts(*zip(*some, strict=True)) for some in (pairs, shuffled))
    assert intervals(one, 100, 1) == intervals(other, 100, 1)
    assert compare(one, 0 * one, 100, 1) == compare(other, 0 * other, 100, 1)


def test_a_seed_repeats_and_another_does_not():
    counts = sentence_counts([RIGHT] * 30, [RIGHT] * 11 + [NOTHING] * 19)
    assert intervals(counts, 100, 1) == intervals(counts, 100, 1)
    assert intervals(counts, 100, 1) != intervals(counts, 100, 2)


@given(PAIRS)
def test_a_model_does_not_differ_from_itself(pairs):
    counts = sentence_counts(*zip(*pairs, strict=True))
    for found in compare(counts, counts, 100, 1).values():
        assert found == {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0}


@pytest.mark.parametrize("second_right", [12, 0])
def test_a_difference_in_every_sentence_is_no_chance(second_right):
    """12 sentences in which one model finds all and the other nothing: 2 of 2**12 exchanges are as extreme."""
    gold = [RIGHT] * 12
    counts = [sentence_counts(gold, [RIGHT] * n + [NOTHING] * (12 - n)) for n in (12 - second_right, second_right)]
    found = compare(*counts, 2000, 1)["entity"]
    sign = 1 if second_right else -1
    assert found["difference"] == sign
    assert found["interval"] == [sign, sign]
    assert found["p"] == pytest.approx(2 / 2**12, abs=0.002) and found["p"] >= 1 / 2001


def test_p_is_the_share_of_exchanges_that_are_as_extreme():
    """Three sentences, one model right in all, the other in one: of the 4 exchanges that matter 2 reach |d|."""
    gold = [RIGHT] * 3
    one, other = (sentence_counts(gold, [RIGHT] * n + [NOTHING] * (3 - n)) for n in (3, 1))
    found = compare(one, other, 20_000, 1)
    assert found["relation"]["p"] == pytest.approx(0.5, abs=0.02)
    assert found["relation"]["difference"] == 0.5 - 1.0
    assert found.keys() == ITEMS.keys()


@given(PAIRS, st.data())
def test_exchanging_the_models_changes_the_sign_alone(pairs, data):
    gold, first = zip(*pairs, strict=True)
    second = data.draw(st.permutations(first))
    one, other = sentence_counts(gold, first), sentence_counts(gold, second)
    forth, back = compare(one, other, 100, 1), compare(other, one, 100, 1)
    assert [found["difference"] for found in forth.values()] == [-found["difference"] for found in back.values()]
