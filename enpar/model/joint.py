"""The joint extraction model: three encoders and three classifiers (section 2.4 of the paper)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from enpar.model.contexts import SharedContexts
from enpar.model.decode import TAGS, Floats, best_tags, pairs_of, spans_of
from enpar.model.device import autocast
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
_PAIRS = 2048  # pairs that prediction encodes at once: 200 MB at most


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


class Related(NamedTuple):
    """What relates the entities of a window, R relations.

    Args:
        relations: index of the type, head and tail of each. Shape: (R, 3)
        scores: probability of that type and direction. Shape: (R,)
    """

    relations: Ints
    scores: Floats


class Found(NamedTuple):
    """What was found in a window, E entities.

    Args:
        spans: start and end of each, in the window's tokens. Shape: (E, 2)
        types: index of each one's type. Shape: (E,)
        scores: probability of that type. Shape: (E,)
        related: their relations.
    """

    spans: Ints
    types: Ints
    scores: Floats
    related: Related


class JointModel(nn.Module):
    """Sentence encoder, entity encoder and pair encoder, with a classifier on the output of each.

    Args:
        encoder: the sentence encoder.
        labels: what is to be told apart.
        dropout: of all that stands on the encoder.
        precision: bf16 (autocast), fp32, or auto; the classifiers and losses are in fp32 always.
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
        self._precision = precision

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
        block = max(1, len(pairs)) if torch.is_grad_enabled() else _PAIRS
        contexts = self._contexts(batch, states)
        blocks = (pairs[i : i + block] for i in range(0, len(pairs), block))
        logits = [self.relation_classifier(self._pairs(batch, contexts, pieces, entities, some)) for some in blocks]
        return torch.cat([states.new_zeros((0, self.labels.relation_classes)), *logits])

    def _contexts(self, batch: Batch, states: Tensor) -> Callable[[Spans], Tensor]:
        """What encodes contexts: for prediction, so that the time does not grow with the square of the entities."""
        if torch.is_grad_enabled():
            return partial(self.pair_encoder.context, states)
        with self._autocast(batch):
            return SharedContexts(self.pair_encoder.context, states, int(batch.lengths.max()))

    def _pairs(
        self, batch: Batch, encode: Callable[[Spans], Tensor], pieces: Ints, entities: Tensor, pairs: Ints
    ) -> Tensor:
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
            encoded = encode(Spans(distinct // batch.width, distinct % batch.width))
            left, middle, right = encoded[which].view(-1, 3, CONTEXT_WIDTH).unbind(1)
            one, other = entities[batch.tensor(first)], entities[batch.tensor(second)]
            joined: Tensor = self.pair_encoder.mlp(torch.cat([left, one, middle, other, right], dim=1))
        return joined.float()

    def _autocast(self, batch: Batch) -> AbstractContextManager[None]:
        return autocast(self._precision, batch.device)


def detect(batch: Batch, tag_logits: Tensor) -> Ints:
    """The best spans: window, start and end (in tokens) of each, in order. Shape: (spans, 3)."""
    scores = functional.log_softmax(tag_logits.detach(), dim=1).cpu().numpy()
    padded = np.zeros((len(batch.windows), int(batch.token_counts.max()), len(TAGS)))
    padded[np.arange(padded.shape[1]) < batch.token_counts[:, None]] = scores
    return spans_of(best_tags(padded, batch.token_counts))


@torch.inference_mode()
def find(model: JointModel, batch: Batch) -> list[Found]:
    """The entities and relations in each window; the model is to be in evaluation mode."""
    states = model.encode(batch)
    spans = detect(batch, model.tag_logits(batch, states))
    entities = model.entities(batch, states, spans)
    chances, types = functional.softmax(model.entity_classifier(entities), dim=1).max(dim=1)
    kept = torch.nonzero(types != NONE).flatten()
    spans, entities = spans[kept.cpu().numpy()], entities[kept]
    kinds, scores = (types[kept] - 1).cpu().numpy(), chances[kept].cpu().numpy()
    related = _relate(model, batch, states, spans, entities, pairs_of(spans))
    ends = np.searchsorted(spans[:, 0], np.arange(len(batch.windows) + 1)).tolist()
    return [
        Found(spans[begin:end, 1:], kinds[begin:end], scores[begin:end], one)
        for (begin, end), one in zip(pairwise(ends), related, strict=True)
    ]


@torch.inference_mode()
def relate(model: JointModel, batch: Batch, spans: Sequence[Ints]) -> list[Related]:
    """The relations among given entities in each window; the model is to be in evaluation mode.

    Args:
        model: the model.
        batch: the windows.
        spans: start and end of each window's entities, which may overlap, in its tokens, ordered by both.
    """
    rows = np.concatenate([np.insert(own, 0, window, axis=1) for window, own in enumerate(spans)])
    states = model.encode(batch)
    return _relate(model, batch, states, rows, model.entities(batch, states, rows), pairs_of(rows, nested=True))


def _relate(
    model: JointModel, batch: Batch, states: Tensor, spans: Ints, entities: Tensor, pairs: Ints
) -> list[Related]:
    """The relations in each window, their arguments being numbers of its own spans."""
    logits = model.relation_logits(batch, states, spans, entities, pairs)
    chances, classes = functional.softmax(logits, dim=1).max(dim=1)
    chosen = classes.cpu().numpy()
    found = _directed(pairs[chosen != NONE], chosen[chosen != NONE], len(model.labels.relation_types))
    scores = chances.cpu().numpy()[chosen != NONE]
    begins = np.searchsorted(spans[:, 0], np.arange(len(batch.windows)))
    window = spans[found[:, 1], 0]  # in order, as pairs are
    found[:, 1:] -= begins[window, None]
    ends = np.searchsorted(window, np.arange(len(batch.windows) + 1)).tolist()
    return [Related(found[begin:end], scores[begin:end]) for begin, end in pairwise(ends)]


def _directed(pairs: Ints, classes: Ints, relation_types: int) -> Ints:
    """Type, head and tail of each pair that is related. Shape: (pairs, 3)."""
    backwards = classes > relation_types
    types = np.where(backwards, classes - relation_types, classes) - 1
    head_and_tail = np.where(backwards[:, None], pairs[:, ::-1], pairs)
    return np.concatenate([types[:, None], head_and_tail], axis=1)
