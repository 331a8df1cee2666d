"""Tags ↔ spans, and the candidate pairs of spans: what stands between the classifiers and entities and relations.

Spans are detected by tagging (section 2.4 of the paper): B begins one, I is inside, E ends it, U is one token alone, O
is outside. A sequence of tags is well-formed if B and I are followed by I or E, and nothing else is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from enpar.wordpieces import Ints

Floats = npt.NDArray[np.floating]
TAGS = ("O", "B", "I", "E", "U")
O, B, I, E, U = range(5)  # noqa: E741 - the tags' names
_INSIDE = (B, I)
# 0 for a legal step from one tag (row) to the next (column), -inf for the others.
_STEPS = np.full((5, 5), -np.inf)
for _before in range(5):
    _STEPS[_before, (I, E) if _before in _INSIDE else (O, B, U)] = 0.0


def best_tags(scores: Floats, lengths: Ints) -> Ints:
    """The well-formed tags of the highest total score (Viterbi), for many sequences at once.

    Args:
        scores: log-probability of each tag. Shape: (sequences, longest, 5)
        lengths: tokens of each sequence. Shape: (sequences,)

    Returns:
        Tags; O behind a sequence's end. Shape: (sequences, longest)
    """
    count, longest, _ = scores.shape
    # One O behind the end: the legal steps to it are those with which a sequence may end.
    padded = np.concatenate([scores.astype(np.float64), np.zeros((count, 1, 5))], axis=1)
    padded[np.arange(longest + 1) >= lengths[:, None]] = np.where(np.arange(5) == O, 0.0, -np.inf)
    best = _STEPS[O] + padded[:, 0]  # a sequence may begin with what may follow an O
    origins = np.zeros((count, longest, 5), dtype=np.int64)
    for position in range(1, longest + 1):
        reached = best[:, :, None] + _STEPS
        origins[:, position - 1] = reached.argmax(axis=1)
        best = reached.max(axis=1) + padded[:, position]
    tags = np.full((count, longest + 1), O, dtype=np.int64)
    for position in reversed(range(longest)):
        tags[:, position] = origins[np.arange(count), position, tags[:, position + 1]]
    return tags[:, :longest]


def spans_of(tags: Ints) -> Ints:
    """The spans that well-formed tags mark.

    Args:
        tags: Shape: (sequences, longest)

    Returns:
        Sequence, start and end (exclusive) of each, in order. Shape: (spans, 3)
    """
    sequences, starts = np.nonzero((tags == B) | (tags == U))
    ends = np.nonzero((tags == E) | (tags == U))[1] + 1
    return np.stack([sequences, starts, ends], axis=1)


def tags_of(spans: Ints, length: int) -> Ints:
    """The tags that mark spans.

    Args:
        spans: start and end (exclusive) of each; none overlap. Shape: (spans, 2)
        length: tokens of the sequence.

    Returns:
        Shape: (length,)
    """
    tags = np.full(length, O, dtype=np.int64)
    for start, end in spans.tolist():
        tags[start:end] = I
        tags[start], tags[end - 1] = (U, U) if end - start == 1 else (B, E)
    return tags


def without_overlaps(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the spans that can be marked together, in text order.

    Of spans that overlap the longer one stays, of those of one length the earlier.

    Args:
        spans: start and end (exclusive) of each.
    """
    kept: list[int] = []
    for i in sorted(range(len(spans)), key=lambda i: (spans[i][0] - spans[i][1], spans[i][0], i)):
        start, end = spans[i]
        if all(end <= spans[j][0] or spans[j][1] <= start for j in kept):
            kept.append(i)
    return sorted(kept, key=lambda i: spans[i])


def pairs_of(spans: Ints, nested: bool = False) -> Ints:
    """The candidate pairs: two spans of one sequence of which the first starts before the second.

    Args:
        spans: sequence, start and end of each, in that order. Shape: (spans, 3)
        nested: also of which both start together, and the first ends before the second.

    Returns:
        Indices of the first and the second span of each pair. Shape: (pairs, 2)
    """
    counts = np.bincount(spans[:, 0]) if len(spans) else np.zeros(0, dtype=np.int64)
    begins = np.cumsum(counts) - counts
    groups = [begin + np.stack(np.triu_indices(count, 1), axis=1) for begin, count in zip(begins, counts, strict=True)]
    pairs = np.concatenate([np.zeros((0, 2), dtype=np.int64), *groups])
    apart = spans[pairs[:, 0], 1:] < spans[pairs[:, 1], 1:]
    ordered: Ints = pairs[apart.any(axis=1) if nested else apart[:, 0]]
    return ordered
