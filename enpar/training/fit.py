"""Fine-tuning: epochs of updates, a score on the dev split after each, and the weights of the best one."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from enpar.config import FinetuneJob, FinetuneTraining
from enpar.extraction import Extraction
from enpar.model.device import precision_on
from enpar.model.joint import JointModel
from enpar.scores import Score, score
from enpar.sentence import Sentence
from enpar.training.engine import TorchEngine
from enpar.training.examples import Example, Update, batches_of, examples_of, gold_share, losses
from enpar.training.loop import train_step
from enpar.training.optimizer import build_optimizer, build_schedule

log = logging.getLogger("enpar")
OBJECTIVES = {"span": 1.0, "entity": 1.0, "relation": 1.0}
_STEPS_A_LINE = 10
Scores = dict[str, Score]
Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Fitted:
    """How a fine-tuning went; the model has the weights of the best epoch."""

    epochs: int
    best_epoch: int
    steps: int
    sentences_per_second: float
    precision: str


def fit(
    extraction: Extraction, train: Sequence[Sentence], dev: Sequence[Sentence], job: FinetuneJob, report: Report
) -> Fitted:
    """Train until the last epoch, or until `patience` epochs brought nothing better on the dev split.

    Args:
        extraction: the model, which is left with the weights of the best epoch.
        train: sentences to learn from.
        dev: sentences by which the best epoch is chosen: entity F1 + exact-relation F1.
        job: the settings.
        report: takes the number of the update and what was measured.
    """
    model, settings = extraction.model, job.train
    learner = Learner(extraction, train, job, report)
    best = _Best(model)
    epoch, seconds = 0, 0.0
    while epoch < settings.epochs and epoch - best.epoch < settings.patience:
        epoch += 1
        began = time.monotonic()
        measured = learner.epoch(epoch)
        seconds += time.monotonic() - began
        scores = score(dev, [prediction.sentence for prediction in extraction.predict(dev)])
        report(learner.step, measured | flat("dev", scores) | {"finetune/epoch": epoch})
        best.see(epoch, scores)
    best.restore()
    precision = precision_on(extraction.device, settings.precision)
    return Fitted(epoch, best.epoch, learner.step, epoch * len(train) / seconds, precision)


def flat(split: str, scores: Mapping[str, Score]) -> dict[str, float]:
    """The F1 of each score by a name such as `dev/entity/f1`."""
    return {f"{split}/{name}/f1": value["f1"] for name, value in scores.items()}


class Learner:
    """Takes the updates of fine-tuning, epoch by epoch."""

    def __init__(self, extraction: Extraction, train: Sequence[Sentence], job: FinetuneJob, report: Report) -> None:
        self._extraction, self._job, self._report = extraction, job, report
        self._examples = _examples(extraction, train)
        self._lengths = np.array([len(example.window.ids) for example in self._examples], dtype=np.int64)
        settings = job.train
        steps = settings.epochs * math.ceil(len(self._examples) / settings.batch_size)
        optimizer = build_optimizer(rates(extraction.model, settings), settings)
        schedule = build_schedule(optimizer, settings.warmup, steps)
        self._engine = TorchEngine(extraction.model, optimizer, schedule, settings.clip)
        self._none = {"entity": settings.none_entity_weight, "relation": settings.none_relation_weight}
        self.step = 0

    def epoch(self, epoch: int) -> dict[str, float]:
        """Go through all examples once; mean losses since the last line, and the speed."""
        settings, seed = self._job.train, self._job.seed
        self._extraction.model.train()
        share = gold_share(epoch, settings.sampling_start, settings.sampling_k)
        draws = np.random.default_rng([seed, epoch, 1])
        began, recent = time.monotonic(), []
        for chosen in batches_of(self._lengths, settings.batch_size, seed, epoch, settings.length_groups):
            sampled = np.flatnonzero(draws.random(len(chosen)) >= share)
            recent.append(self._update([self._examples[i] for i in chosen], sampled))
            self.step += 1
            if self.step % _STEPS_A_LINE == 0:
                self._report(self.step, _means(recent))
                recent = []
        rate = len(self._examples) / (time.monotonic() - began)
        return _means(recent) | {"finetune/sentences_per_second": rate}

    def _update(self, examples: Sequence[Example], sampled: np.ndarray) -> dict[str, float]:
        batch = self._extraction.batch([example.window for example in examples])
        gold = [example.gold for example in examples]
        update = Update(self._extraction.model, batch, gold, sampled, self._none)
        return train_step(self._engine, self.step, [update], losses, OBJECTIVES, self._job.seed)


def _examples(extraction: Extraction, sentences: Sequence[Sentence]) -> list[Example]:
    labels = extraction.model.labels
    pairs = zip(sentences, extraction.windows(sentences), strict=True)
    return [example for sentence, windows in pairs for example in examples_of(sentence, windows, labels)]


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [f"loss/{name}" for name in (*OBJECTIVES, "total")] if measured else []
    return {f"finetune/{name}": sum(one[name] for one in measured) / len(measured) for name in names}


class _Best:
    """The weights of the best epoch so far."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights: dict[str, Tensor] = {}
        self._value = 0.0
        self.epoch = 0

    def see(self, epoch: int, scores: Scores) -> None:
        """Keep the weights if these scores are the best."""
        value = scores["entity"]["f1"] + scores["relation_exact"]["f1"]
        # As long as nothing is right, patience does not run out: a small corpus may need more epochs to begin with.
        if value > self._value or self._value == 0:
            self._value, self.epoch = value, epoch
            self._weights = {name: weight.detach().clone() for name, weight in self._model.state_dict().items()}

    def restore(self) -> None:
        """Give the model back the kept weights."""
        self._model.load_state_dict(self._weights)


# ---- Learning rates -------------------------------------------------------------------------------------------------


def rates(model: JointModel, settings: FinetuneTraining) -> dict[float, list[nn.Parameter]]:
    """Peak learning rates: discriminative fine-tuning (section 2.4), × `layer_decay` a layer from the top.

    The embeddings stand below the lowest layer; `freeze_embeddings` keeps the word embeddings out altogether.
    """
    if settings.freeze_embeddings:
        model.encoder.get_input_embeddings().weight.requires_grad_(False)
    layers = layers_of(model.encoder)
    depth = {id(parameter): len(layers) - 1 - i for i, layer in enumerate(layers) for parameter in layer.parameters()}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        if part == "encoder":
            below = len(layers) if ".embeddings." in f".{name}" else 0
            rate = settings.learning_rate * settings.layer_decay ** depth.get(id(parameter), below)
        else:
            rate = settings.span_learning_rate if part in model.span_encoders else settings.classifier_learning_rate
        groups.setdefault(rate, []).append(parameter)
    return groups


def layers_of(encoder: nn.Module) -> Sequence[nn.Module]:
    """The encoder's blocks from the lowest to the top; none where they share their weights (ALBERT)."""
    count = encoder.config.num_hidden_layers  # type: ignore[union-attr]
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    return list(next(lists, []))
