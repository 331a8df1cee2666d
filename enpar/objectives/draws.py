"""Random numbers that are functions of a key: the same wherever, whenever and in whatever batch they are drawn.

The generator is SplitMix64 used as a hash (Steele et al. 2014, https://doi.org/10.1145/2714064.2660195).
"""

from enum import IntEnum

import numpy as np

from enpar.wordpieces import Ints, Keys

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Purpose(IntEnum):
    """What a number is drawn for; numbers of different purposes are independent."""

    FRACTION = 1
    HELDOUT = 2
    ORDER = 3
    WINDOW = 4
    ACTION = 5
    FORCED = 6
    FORCED_ACTION = 7
    REPLACEMENT = 8
    PAIR = 9
    PERMUTATION = 10


def mix(values: Keys) -> Keys:
    """SplitMix64's output function: a bijection whose results look random. Shape: that of `values`."""
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64
        values = (values ^ (values >> np.uint64(30))) * _FIRST
        values = (values ^ (values >> np.uint64(27))) * _SECOND
        return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)


def combine(key: Keys, value: Keys | Ints) -> Keys:
    """A new key from a key and a value; shapes broadcast."""
    with np.errstate(over="ignore"):
        return mix((key ^ mix(np.asarray(value).astype(np.uint64) + _STEP)) * _STEP + _STEP)


def run_key(seed: int, epoch: int) -> Keys:
    """The key of an epoch of a run. Shape: ()."""
    return combine(mix(np.asarray(seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)), np.asarray(epoch, dtype=np.uint64))


def draw(key: Keys, purpose: Purpose, counter: Ints) -> Keys:
    """64 random bits for each (key, counter). Shape: that of `key` and `counter`, broadcast."""
    return combine(combine(key, np.asarray(purpose)), counter)


def uniform(key: Keys, purpose: Purpose, counter: Ints) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Uniform in [0, 1). Shape: that of `key` and `counter`, broadcast."""
    return np.asarray((draw(key, purpose, counter) >> np.uint64(11)).astype(np.float64) * 2.0**-53)
