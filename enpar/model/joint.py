"""The joint extraction model: three encoders and three classifiers (section 2.4 of the paper)."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from enpar.model.decode import TAGS, Floats, best_tags, pairs_of, spans_of
from enpar.model.dropout import Dropout
from enpar.model.encoders import (
    CONTEXT_WIDTH,
    ENTITY_WIDTH,
    PAIR_WIDTH,
    EntityEncoder,
    PairEncoder,
    Spans,
    pair_contexts,
)
from enpar.model.windows import Batch
from enpar.wordpieces import Ints

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NONE = 0  # the class of spans that are no entity, and of pairs without a relation
_CONTEXT_ROWS = 1 << 16  # rows of hidden states that prediction gathers at once: about 100 MB


@dataclass(frozen=True)
class Labels:
    """Names of the classes.

    Class 0 is None. Relations from left to right come next, then, in the same order, those from right to left.
    """

    entity_types: tuple[str, ...]
    relation_types: tuple[str, ...]

    @property
    def relation_classes(self) -> int:
        """How many classes the relation classifier has."""
        return 2 * len(self.relation_types) + 1


class Found(NamedTuple):
    """What was found in a window, E entities and R relations.

    Args:
        spans: start and end of each entity, in the window's tokens. Shape: (E, 2)
        types: index of each entity's type. Shape: (E,)
        scores: probability of that type. Shape: (E,)
        relations: index of the type, head and tail of each relation. Shape: (R, 3)
        relation_scores: probability of that type and direction. Shape: (R,)
    """

    spans: Ints
    types: Ints
    scores: Floats
    relations: Ints
    relation_scores: Floats


class JointModel(nn.Module):
    """Sentence encoder, entity encoder and pair encoder, with a classifier on the output of each.

    Args:
        encoder: the sentence encoder.
        labels: what is to be told apart.
        dropout: of all that stands on the encoder.
        precision: bf16 (autocast) or fp32; the classifiers and losses are in fp32 always.
    """

    def __init__(self, encoder: "PreTrainedModel", labels: Labels, dropout: float, precision: str) -> None:
        super().__init__()
        hidden = encoder.config.hidden_size
        self.encoder = encoder
        self.entity_encoder = EntityEncoder(hidden, dropout)
        self.pair_encoder = PairEncoder(hidden, dropout)
        self.span_classifier = nn.Linear(hidden, len(TAGS))
        self.entity_classifier = nn.Linear(ENTITY_WIDTH, len(labels.entity_types) + 1)
        self.relation_classifier = nn.Linear(PAIR_WIDTH, labels.relation_classes)
        self.dropout = Dropout(dropout)
        self.labels = labels
        self._bf16 = precision == "bf16"

    @property
    def span_encoders(self) -> Mapping[str, nn.Module]:
        """The parts that pre-training makes as well."""
        return {"entity_encoder": self.entity_encoder, "pair_encoder": self.pair_encoder}

    @property
    def classifiers(self) -> Mapping[str, nn.Module]:
        """The parts that only fine-tuning makes."""
        names = ("span_classifier", "entity_classifier", "relation_classifier")
        return {name: getattr(self, name) for name in names}

    def encode(self, batch: Batch) -> Tensor:
        """Hidden states of all wordpieces. Shape: (windows * width, hidden)."""
        with self._autocast(batch):
            states = self.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        return states.float().flatten(0, 1)  # type: ignore[no-any-return]

    def tag_logits(self, batch: Batch, states: Tensor) -> Tensor:
        """Scores of the tags, from the first wordpiece of each token. Shape: (tokens, 5)."""
        tokens = states.index_select(0, batch.tensor(batch.token_rows))
        logits: Tensor = self.span_classifier(self.dropout(tokens))
        return logits

    def entities(self, batch: Batch, states: Tensor, spans: Ints) -> Tensor:
        """Representations of spans; `spans` as in `Batch.pieces`. Shape: (spans, 192)."""
        window, start, end = batch.pieces(spans).T
        rows = Spans(batch.tensor(batch.row(window, start)), batch.tensor(end - start))
        with self._autocast(batch):
            encoded: Tensor = self.entity_encoder(states, rows)
        return encoded.float()

    def relation_logits(self, batch: Batch, states: Tensor, spans: Ints, entities: Tensor, pairs: Ints) -> Tensor:
        """Scores of the relations of pairs.

        Args:
            batch: the windows.
            states: their hidden states.
            spans: as in `Batch.pieces`.
            entities: the spans' representations. Shape: (spans, 192)
            pairs: indices of the two spans of each pair. Shape: (pairs, 2)

        Returns:
            Shape: (pairs, classes)
        """
        pieces = batch.pieces(spans)
        # What gradients need is kept anyway; without them, memory is bounded whatever the number of pairs.
        block = max(1, len(pairs) if torch.is_grad_enabled() else _CONTEXT_ROWS // batch.width)
        blocks = (pairs[i : i + block] for i in range(0, len(pairs), block))
        logits = [self.relation_classifier(self._pairs(batch, states, pieces, entities, some)) for some in blocks]
        return torch.cat([states.new_zeros((0, self.labels.relation_classes)), *logits])

    def _pairs(self, batch: Batch, states: Tensor, pieces: Ints, entities: Tensor, pairs: Ints) -> Tensor:
        """As `PairEncoder.forward`, but each context that several pairs share is encoded once. Shape: (pairs, 256)."""
        first, second = pairs.T
        window = pieces[first, 0]
        arguments = np.concatenate([pieces[first, 1:], pieces[second, 1:]], axis=1)
        begins, lengths = batch.row(window, np.zeros_like(window)), batch.lengths[window]
        contexts = pair_contexts(batch.tensor(begins), batch.tensor(lengths), batch.tensor(arguments))
        # Between entities that overlap there is nothing.
        keys = contexts.starts * batch.width + contexts.lengths.clamp(min=0)
        distinct, which = torch.unique(keys, return_inverse=True)
        with self._autocast(batch):
            encoded = self.pair_encoder.context(states, Spans(distinct // batch.width, distinct % batch.width))
            left, middle, right = encoded[which].view(-1, 3, CONTEXT_WIDTH).unbind(1)
            one, other = entities[batch.tensor(first)], entities[batch.tensor(second)]
            joined: Tensor = self.pair_encoder.mlp(torch.cat([left, one, middle, other, right], dim=1))
        return joined.float()

    def _autocast(self, batch: Batch) -> AbstractContextManager[None]:
        return torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=self._bf16)


def detect(batch: Batch, tag_logits: Tensor) -> Ints:
    """The best spans: window, start and end (in tokens) of each, in order. Shape: (spans, 3)."""
    scores = functional.log_softmax(tag_logits.detach(), dim=1).cpu().numpy()
    padded = np.zeros((len(batch.windows), int(batch.token_counts.max()), len(TAGS)))
    padded[np.arange(padded.shape[1]) < batch.token_counts[:, None]] = scores
    return spans_of(best_tags(padded, batch.token_counts))


@torch.no_grad()
def find(model: JointModel, batch: Batch) -> list[Found]:
    """The entities and relations in each window; the model is to be in evaluation mode."""
    states = model.encode(batch)
    spans = detect(batch, model.tag_logits(batch, states))
    entities = model.entities(batch, states, spans)
    chances, types = functional.softmax(model.entity_classifier(entities), dim=1).max(dim=1)
    kept = torch.nonzero(types != NONE).flatten()
    spans, entities = spans[kept.cpu().numpy()], entities[kept]
    pairs = pairs_of(spans)
    logits = model.relation_logits(batch, states, spans, entities, pairs)
    pair_chances, classes = functional.softmax(logits, dim=1).max(dim=1)
    typed = (types[kept] - 1).cpu().numpy(), chances[kept].cpu().numpy()
    related = _directed(pairs, classes.cpu().numpy(), len(model.labels.relation_types)), pair_chances.cpu().numpy()
    return list(_by_window(len(batch.windows), spans, *typed, *related))


def _directed(pairs: Ints, classes: Ints, relation_types: int) -> Ints:
    """Type, head and tail of each pair's class; type -1 for None. Shape: (pairs, 3)."""
    backwards = classes > relation_types
    types = np.where(backwards, classes - relation_types, classes) - 1
    head_and_tail = np.where(backwards[:, None], pairs[:, ::-1], pairs)
    return np.concatenate([types[:, None], head_and_tail], axis=1)


def _by_window(
    count: int, spans: Ints, types: Ints, scores: Floats, relations: Ints, relation_scores: Floats
) -> Iterator[Found]:
    ends = np.searchsorted(spans[:, 0], np.arange(count + 1))
    is_relation = relations[:, 0] > -1
    relations, relation_scores = relations[is_relation], relation_scores[is_relation]
    windows = spans[relations[:, 1], 0]
    for window, (begin, end) in enumerate(pairwise(ends.tolist())):
        mine = windows == window
        yield Found(
            spans[begin:end, 1:],
            types[begin:end],
            scores[begin:end],
            relations[mine] - np.array([0, begin, begin]),
            relation_scores[mine],
        )
