"""Permutation prediction (PP): which of the 120 orders of (left, e1, middle, e2, right) a text is in.

Section 2.2 of the paper; class 0 is the identity, and classes follow the lexicographic order of the permutations.
"""

from itertools import permutations

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from enpar.objectives.draws import Purpose, uniform
from enpar.objectives.pairs import Pairs, Placed
from enpar.objectives.segments import SEGMENTS, Layout, SegmentHashes
from enpar.wordpieces import Ints, Keys

PERMUTATIONS: Ints = np.array(list(permutations(range(SEGMENTS))), dtype=np.int64)  # (120, 5)
CLASSES = len(PERMUTATIONS)
IDENTITY = 0
SWAP = PERMUTATIONS.tolist().index([0, 3, 2, 1, 4])
_E1, _E2 = 1, 3  # the parts that are the entities
_PLACE: Ints = np.argsort(PERMUTATIONS, axis=1)  # where each part stands in each permutation
# The parts that stand before each part in each permutation, as the sum of 2^part.
_BEFORE: Ints = ((_PLACE[:, None, :] < _PLACE[:, :, None]) << np.arange(SEGMENTS)).sum(axis=2)


def permuted(pairs: Pairs, which: Ints, classes: Ints) -> Placed:
    """The views of some pairs in some permutations.

    Args:
        which: index of the pair. Shape: (V,)
        classes: its permutation. Shape: (V,)
    """
    s1, e1, s2, e2 = (side[which] for side in (pairs.start1, pairs.end1, pairs.start2, pairs.end2))
    starts = np.stack([np.zeros_like(s1), s1, e1, s2, e2], axis=1)
    lengths = np.stack([s1, e1 - s1, s2 - e1, e2 - s2, pairs.length[which] - e2], axis=1)
    order = PERMUTATIONS[classes]
    rows = np.arange(len(which))[:, None]
    layout = Layout(pairs.sentence[which], starts[rows, order], lengths[rows, order])
    begins = layout.positions()[rows, _PLACE[classes][:, [_E1, _E2]]]
    spans = np.stack([begins, begins + lengths[:, [_E1, _E2]]], axis=2)  # (V, entity, start and end)
    in_text = np.argsort(begins, axis=1)
    return Placed(layout, spans[rows, in_text].reshape(-1, 4))


def draw_classes(pairs: Pairs, keys: Keys, n_p: int, hashes: SegmentHashes, counter: Ints) -> tuple[Ints, Ints]:
    """n_p different permutations of each pair, the identity among them.

    Of permutations that give the same text only the lowest class can be drawn, so that the label is a function of
    the text; a pair with few different texts has fewer than n_p.

    Args:
        keys: key of each sentence. Shape: (sentences,)
        counter: a number for each pair that is its own within the sentence. Shape: (pairs,)

    Returns:
        The pair and the class of each. Shape: (n,) each, ordered by pair.
    """
    every = np.arange(len(pairs.sentence))
    texts = hashes.of_all(permuted(pairs, every, np.full_like(every, IDENTITY)).layout, _BEFORE)
    drawn = uniform(keys[pairs.sentence][:, None], Purpose.PERMUTATION, counter[:, None] * CLASSES + np.arange(CLASSES))
    drawn[:, IDENTITY] = -1
    drawn[~_lowest_of_equals(texts)] = np.inf
    ranks = np.argsort(drawn, axis=1)[:, :n_p]
    pair, column = np.nonzero(np.isfinite(np.take_along_axis(drawn, ranks, axis=1)))
    return pair, ranks[pair, column]


def _lowest_of_equals(texts: Keys) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Whether each entry is the first of its value in its row. Shape: that of `texts`."""
    lowest = np.ones(texts.shape, dtype=np.bool_)
    ordered = np.sort(texts, axis=1)
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)):  # few have equals
        lowest[row] = False
        lowest[row, np.unique(texts[row], return_index=True)[1]] = True
    return lowest


class PermutationHead(nn.Linear):
    """Classifies an entity pair's representation. Shape: (pairs, width) → (pairs, 120)."""

    def __init__(self, pair_width: int) -> None:
        super().__init__(pair_width, CLASSES)


def permutation_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """The summed cross-entropy. Shape: (n, 120), (n,) → ()."""
    return functional.cross_entropy(logits.float(), classes, reduction="sum")
