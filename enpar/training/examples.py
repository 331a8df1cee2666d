"""What fine-tuning learns from: labelled windows, their batches, and the candidates that scheduled sampling chooses."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional

from enpar.model.decode import Floats, pairs_of, tags_of, without_overlaps
from enpar.model.joint import NONE, JointModel, Labels, detect
from enpar.model.windows import Batch, Window
from enpar.sentence import Sentence
from enpar.training.loop import Losses
from enpar.wordpieces import Ints

_POOL = 32  # batches among whose sentences neighbours in length are sought


class Gold(NamedTuple):
    """What can be learnt from a window, G entities that do not overlap.

    Args:
        spans: start and end of each, in the window's tokens, in order. Shape: (G, 2)
        types: class of each entity. Shape: (G,)
        relations: class of the pair of entities i < j at [i, j]. Shape: (G, G)
    """

    spans: Ints
    types: Ints
    relations: Ints


class Example(NamedTuple):
    """A window and what is to be found in it."""

    window: Window
    gold: Gold


class Candidates(NamedTuple):
    """Spans and pairs of a batch with their classes.

    Args:
        spans: window, start and end of each, in tokens. Shape: (spans, 3)
        types: class of each. Shape: (spans,)
        pairs: indices of the two spans of each pair. Shape: (pairs, 2)
        relations: class of each pair. Shape: (pairs,)
    """

    spans: Ints
    types: Ints
    pairs: Ints
    relations: Ints


# ---- Gold -----------------------------------------------------------------------------------------------------------


def examples_of(sentence: Sentence, windows: Sequence[Window], labels: Labels) -> Iterator[Example]:
    """The windows of a sentence with what can be learnt from each.

    Of entities that overlap the longer one is learnt, and of several relations of a pair the first; what reaches across
    windows is not. That is about learning only: all of it counts when the model is scored.
    """
    if not windows:
        return
    visible = np.concatenate([window.tokens for window in windows])
    bounds = [(entity.start, entity.end) for entity in sentence.entities]
    spans = np.searchsorted(visible, np.array(bounds, dtype=np.int64).reshape(-1, 2))
    first = 0
    for window in windows:
        last = first + len(window.tokens)
        inside = np.flatnonzero((spans[:, 0] < spans[:, 1]) & (spans[:, 0] >= first) & (spans[:, 1] <= last))
        kept = without_overlaps([(int(start), int(end)) for start, end in spans[inside]])
        yield Example(window, _gold(sentence, inside[kept], spans[inside[kept]] - first, labels))
        first = last


def _gold(sentence: Sentence, kept: Ints, spans: Ints, labels: Labels) -> Gold:
    """Gold of a window from its entities' indices in the sentence and their spans in the window."""
    types = [labels.entity_types.index(sentence.entities[i].type) + 1 for i in kept]
    place = {int(entity): i for i, entity in enumerate(kept)}
    relations = np.full((len(kept), len(kept)), NONE, dtype=np.int64)
    for relation in sentence.relations:
        head, tail = place.get(relation.head), place.get(relation.tail)
        if head is None or tail is None or head == tail:
            continue
        kind = labels.relation_types.index(relation.type) + 1
        pair, kind = ((head, tail), kind) if head < tail else ((tail, head), kind + len(labels.relation_types))
        if relations[pair] == NONE:
            relations[pair] = kind
    return Gold(spans, np.array(types, dtype=np.int64), relations)


# ---- Batches --------------------------------------------------------------------------------------------------------


def batches_of(lengths: Ints, size: int, seed: int, epoch: int, by_length: bool) -> list[Ints]:
    """Indices of the examples of each batch of an epoch: a draw from (seed, epoch).

    Args:
        lengths: wordpieces of each example.
        size: examples a batch.
        seed: the run's.
        epoch: the epoch's number.
        by_length: make batches of neighbours in length among randomly chosen examples.
    """
    draws = np.random.default_rng([seed, epoch])
    order = draws.permutation(len(lengths))
    if not by_length:
        return [order[i : i + size] for i in range(0, len(order), size)]
    batches: list[Ints] = []
    for i in range(0, len(order), size * _POOL):
        pool = order[i : i + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[j : j + size] for j in range(0, len(pool), size)]
    return [batches[i] for i in draws.permutation(len(batches))]


def gold_share(epoch: int, start: int, k: float) -> float:
    """Probability that a sentence's candidates are the gold spans alone: scheduled sampling (section 2.4).

    Args:
        epoch: from 1.
        start: epochs with gold spans only.
        k: how slowly the share falls after them.
    """
    if epoch <= start:
        return 1.0
    # As k / (k + exp(x)), and never an overflow.
    return 1.0 / (1.0 + math.exp(min((epoch - start) / k - math.log(k), 700.0)))


