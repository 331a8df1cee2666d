"""How far a score can be trusted: bootstrap intervals of F1, and a paired test between two models.

Both treat the sentences as the sample. F1 needs only each sentence's counts, and sentences with equal counts are
alike; so a resample is one multinomial draw over the distinct rows of counts, which makes thousands of them cheap and
independent of the order of the sentences.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from enpar.scores import ITEMS, check_aligned
from enpar.sentence import Sentence

LEVEL = 0.95
"""Of every interval."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Interval = list[float]  # low, high


class Difference(TypedDict):
    """The second model's F1 minus the first's, its interval, and how likely one as large is by chance."""

    difference: float
    interval: Interval
    p: float


def sentence_counts(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> Ints:
    """What F1 is made of, sentence by sentence.

    Returns:
        For each of the four scores gold + predicted, and correct. Shape: (sentences, 4, 2)

    Raises:
        ValueError: the two do not have the same sentences in the same order.
    """
    check_aligned(gold, predicted)
    counts = np.zeros((len(gold), len(ITEMS), 2), dtype=np.int64)
    for i, (true, guess) in enumerate(zip(gold, predicted, strict=True)):
        for j, items in enumerate(ITEMS.values()):
            wanted, found = items(true), items(guess)
            counts[i, j] = len(wanted) + len(found), len(wanted & found)
    return counts


def intervals(counts: Ints, resamples: int, seed: int) -> dict[str, Interval]:
    """Percentile bootstrap interval of the F1 of each score (Efron and Tibshirani, 1993, chapter 13).

    Args:
        counts: of `sentence_counts`. Shape: (sentences, 4, 2)
        resamples: sets of sentences drawn with replacement.
        seed: of the draws.
    """
    rows, draws = _resample(counts, resamples, seed)
    return dict(zip(ITEMS, _interval(_f1(_weigh(draws, rows))), strict=True))


def compare(first: Ints, second: Ints, resamples: int, seed: int) -> dict[str, Difference]:
    """Difference in F1 between two models on the same sentences, for each score.

    The interval is the percentile interval of the difference over resampled sentences, both models on the same ones
    (paired bootstrap). p is two-sided, by approximate randomisation: were the models alike, exchanging their answers
    to a random half of the sentences would make a difference as large as this in a share p of the cases (Yeh, 2000,
    "More accurate tests for the statistical significance of result differences", after Noreen, 1989).

    Args:
        first: `sentence_counts` of one model. Shape: (sentences, 4, 2)
        second: of the other, on the same sentences. Shape: (sentences, 4, 2)
        resamples: resamples of the bootstrap, and exchanges of the test; p is at least 1 / (resamples + 1).
        seed: of the draws.
    """
    rows, draws = _resample(np.stack([first, second], axis=1), resamples, seed)
    resampled = _f1(_weigh(draws, rows))
    bounds = _interval(resampled[:, 1] - resampled[:, 0])
    found = _f1(second.sum(axis=0)) - _f1(first.sum(axis=0))
    p = _randomised(first, second, found, resamples, seed)
    return {
        name: {"difference": float(found[i]), "interval": bounds[i], "p": float(p[i])} for i, name in enumerate(ITEMS)
    }


def _randomised(first: Ints, second: Ints, found: Floats, exchanges: int, seed: int) -> Floats:
    """The p of each score. Shape: (4,)."""
    rows, times = _distinct(np.stack([first, second], axis=1))
    swapped = np.random.default_rng([seed, 1]).binomial(times, 0.5, size=(exchanges, len(times)))
    moved = _weigh(swapped, rows[:, 1] - rows[:, 0])
    differences = _f1(second.sum(axis=0) - moved) - _f1(first.sum(axis=0) + moved)
    extreme = np.count_nonzero(np.abs(differences) >= np.abs(found), axis=0)
    p: Floats = (1 + extreme) / (exchanges + 1)
    return p


def _resample(counts: Ints, resamples: int, seed: int) -> tuple[Ints, Ints]:
    """The distinct sentences, and how often each is drawn. Shapes: (distinct, …), (resamples, distinct)."""
    rows, times = _distinct(counts)
    return rows, np.random.default_rng(seed).multinomial(len(counts), times / len(counts), size=resamples)


def _distinct(counts: Ints) -> tuple[Ints, Ints]:
    return np.unique(counts, axis=0, return_counts=True)


def _weigh(weights: Ints, rows: Ints) -> Ints:
    """Sum the rows, each as often as its weight. Shapes: (resamples, rows), (rows, …) → (resamples, …)."""
    # As floats (exact, the sums being small) the product is one call of BLAS.
    sums = weights.astype(np.float64) @ rows.reshape(len(rows), -1).astype(np.float64)
    return sums.astype(np.int64).reshape(len(weights), *rows.shape[1:])


def _f1(counts: Ints) -> Floats:
    """F1 of summed counts, 0 where there is nothing. Shape: (…, 2) → (…)."""
    items, correct = counts[..., 0], counts[..., 1]
    f1: Floats = np.divide(2.0 * correct, items, out=np.zeros(items.shape), where=items > 0)
    return f1


def _interval(values: Floats) -> list[Interval]:
    """The middle `LEVEL` of each column. Shape: (resamples, columns)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [[float(a), float(b)] for a, b in zip(low, high, strict=True)]
