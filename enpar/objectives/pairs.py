"""Entity pairs: which are drawn from a sentence, and where they stand in a rearranged view."""

from dataclasses import dataclass

import numpy as np

from enpar.objectives.draws import Purpose, draw
from enpar.objectives.masking import Entities
from enpar.objectives.segments import Layout, join
from enpar.wordpieces import Ints, Keys

_MANY = 1 << 20  # above the number of entities of any sentence


@dataclass(frozen=True)
class Pairs:
    """Drawn entity pairs; each entity's span is in wordpieces of the sentence, e1 before e2.

    Args:
        sentence: row of the sentence in the batch. Shape: (n,)
        length: wordpieces of the sentence. Shape: (n,)
        start1, end1, start2, end2: the spans, end exclusive. Shape: (n,) each
        first, second: index of e1 and e2 among the batch's entities. Shape: (n,) each
    """

    sentence: Ints
    length: Ints
    start1: Ints
    end1: Ints
    start2: Ints
    end2: Ints
    first: Ints
    second: Ints


@dataclass(frozen=True)
class Placed:
    """Views with the spans of a pair in them, in textual order.

    Args:
        layout: the views.
        spans: start and end of the first span, start and end of the second. Shape: (V, 4)
    """

    layout: Layout
    spans: Ints

    @staticmethod
    def join(several: "list[Placed]") -> "Placed":
        """Several groups of views, one after the other."""
        return Placed(join([placed.layout for placed in several]), np.concatenate([p.spans for p in several]))


def draw_pairs(entities: Entities, lengths: Ints, keys: Keys, count: int) -> Pairs:
    """Up to `count` pairs of each sentence, without repetition; spans that overlap are no pair.

    Args:
        entities: in textual order within each sentence.
        lengths: wordpieces of each sentence. Shape: (sentences,)
        keys: key of each sentence. Shape: (sentences,)
    """
    behind = np.bincount(entities.sentence, minlength=len(keys))[entities.sentence] - 1 - entities.number
    first = np.repeat(np.arange(len(behind)), behind)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(behind) - behind, behind)
    apart = entities.end[first] <= entities.start[second]
    first, second = first[apart], second[apart]
    sentence = entities.sentence[first]
    order = draw(keys[sentence], Purpose.PAIR, entities.number[first] * _MANY + entities.number[second])
    drawn = np.lexsort((order, sentence))
    begins = np.searchsorted(sentence[drawn], sentence[drawn])
    drawn = np.sort(drawn[np.arange(len(drawn)) - begins < count])
    first, second, sentence = first[drawn], second[drawn], sentence[drawn]
    spans = entities.start[first], entities.end[first], entities.start[second], entities.end[second]
    return Pairs(sentence, lengths[sentence], *spans, first, second)
