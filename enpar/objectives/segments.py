"""A view as segments of its sentence in another order: index arithmetic over a batch, no loops over tokens.

Every rearranged view (the original, ACD's swaps and shifts, PP's permutations) is at most five segments of the
sentence laid out one after the other. `Layout` holds those of many views; gathering their wordpieces is one
addition and one look-up, and their equality is decided from hashes of segments, without gathering at all.
"""

from dataclasses import dataclass

import numpy as np

from enpar.objectives.draws import mix
from enpar.wordpieces import Ints, Keys

SEGMENTS = 5
_BASE = 0xD1342543DE82EF95  # odd, so that its powers have inverses modulo 2^64


@dataclass(frozen=True)
class Layout:
    """The segments of V views, in the order of the view.

    Args:
        sentence: row of the view's sentence in the batch. Shape: (V,)
        starts: where each segment begins in the sentence. Shape: (V, 5)
        lengths: wordpieces of each segment; together the whole sentence. Shape: (V, 5)
    """

    sentence: Ints
    starts: Ints
    lengths: Ints

    def positions(self) -> Ints:
        """Where each segment begins in the view. Shape: (V, 5)."""
        return np.cumsum(self.lengths, axis=1) - self.lengths

    def gather(self, sentence_starts: Ints) -> Ints:
        """Index of each view's wordpieces among the batch's, view after view. Shape: (total wordpieces,)."""
        lengths = self.lengths.reshape(-1)
        behind = np.cumsum(lengths) - lengths
        shift = (sentence_starts[self.sentence][:, None] + self.starts).reshape(-1) - behind
        return np.repeat(shift, lengths) + np.arange(int(lengths.sum()))


def exchanged(sentence: Ints, length: Ints, first: Ints, second: Ints, end: Ints) -> Layout:
    """The blocks [first, second) and [second, end) exchanged. All of shape (V,)."""
    nothing = np.zeros_like(length)
    starts = _columns(nothing, second, first, end, nothing)
    return Layout(sentence, starts, _columns(first, end - second, second - first, length - end, nothing))


def join(layouts: list[Layout]) -> Layout:
    """Several layouts, one after the other."""
    return Layout(
        np.concatenate([layout.sentence for layout in layouts]),
        np.concatenate([layout.starts for layout in layouts]),
        np.concatenate([layout.lengths for layout in layouts]),
    )


class SegmentHashes:
    """Hashes of rearranged views from prefix sums: two views of a batch are equal when their hashes are.

    The hash of wordpieces w_0 … w_n-1 is the sum of mix(w_i)·B^i modulo 2^64; that of a concatenation follows
    from those of its segments. Unequal texts collide with a probability of about 2^-64 each.
    """

    def __init__(self, pieces: Ints, sentence_starts: Ints, longest: int) -> None:
        self._powers = np.array([pow(_BASE, k, 2**64) for k in range(longest + 1)], dtype=np.uint64)
        self._starts = sentence_starts
        with np.errstate(over="ignore"):
            # Positions run over the whole batch; only differences of positions matter, and those stay short.
            weights = np.cumprod(np.full(len(pieces), _BASE, dtype=np.uint64))
            self._inverse = np.cumprod(np.full(len(pieces) + 1, pow(_BASE, -1, 2**64), dtype=np.uint64))
            sums = np.cumsum(mix(pieces.astype(np.uint64)) * weights)
        self._sums = np.concatenate([np.zeros(1, dtype=np.uint64), sums])

    def of(self, layout: Layout) -> Keys:
        """The hash of each view. Shape: (V,)."""
        with np.errstate(over="ignore"):
            moved = self._segments(layout) * self._powers[layout.positions()]
            return np.asarray(moved.sum(axis=1), dtype=np.uint64)

    def of_all(self, layout: Layout, before: Ints) -> Keys:
        """The hash of each view in each of P other orders of its segments.

        Args:
            layout: V views.
            before: the segments that stand before each one, the sum of 2^segment over them. Shape: (P, 5)

        Returns:
            Shape: (V, P)
        """
        sets = np.arange(1 << SEGMENTS)[:, None] >> np.arange(SEGMENTS) & 1
        with np.errstate(over="ignore"):
            segments = self._segments(layout)
            powers = self._powers[layout.lengths @ sets.T]  # by the set of segments that stand before: (V, 32)
            hashes = np.zeros((len(segments), len(before)), dtype=np.uint64)
            for i in range(SEGMENTS):
                hashes += segments[:, i, None] * powers[:, before[:, i]]
        return hashes

    def _segments(self, layout: Layout) -> Keys:
        """The hash of each segment as if it stood at the beginning. Shape: (V, 5)."""
        begin = self._starts[layout.sentence][:, None] + layout.starts
        return np.asarray((self._sums[begin + layout.lengths] - self._sums[begin]) * self._inverse[begin])


def _columns(*columns: Ints) -> Ints:
    return np.stack(columns, axis=1)
