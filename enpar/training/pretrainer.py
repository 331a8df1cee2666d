"""One process of a pre-training run: its model and engine, its way through the updates, what it leaves behind.

It knows nothing of Ray: whoever runs it hands it updates and takes its checkpoints.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from enpar.config import PretrainJob
from enpar.model.device import autocast, precision_on
from enpar.objectives.pretraining import PretrainingModel, ViewTensors, to_tensors
from enpar.objectives.views import ViewBatch, ViewMaker
from enpar.pretrained import checkpoint_settings, load_encoder, load_tokenizer
from enpar.training.checkpoint import load_weights, save_model
from enpar.training.engine import Engine
from enpar.training.loop import Losses, train_step
from enpar.training.meter import EncoderFlops, Meter
from enpar.training.optimizer import build_optimizer, build_schedule
from enpar.wordpieces import Ints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from enpar.training.journal import Journal

MODEL = "model"  # in the folder of a checkpoint: what the run would end with
_WARM = 20  # updates that are not measured, at most, and at most a fifth of all
_HELDOUT_EPOCH = 2**31  # draws of its own
_HELDOUT_BATCH = 4  # sentences

MakeEngine = Callable[[nn.Module, AdamW, LambdaLR], Engine]
Checkpoint = Callable[[int, Callable[[Path], None]], None]


class Pretrainer:
    """One worker's model and engine, and its way through the updates.

    Args:
        job: the settings.
        types: the entity types.
        steps: updates of the whole run.
        device: what it computes on.
        make_engine: what takes its steps.
        checkpoint: the folder of the checkpoint that it goes on from; None at the beginning.

    Attributes:
        first: number of the first update that is to be taken, from 0.

    Raises:
        UserError: the checkpoint is not one of this model.
    """

    def __init__(
        self,
        job: PretrainJob,
        types: tuple[str, ...],
        steps: int,
        device: torch.device,
        make_engine: MakeEngine,
        checkpoint: Path | None = None,
    ) -> None:
        self._job, self._types, self.steps, self._device = job, types, steps, device
        self._weights = {name: weight for name, weight in job.objectives.model_dump().items() if weight}
        self._tokenizer = load_tokenizer(job.encoder)
        self._model = build_model(job, types)
        if checkpoint:
            load_weights(checkpoint / MODEL, self._model.encoder, self._model.parts())
        self._model.to(device)
        optimizer = build_optimizer(learning_rates(self._model, job), job.train)
        self._schedule = build_schedule(optimizer, job.train.warmup, steps)
        self.engine = make_engine(self._model, optimizer, self._schedule)
        self.first = self.engine.load(checkpoint) if checkpoint else 0
        self._heldout: list[ViewTensors] = []

    def hold_out(self, maker: ViewMaker, sentences: Ints) -> None:
        """Make the views on which `train` evaluates: this worker's share of those of the held-out sentences."""
        by_length = sentences[np.argsort(maker.lengths[sentences], kind="stable")]
        batches = np.array_split(by_length, max(1, -(-len(by_length) // _HELDOUT_BATCH)))
        mine = batches[self.engine.rank :: self.engine.world]
        self._heldout = [self._tensors(maker.make(batch, _HELDOUT_EPOCH)) for batch in mine]

    def train(
        self, updates: Iterable[list[ViewBatch]], journal: "Journal | None", checkpoint: Checkpoint
    ) -> dict[str, Any]:
        """Take the updates from `first` on.

        Args:
            updates: the views of each, in micro-batches.
            journal: what the first worker's numbers are added to; None for none.
            checkpoint: is given the updates so far, and what every worker has to call to write a checkpoint.

        Returns:
            How fast it went; see `Meter.result`.
        """
        journal = journal if self.engine.rank == 0 else None
        if journal:
            journal.begin(self.first or -1)  # step 0, too, is measured again
        if self.first == 0:
            self._log(journal, 0, self._evaluate())
        settings = self._job.train
        meter = Meter(self._device, EncoderFlops(self._model.encoder), warm_updates(self.steps - self.first))
        for step, batches in zip(range(self.first, self.steps), updates, strict=True):
            tensors = [self._tensors(batch) for batch in batches]
            meter.lap("input")
            sums = train_step(self.engine, step, tensors, self._losses, self._weights, self._job.seed, meter.lap)
            row = _report("pretrain", sums, self._weights) | meter.took(batches, self.engine.world)
            row["pretrain/learning_rate"] = float(self._schedule.get_last_lr()[0])
            done = step + 1
            evaluates = done == self.steps or done % settings.evaluate_every == 0
            if evaluates:
                row |= self._evaluate()
            self._log(journal, done, row)
            if done == self.steps or done % settings.checkpoint_every == 0:
                evaluates = True
                if journal:
                    journal.keep()
                checkpoint(done, partial(self._save, done))
            meter.paused() if evaluates else meter.lap("other")
        return meter.result(self.engine) | {"precision": precision_on(self._device, settings.precision)}

    def _tensors(self, batch: ViewBatch) -> ViewTensors:
        tokenizer = self._tokenizer
        special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        return to_tensors(batch, *special).to(self._device)

    def _losses(self, batch: ViewTensors) -> Losses:
        with autocast(self._job.train.precision, self._device):
            losses: Losses = self._model(batch)
            return losses

    def _evaluate(self) -> dict[str, float]:
        """Losses and accuracies on the held-out sentences, over all workers."""
        if not self._job.train.heldout:
            return {}
        self._model.eval()
        sums: dict[str, Tensor] = {}
        with torch.no_grad():
            for batch in self._heldout:
                losses, extra = self._losses(batch)
                counts = {f"count/{name}": torch.tensor(count) for name, count in batch.counts().items()}
                found = {f"loss/{name}": value for name, value in losses.items()} | extra | counts
                for name, value in found.items():
                    sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double().cpu()
        self._model.train()
        names = self._evaluated()
        values = torch.stack([sums.get(name, torch.zeros((), dtype=torch.float64)) for name in names])
        totals = dict(zip(names, self.engine.total(values.to(self._device)).tolist(), strict=True))
        for name in self._weights:
            totals[f"loss/{name}"] /= max(totals[f"count/{name}"], 1)
        totals["loss/total"] = sum(self._weights[name] * totals[f"loss/{name}"] for name in self._weights)
        return _report("heldout", totals, self._weights)

    def _evaluated(self) -> list[str]:
        """The sums of an evaluation, which every worker must add up in the same order."""
        of_all = [f"{kind}/{name}" for name in self._weights for kind in ("loss", "right", "count")]
        acd = ["right/swap", "count/swap"] if "acd" in self._weights else []
        return of_all + acd + (["count/pp_moved"] if "pp" in self._weights else [])

    def _log(self, journal: "Journal | None", step: int, row: dict[str, float]) -> None:
        if journal and row:
            journal.add(step, row)

    def _save(self, done: int, folder: Path) -> None:
        """Write a checkpoint: every worker calls it, the first one writes."""
        self.engine.save(folder)
        if self.engine.rank == 0:
            (folder / MODEL).mkdir()
            _save_model(folder / MODEL, self._model, self._tokenizer, self._job, self._types, done)


def warm_updates(steps: int) -> int:
    """How many of these updates, the first ones, are not measured."""
    return max(1, min(_WARM, steps // 5))


def _report(stage: str, sums: dict[str, float], names: dict[str, float]) -> dict[str, float]:
    """Losses and accuracies under their names in the metrics.

    The accuracies: of MET's types and MEP's wordpieces; of ACD's originals that score above their negative (`acd`;
    `swap` for the swaps alone); of PP's permutations without the identity.
    """
    row = {f"{stage}/{name}": value for name, value in sums.items() if name.startswith("loss/")}
    pairs = [(name, name, "pp_moved" if name == "pp" else name) for name in names]
    for name, right, count in [*pairs, *([("swap", "swap", "swap")] if "acd" in names else [])]:
        row[f"{stage}/accuracy/{name}"] = sums[f"right/{right}"] / max(sums[f"count/{count}"], 1)
    return row


# ---- the model ----------------------------------------------------------------------------------------------------


def build_model(job: PretrainJob, types: tuple[str, ...]) -> PretrainingModel:
    """The model that a job begins with; the new modules' weights are drawn from its seed.

    From an enpar checkpoint come its entity and pair encoders and its heads as well, but for the typing head where
    the entity types are others.
    """
    torch.manual_seed(job.seed)
    encoder = load_encoder(job.encoder, job.train.dropout)
    if job.train.freeze_embeddings:
        encoder.get_input_embeddings().weight.requires_grad_(False)
    if job.scaling.use_gpu if job.train.compile is None else job.train.compile:
        encoder.compile(dynamic=True)  # in place: the names of its weights stay
    model = PretrainingModel(encoder, len(types), job.objectives.model_dump(), job.train.dropout)
    if (known := checkpoint_settings(job.encoder)) is not None:
        same = known.get("entity_types") == list(types)
        heads = {f"heads.{name}" for name in known.get("objectives", []) if name != "met" or same}
        old = {"entity_encoder", "pair_encoder"} | heads
        load_weights(Path(job.encoder), encoder, {name: part for name, part in model.parts().items() if name in old})
    return model.train()


def learning_rates(model: PretrainingModel, job: PretrainJob) -> dict[float, list[nn.Parameter]]:
    """The parameters by peak learning rate: the encoder's, and that of all that is new."""
    added = [parameter for part in model.parts().values() for parameter in part.parameters()]
    rates: dict[float, list[nn.Parameter]] = {job.train.learning_rate: list(model.encoder.parameters())}
    rates.setdefault(job.train.head_learning_rate or job.train.learning_rate, []).extend(added)
    return rates


def _save_model(
    folder: Path,
    model: PretrainingModel,
    tokenizer: "PreTrainedTokenizerFast",
    job: PretrainJob,
    types: tuple[str, ...],
    steps: int,
) -> None:
    """Write the encoders and heads as a Hugging Face folder."""
    settings = {"kind": "pretrained", "entity_types": list(types), "objectives": sorted(model.heads), "steps": steps}
    save_model(folder, model.encoder, model.parts(), tokenizer, settings, _card(job, steps))


def _card(job: PretrainJob, steps: int) -> str:
    return f"""---
library_name: enpar
---
# An ENPAR encoder

Sentence, entity and entity-pair encoders, pre-trained from `{Path(job.encoder).name}` with the objectives of ENPAR
(Wang et al., EACL 2021) for {steps} updates on text annotated by spaCy.

Fine-tune it to extract entities and relations: `enpar finetune init=FOLDER corpus.train=… corpus.dev=… output=…`.
`transformers.AutoModel.from_pretrained(FOLDER)` loads the sentence encoder alone.

It knows what its text and the NER model that annotated it knew, with their gaps and biases. Settings:

```json
{json.dumps(job.model_dump(mode="json", exclude={"tracking"}), indent=2, ensure_ascii=False)}
```
"""
