from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from enpar.model.decode import TAGS, B, E, I, O, U, best_tags, pairs_of, spans_of, tags_of, without_overlaps

AFTER = {O: (O, B, U), B: (I, E), I: (I, E), E: (O, B, U), U: (O, B, U)}


def well_formed(tags):
    path = [O, *tags, O]
    return all(after in AFTER[before] for before, after in pairwise(path))


LEGAL = {n: [tags for tags in product(range(5), repeat=n) if well_formed(tags)] for n in range(6)}


@given(arrays(np.float64, st.tuples(st.integers(1, 3), st.just(5), st.just(5)), elements=st.floats(-9, 0)), st.data())
def test_the_best_tags_are_the_best_of_all_well_formed_ones(scores, data):
    lengths = np.array([data.draw(st.integers(1, 5)) for _ in scores])
    found = best_tags(scores, lengths)
    for own, tags, length in zip(scores, found, lengths, strict=True):
        best = max(sum(own[i, tag] for i, tag in enumerate(legal)) for legal in LEGAL[length])
        assert well_formed(tags[:length])
        assert (tags[length:] == O).all()
        assert sum(own[i, tag] for i, tag in enumerate(tags[:length])) == pytest.approx(best, abs=1e-9)


def test_likely_tags_that_are_not_well_formed_give_way():
    probabilities = np.full((1, 3, 5), 0.01)
    probabilities[0, 0, B] = probabilities[0, 1, O] = probabilities[0, 2, O] = 0.9
    probabilities[0, 0, U] = 0.09
    assert [TAGS[tag] for tag in best_tags(np.log(probabilities), np.array([3]))[0]] == ["U", "O", "O"]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4)), max_size=8))
def test_spans_that_do_not_overlap_survive_tagging(drawn):
    spans = [(start, start + length) for start, length in drawn]
    kept = without_overlaps(spans)
    chosen = np.array([spans[i] for i in kept], dtype=np.int64).reshape(-1, 2)
    tags = tags_of(chosen, 12)
    assert well_formed(tags)
    assert spans_of(np.stack([tags, tags])).tolist() == [[row, *span] for row in (0, 1) for span in chosen.tolist()]
    for i in set(range(len(spans))) - set(kept):  # who is left out makes way for a longer or an earlier one
        start, end = spans[i]
        rivals = [spans[j] for j in kept if spans[j][0] < end and start < spans[j][1]]
        assert any((s - e, s) <= (start - end, start) for s, e in rivals)


def test_of_overlapping_spans_the_longer_is_kept_and_of_equal_ones_the_earlier():
    assert without_overlaps([(0, 1), (0, 3), (2, 4)]) == [1]
    assert without_overlaps([(2, 4), (1, 3)]) == [1]
    assert without_overlaps([(5, 6), (1, 3), (3, 4)]) == [1, 2, 0]
    assert without_overlaps([(1, 2), (1, 2)]) == [0]
    assert without_overlaps([]) == []


def test_pairs_are_of_one_sequence_and_in_text_order():
    spans = np.array([[0, 1, 2], [0, 1, 3], [0, 4, 5], [2, 0, 1], [2, 3, 4]])
    assert pairs_of(spans).tolist() == [[0, 2], [1, 2], [3, 4]]  # the first two start together
    assert pairs_of(spans[:0]).shape == (0, 2)


def test_pairs_of_nested_spans():
    spans = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 4]])
    assert pairs_of(spans, nested=True).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