class Update:
    """The micro-batch of one update.

    The candidates are chosen from what the current weights tag, so the sentence encoder and the tagger run when the
    candidates are first asked for, and what they gave is used for the losses: one pass serves both.

    Args:
        model: the model that is trained.
        batch: the windows.
        gold: what is to be found in each.
        sampled: the windows whose detected spans are candidates, too. Shape: (sampled,)
        none: weight in the loss of a candidate `entity` or `relation` that is none.
    """

    def __init__(
        self, model: JointModel, batch: Batch, gold: Sequence[Gold], sampled: Ints, none: Mapping[str, float]
    ) -> None:
        self.model, self.batch, self.gold = model, batch, gold
        self._sampled, self._none = sampled, none

    def counts(self) -> dict[str, float]:
        """Tokens, spans and pairs that are classified, each counted by its weight."""
        return {name: float(weights.sum()) for name, (_, weights) in self.wanted.items()}

    @cached_property
    def wanted(self) -> dict[str, tuple[Ints, Floats]]:
        """Classes and weights of all tokens, spans and pairs."""
        spans = zip(self.batch.windows, self.gold, strict=True)
        tags = np.concatenate([tags_of(gold.spans, len(window.tokens)) for window, gold in spans])
        classes = {"entity": self.candidates.types, "relation": self.candidates.relations}
        weighted = {name: (some, np.where(some == NONE, self._none[name], 1.0)) for name, some in classes.items()}
        return {"span": (tags, np.ones(len(tags))), **weighted}

    @cached_property
    def states(self) -> Tensor:
        """Hidden states of all wordpieces. Shape: (rows, hidden)."""
        return self.model.encode(self.batch)

    @cached_property
    def tag_logits(self) -> Tensor:
        """Scores of each token's tags. Shape: (tokens, 5)."""
        return self.model.tag_logits(self.batch, self.states)

    @cached_property
    def candidates(self) -> Candidates:
        """Gold spans and, in the sampled windows, those that are detected; all pairs of them."""
        gold = np.concatenate([_rows(i, gold.spans) for i, gold in enumerate(self.gold)])
        spans = np.concatenate([gold, self._detected()])
        # A detected span that is a gold one goes away; the order is that of `pairs_of`.
        spans, which = np.unique(spans, axis=0, return_inverse=True)
        number = np.full(len(spans), -1, dtype=np.int64)
        number[which.reshape(-1)[: len(gold)]] = np.concatenate([np.arange(len(g.types)) for g in self.gold])
        return self._classify(spans, number)

    def _detected(self) -> Ints:
        if not len(self._sampled):
            return np.zeros((0, 3), dtype=np.int64)
        spans = detect(self.batch, self.tag_logits)
        return spans[np.isin(spans[:, 0], self._sampled)]

    def _classify(self, spans: Ints, number: Ints) -> Candidates:
        """Classes of spans and pairs; `number` of each span among its window's gold ones, or -1. Shape: (spans,)."""
        pairs = pairs_of(spans)
        types = np.full(len(spans), NONE, dtype=np.int64)
        relations = np.full(len(pairs), NONE, dtype=np.int64)
        first, second = pairs.T
        for window, gold in enumerate(self.gold):
            mine = (spans[:, 0] == window) & (number >= 0)
            types[mine] = gold.types[number[mine]]
            both = mine[first] & mine[second]
            relations[both] = gold.relations[number[first[both]], number[second[both]]]
        return Candidates(spans, types, pairs, relations)


def _rows(window: int, spans: Ints) -> Ints:
    return np.concatenate([np.full((len(spans), 1), window, dtype=np.int64), spans.reshape(-1, 2)], axis=1)


# ---- Losses ---------------------------------------------------------------------------------------------------------


def losses(update: Update) -> Losses:
    """The weighted sums of the cross-entropy of tags, entity types and relation types (section 2.4)."""
    model, batch, candidates = update.model, update.batch, update.candidates
    entities = model.entities(batch, update.states, candidates.spans)
    logits = {
        "span": update.tag_logits,
        "entity": model.entity_classifier(entities),
        "relation": model.relation_logits(batch, update.states, candidates.spans, entities, candidates.pairs),
    }
    return {name: _cross_entropy(batch, logits[name], *wanted) for name, wanted in update.wanted.items()}, {}


def _cross_entropy(batch: Batch, logits: Tensor, classes: Ints, weights: Floats) -> Tensor:
    each = functional.cross_entropy(logits, batch.tensor(classes), reduction="none")
    return (each * batch.tensor(weights.astype(np.float32))).sum()
