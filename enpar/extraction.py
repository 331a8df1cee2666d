"""A fine-tuned model with its tokenizer: sentences in, predicted sentences out; its folder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from enpar.model.device import precision_on
from enpar.model.joint import Found, JointModel, Labels, Related, find, relate
from enpar.model.windows import Batch, Marks, Window, place, windows_of
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
from enpar.wordpieces import Ints, limit_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T")
BATCH_WORDPIECES = {"cpu": 2048, "cuda": 65_536}
"""How many wordpieces are put through the model at once, by default; a longer window goes alone."""


class Prediction(NamedTuple):
    """A sentence with what was found in it, and the probability of each entity's (if found) and relation's type."""

    sentence: Sentence
    entity_scores: tuple[float | None, ...]
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

    def predict(self, sentences: Sequence[Sentence], batch_wordpieces: int | None = None) -> list[Prediction]:
        """One prediction for each sentence, in order; what the sentences are labelled with is not looked at.

        Args:
            sentences: the sentences.
            batch_wordpieces: how many are put through the model at once; see `BATCH_WORDPIECES`.
        """
        windows = [window for some in self.windows(sentences) for window in some]
        found = self._through(windows, lambda batch, _: find(self.model, batch), batch_wordpieces)
        return list(_merge(sentences, windows, found, self.model.labels))

    def relate(self, sentences: Sequence[Sentence], batch_wordpieces: int | None = None) -> list[Prediction]:
        """As `predict`, but each sentence keeps its entities, which have no scores, and gets relations alone.

        The entities may overlap and have types that the model does not know. Those that reach across the windows of a
        long sentence, and those of which the tokenizer makes nothing, are in no relation.
        """
        placed: list[tuple[Window, Ints, Ints]] = []
        for sentence, windows in zip(sentences, self.windows(sentences), strict=True):
            bounds = np.array([(entity.start, entity.end) for entity in sentence.entities], dtype=np.int64)
            places = place(windows, bounds.reshape(-1, 2))
            placed += ((window, *where) for window, where in zip(windows, places, strict=True) if len(where[0]) > 1)
        related = self._through(
            [window for window, *_ in placed],
            lambda batch, chosen: relate(self.model, batch, [placed[i][2] for i in chosen]),
            batch_wordpieces,
        )
        relations: list[list[tuple[Relation, float]]] = [[] for _ in sentences]
        for (window, numbers, _), result in zip(placed, related, strict=True):
            relations[window.sentence] += _named(result, numbers, self.model.labels)
        pairs = zip(sentences, relations, strict=True)
        return [_prediction(sentence, [(entity, None) for entity in sentence.entities], own) for sentence, own in pairs]

    def _through(
        self, windows: Sequence[Window], compute: Callable[[Batch, list[int]], list[T]], wordpieces: int | None
    ) -> list[T]:
        """What is computed for each window, in order; `compute` is given a batch and the numbers of its windows."""
        self.model.eval()
        results: dict[int, T] = {}
        for chosen in _batches(
            [len(window.ids) for window in windows], wordpieces or BATCH_WORDPIECES[self.device.type]
        ):
            batch = self.batch([windows[i] for i in chosen])
            results.update(zip(chosen, compute(batch, chosen), strict=True))
        return [results[i] for i in range(len(windows))]

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
    """A fine-tuned model from its folder, to predict with.

    Raises:
        UserError: it is no such folder, or lacks a weight.
    """
    settings = extraction_settings(folder)
    labels = Labels(tuple(settings["entity_types"]), tuple(settings["relation_types"]))
    model = JointModel(new_encoder(load_config(str(folder))), labels, 0.0, settings["precision"])
    load_weights(folder, model.encoder, {**model.span_encoders, **model.classifiers})
    extraction = Extraction(model.eval(), load_tokenizer(str(folder)))
    if precision_on(extraction.device, settings["precision"]) == "bf16":
        _cast([model.encoder, *model.span_encoders.values()])
    return extraction


def _cast(parts: Iterable[nn.Module]) -> None:
    """Cast to bf16 what autocast would cast to it for every batch."""
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Linear):
            module.bfloat16()
        elif isinstance(module, nn.Conv1d):
            module.weight.data = module.weight.data.bfloat16()  # the bias is added behind the maximum, in fp32


def start(init: str, span_encoders: bool, labels: Labels, dropout: float, precision: str) -> Extraction:
    """A model to be trained.

    Args:
        init: an enpar checkpoint or a plain encoder.
        span_encoders: whether a checkpoint's entity and pair encoders are taken, too.
        labels: what is to be told apart.
        dropout: of the encoder and all that stands on it.
        precision: auto, bf16 or fp32.
    """
    model = JointModel(load_encoder(init, dropout), labels, dropout, precision)
    if span_encoders and checkpoint_settings(init) is not None:
        load_weights(Path(init), model.encoder, model.span_encoders)
    return Extraction(model, load_tokenizer(init))


def _batches(lengths: Sequence[int], bound: int) -> Iterator[list[int]]:
    """Numbers of windows of neighbouring lengths, as many at a time as fill `bound` wordpieces."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > bound:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _merge(
    sentences: Sequence[Sentence], windows: Iterable[Window], found: Iterable[Found], labels: Labels
) -> Iterator[Prediction]:
    """Put together what was found in the windows of each sentence, in its own tokens."""
    entities: list[list[tuple[Entity, float | None]]] = [[] for _ in sentences]
    relations: list[list[tuple[Relation, float]]] = [[] for _ in sentences]
    for window, result in zip(windows, found, strict=True):
        own = entities[window.sentence]
        numbers = np.arange(len(own), len(own) + len(result.spans))
        starts, ends = window.tokens[result.spans[:, 0]], window.tokens[result.spans[:, 1] - 1] + 1
        for start, end, kind, score in zip(starts, ends, result.types, result.scores, strict=True):
            own.append((Entity(int(start), int(end), labels.entity_types[kind]), float(score)))
        relations[window.sentence] += _named(result.related, numbers, labels)
    for parts in zip(sentences, entities, relations, strict=True):
        yield _prediction(*parts)


def _named(related: Related, numbers: Ints, labels: Labels) -> Iterator[tuple[Relation, float]]:
    """The relations of a window with their scores; `numbers` are those of its entities in the sentence."""
    for (kind, head, tail), score in zip(related.relations.tolist(), related.scores.tolist(), strict=True):
        yield Relation(labels.relation_types[kind], int(numbers[head]), int(numbers[tail])), score


def _prediction(
    sentence: Sentence, entities: Sequence[tuple[Entity, float | None]], relations: Sequence[tuple[Relation, float]]
) -> Prediction:
    labelled = replace(
        sentence,
        entities=tuple(entity for entity, _ in entities),
        relations=tuple(relation for relation, _ in relations),
    )
    return Prediction(labelled, tuple(score for _, score in entities), tuple(score for _, score in relations))
