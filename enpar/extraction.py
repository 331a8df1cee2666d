"""A fine-tuned model with its tokenizer: sentences in, predicted sentences out; its folder."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from enpar.model.joint import Found, JointModel, Labels, find
from enpar.model.windows import Batch, Marks, Window, windows_of
from enpar.pretrained import (
    EXTRACTION,
    checkpoint_settings,
    extraction_settings,
    load_config,
    load_encoder,
    load_tokenizer,
    new_encoder,
)
from enpar.sentence import Entity, Relation, Sentence
from enpar.training.checkpoint import load_weights, save_model
from enpar.wordpieces import limit_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_SIZE = 32  # windows predicted at once


class Prediction(NamedTuple):
    """A sentence with what was found in it, and the probability of each entity's and relation's type."""

    sentence: Sentence
    entity_scores: tuple[float, ...]
    relation_scores: tuple[float, ...]


class Extraction:
    """A joint model and the tokenizer it was trained with."""

    def __init__(self, model: JointModel, tokenizer: "PreTrainedTokenizerFast") -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(device)
        self.tokenizer = tokenizer
        self.device = device
        self._marks = Marks(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)

    def windows(self, sentences: Sequence[Sentence]) -> list[list[Window]]:
        """The windows of each sentence."""
        limit = limit_of(self.model.encoder.config)
        return list(windows_of(self.tokenizer, [sentence.tokens for sentence in sentences], limit))

    def batch(self, windows: Sequence[Window]) -> Batch:
        """The windows as the model takes them."""
        return Batch(windows, self._marks, self.device)

    def predict(self, sentences: Sequence[Sentence], batch_size: int = BATCH_SIZE) -> list[Prediction]:
        """One prediction for each sentence, in order; what the sentences are labelled with is not looked at."""
        self.model.eval()
        windows = [window for some in self.windows(sentences) for window in some]
        by_length = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
        found: list[Found | None] = [None] * len(windows)
        for i in range(0, len(windows), batch_size):
            chosen = by_length[i : i + batch_size]
            for j, result in zip(chosen, find(self.model, self.batch([windows[j] for j in chosen])), strict=True):
                found[j] = result
        return list(_merge(sentences, windows, found, self.model.labels))

    def save(self, folder: Path, settings: dict[str, Any], card: str) -> None:
        """Write the model's folder; `settings` are what a reader may want to know, beside what loading needs."""
        labels = self.model.labels
        own = {
            "kind": EXTRACTION,
            "entity_types": list(labels.entity_types),
            "relation_types": list(labels.relation_types),
        }
        parts = {**self.model.span_encoders, **self.model.classifiers}
        save_model(folder, self.model.encoder, parts, self.tokenizer, own | settings, card)


def load(folder: Path) -> Extraction:
    """A fine-tuned model from its folder.

    Raises:
        UserError: it is no such folder, or lacks a weight.
    """
    settings = extraction_settings(folder)
    labels = Labels(tuple(settings["entity_types"]), tuple(settings["relation_types"]))
    model = JointModel(new_encoder(load_config(str(folder))), labels, 0.0, settings["precision"])
    load_weights(folder, model.encoder, {**model.span_encoders, **model.classifiers})
    return Extraction(model.eval(), load_tokenizer(str(folder)))


def start(init: str, span_encoders: bool, labels: Labels, dropout: float, precision: str) -> Extraction:
    """A model to be trained.

    Args:
        init: an enpar checkpoint or a plain encoder.
        span_encoders: whether a checkpoint's entity and pair encoders are taken, too.
        labels: what is to be told apart.
        dropout: of the encoder and all that stands on it.
        precision: bf16 or fp32.
    """
    model = JointModel(load_encoder(init, dropout), labels, dropout, precision)
    if span_encoders and checkpoint_settings(init) is not None:
        load_weights(Path(init), model.encoder, model.span_encoders)
    return Extraction(model, load_tokenizer(init))


def _merge(
    sentences: Sequence[Sentence], windows: Iterable[Window], found: Iterable[Found | None], labels: Labels
) -> Iterator[Prediction]:
    """Put together what was found in the windows of each sentence, in its own tokens."""
    entities: list[list[tuple[Entity, float]]] = [[] for _ in sentences]
    relations: list[list[tuple[Relation, float]]] = [[] for _ in sentences]
    for window, result in zip(windows, found, strict=True):
        assert result is not None
        before = len(entities[window.sentence])
        starts, ends = window.tokens[result.spans[:, 0]], window.tokens[result.spans[:, 1] - 1] + 1
        for start, end, kind, score in zip(starts, ends, result.types, result.scores, strict=True):
            entity = Entity(int(start), int(end), labels.entity_types[kind])
            entities[window.sentence].append((entity, float(score)))
        for (kind, head, tail), score in zip(result.relations, result.relation_scores, strict=True):
            relation = Relation(labels.relation_types[kind], int(before + head), int(before + tail))
            relations[window.sentence].append((relation, float(score)))
    for sentence, own, related in zip(sentences, entities, relations, strict=True):
        yield _prediction(sentence, own, related)


def _prediction(
    sentence: Sentence, entities: Sequence[tuple[Entity, float]], relations: Sequence[tuple[Relation, float]]
) -> Prediction:
    labelled = Sentence(
        sentence.tokens,
        tuple(entity for entity, _ in entities),
        tuple(relation for relation, _ in relations),
        sentence.doc_id,
        sentence.sent_id,
    )
    return Prediction(labelled, tuple(score for _, score in entities), tuple(score for _, score in relations))
