"""`enpar pretrain`: the four objectives on annotated sentences, with Ray Train workers under DeepSpeed."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from enpar.config import PretrainJob, Scaling
from enpar.errors import UserError
from enpar.metrics import append_metrics, read_metrics, truncate_metrics
from enpar.objectives.pretraining import PretrainingModel, ViewTensors, to_tensors
from enpar.objectives.views import ViewBatch, ViewMaker
from enpar.output import Output
from enpar.pretrained import load_config, load_encoder, load_tokenizer, locate
from enpar.sentence import read_sentences, sentence_files
from enpar.tracking import check_tracking, track
from enpar.training.checkpoint import save_model
from enpar.training.engine import DeepSpeedEngine, Engine
from enpar.training.loop import train_step
from enpar.training.optimizer import build_optimizer, build_schedule
from enpar.training.plan import Plan, divide, make_plan, total_steps
from enpar.wordpieces import SPECIALS, Ints, WordpieceCorpus, build_corpus, limit_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from enpar.training.launch import Worker

log = logging.getLogger("enpar")
STATE = ".train"  # what a broken-off run needs; gone when it is done
POSITION = "position.json"
HELDOUT_EPOCH = 2**31  # draws of its own
HELDOUT_BATCH = 4  # sentences
LAST = 20  # the result's losses are means over so many updates at the end


def run(job: PretrainJob) -> dict[str, Any]:
    """Pre-train, or go on with a run that was broken off.

    Raises:
        UserError: data, encoder or output are at fault; nothing has been started then.
        RunError: the loss is not finite, or the workers failed for good.
    """
    output = Output(job.output, "pretrain", job.model_dump(mode="json"))
    if (result := output.finished(job.overwrite)) is not None:
        return result
    check_tracking(job.tracking, job.output)
    output.apart_from(data=job.data, encoder=job.encoder)
    sentence_files(job.data)
    locate(job.encoder)
    check_resources(job.scaling)
    tokenizer = load_tokenizer(job.encoder)
    corpus = _read(job, tokenizer)
    division = divide(corpus, job.data_fraction, job.train.heldout, job.seed)
    plan = make_plan(corpus, division.train, job, job.scaling.num_workers)
    output.claim(job.overwrite)
    steps = total_steps(plan, job.train)
    log.info(
        "%d sentences to train on, %d held out, %s left out; %d updates of %d sentences",
        len(division.train), len(division.heldout), corpus.left_out, steps, plan.per_update,
    )  # fmt: skip
    maker = ViewMaker(corpus, job.views, job.objectives, tokenizer.mask_token_id, job.seed)
    with track(output, job.tracking, "pretrain", steps) as tracked:
        result = _train(job, output, corpus, maker, plan, division.heldout, steps)
        output.finish(result)
        shutil.rmtree(output.path / STATE, ignore_errors=True)
        tracked.finish(result, [output.path])
    return result


def check_resources(scaling: Scaling) -> None:
    """See that this machine has what is asked for; Ray would wait for it for ever. A cluster may yet grow.

    Raises:
        UserError: it has not.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    cpus, wanted = os.cpu_count() or 1, scaling.num_workers * (scaling.cpus_per_worker + scaling.cpus_for_views)
    if wanted > cpus:
        raise UserError(
            f"scaling: {scaling.num_workers} workers of {scaling.cpus_per_worker} CPUs, with {scaling.cpus_for_views} "
            f"more for the views of each, are {wanted:g}; this machine has {cpus}: lower num_workers or cpus_per_worker"
        )
    gpus = torch.cuda.device_count()
    if scaling.use_gpu and scaling.num_workers > gpus:
        raise UserError(f"scaling.use_gpu: {scaling.num_workers} workers want a GPU each; this machine has {gpus}")


def _read(job: PretrainJob, tokenizer: "PreTrainedTokenizerFast") -> WordpieceCorpus:
    limit = min(job.views.max_wordpieces, limit_of(load_config(job.encoder)))
    corpus = build_corpus(read_sentences(job.data), tokenizer, limit)
    if not len(corpus):
        raise UserError(f"data: {job.data} holds no sentence with an entity and at most {limit} wordpieces")
    return corpus


def _train(
    job: PretrainJob, output: Output, corpus: WordpieceCorpus, maker: ViewMaker, plan: Plan, heldout: Ints, steps: int
) -> dict[str, Any]:
    import ray

    from enpar import cluster
    from enpar.training.launch import launch

    started = time.monotonic()
    cluster.connect()
    arguments = {
        "job": job,
        "source": [ray.put((maker, plan))],  # in a list, so that Ray hands the reference on
        "heldout": heldout,
        "steps": steps,
        "types": corpus.type_names,
        "metrics": str(output.metrics.resolve()),
    }
    outcome = launch(work, arguments, job.scaling, (output.path / STATE).resolve())
    for file in (outcome.checkpoint / "model").iterdir():
        shutil.copy2(file, output.path / file.name)
    rows = read_metrics(output.metrics)
    return {
        "checkpoint": str(output.path),
        "steps": steps,
        **_summary(rows, "pretrain", LAST),
        "heldout": {"first": _summary(rows[:1], "heldout", 1), "last": _summary(rows[-1:], "heldout", 1)},
        **outcome.returned,
        "sentences": {"train": len(plan), "heldout": len(heldout), "left_out": corpus.left_out},
        "seconds": round(time.monotonic() - started, 1),
    }


def _summary(rows: list[dict[str, Any]], stage: str, last: int) -> dict[str, dict[str, float]]:
    """The means of a stage's losses and accuracies over the last lines that have them."""
    summary: dict[str, dict[str, float]] = {}
    for kind in ("loss", "accuracy"):
        prefix = f"{stage}/{kind}/"
        names = sorted({name for row in rows for name in row if name.startswith(prefix)})
        values = {name.removeprefix(prefix): [row[name] for row in rows if name in row][-last:] for name in names}
        summary[kind] = {name: round(float(np.mean(numbers)), 6) for name, numbers in values.items()}
    return summary


# ---- in a training worker -----------------------------------------------------------------------------------------


def work(worker: "Worker", arguments: dict[str, Any]) -> dict[str, Any]:
    """What each training worker does: go on from the last checkpoint to the last update."""
    import ray

    from enpar.training.feed import updates

    trainer = Trainer(worker, arguments["job"], arguments["types"], arguments["steps"])
    (source,) = arguments["source"]
    maker, _ = ray.get(source)
    trainer.heldout = [
        trainer.tensors(maker.make(chosen, HELDOUT_EPOCH))
        for chosen in _batches(arguments["heldout"], maker.lengths)[worker.rank :: worker.world]
    ]
    first = trainer.restore()
    job = trainer.job
    place = worker.rank, worker.world, job.train.accumulation, job.scaling.cpus_for_views
    return trainer.train(first, updates(source, range(first, trainer.steps), *place), Path(arguments["metrics"]))


def _batches(sentences: Ints, lengths: Ints) -> list[Ints]:
    by_length = sentences[np.argsort(lengths[sentences], kind="stable")]
    return np.array_split(by_length, max(1, -(-len(by_length) // HELDOUT_BATCH)))


class Trainer:
    """One worker's model and engine, and its way through the updates."""

    def __init__(self, worker: "Worker", job: PretrainJob, types: tuple[str, ...], steps: int) -> None:
        self.worker, self.job, self.types, self.steps = worker, job, types, steps
        self.weights = {name: weight for name, weight in job.objectives.model_dump().items() if weight}
        self.tokenizer = load_tokenizer(job.encoder)
        self.model = build_model(job, types).to(worker.device)
        optimizer = build_optimizer(learning_rates(self.model, job), job.train)
        self.schedule = build_schedule(optimizer, job.train.warmup, steps)
        self.engine: Engine = DeepSpeedEngine(
            self.model, optimizer, self.schedule, job.train.clip, job.train.accumulation, job.deepspeed
        )
        self.heldout: list[ViewTensors] = []

    def tensors(self, batch: ViewBatch) -> ViewTensors:
        """A batch of views on the worker's device."""
        tokenizer = self.tokenizer
        special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        return to_tensors(batch, *special).to(self.worker.device)

    def losses(self, batch: ViewTensors) -> Any:  # noqa: ANN401 - the loop's Losses
        """Put one micro-batch through the model."""
        bf16 = self.job.train.precision == "bf16"
        with torch.autocast(self.worker.device.type, torch.bfloat16, enabled=bf16):
            return self.model(batch)

    def train(self, first: int, updates: Iterator[list[ViewBatch]], metrics: Path) -> dict[str, Any]:
        """Take the updates from `first` on; returns what the first worker has to say of them."""
        if self.worker.rank == 0:
            truncate_metrics(metrics, first)
        if first == 0:
            self._log(metrics, 0, self.evaluate())
        meter = Meter()
        for step, batches in zip(range(first, self.steps), updates, strict=True):
            meter.arrived()
            sums = train_step(
                self.engine, step, [self.tensors(batch) for batch in batches], self.losses, self.weights, self.job.seed
            )
            row = report("pretrain", sums, self.weights) | meter.took(batches, self.worker.world)
            row["pretrain/learning_rate"] = float(self.schedule.get_last_lr()[0])
            done = step + 1
            if done == self.steps or done % self.job.train.evaluate_every == 0:
                row |= self.evaluate()
            self._log(metrics, done, row)
            if done == self.steps or done % self.job.train.checkpoint_every == 0:
                self.worker.checkpoint(done, partial(self.save, done))
            meter.ready()
        return meter.result()

    def evaluate(self) -> dict[str, float]:
        """Losses and accuracies on the held-out sentences, over all workers."""
        self.model.eval()
        sums: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for batch in self.heldout:
                losses, extra = self.losses(batch)
                counts = {f"count/{name}": torch.tensor(count) for name, count in batch.counts().items()}
                found = {f"loss/{name}": value for name, value in losses.items()} | extra | counts
                for name, value in found.items():
                    sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double().cpu()
        self.model.train()
        names = self._evaluated()
        values = torch.stack([sums.get(name, torch.zeros((), dtype=torch.float64)) for name in names])
        totals = dict(zip(names, self.engine.total(values.to(self.worker.device)).tolist(), strict=True))
        for name in self.weights:
            totals[f"loss/{name}"] /= max(totals[f"count/{name}"], 1)
        totals["loss/total"] = sum(self.weights[name] * totals[f"loss/{name}"] for name in self.weights)
        return report("heldout", totals, self.weights) if self.job.train.heldout else {}

    def _evaluated(self) -> list[str]:
        """The sums of an evaluation, which every worker must add up in the same order."""
        of_all = [f"{kind}/{name}" for name in self.weights for kind in ("loss", "right", "count")]
        acd = ["right/swap", "count/swap"] if "acd" in self.weights else []
        return of_all + acd + (["count/pp_moved"] if "pp" in self.weights else [])

    def _log(self, metrics: Path, step: int, row: dict[str, float]) -> None:
        if self.worker.rank == 0 and row:
            append_metrics(metrics, step, row)

    def save(self, done: int, folder: Path) -> None:
        """Write this worker's share of a checkpoint."""
        self.engine.save(folder)
        if self.worker.rank == 0:
            (folder / POSITION).write_text(json.dumps({"step": done}), encoding="utf-8")
            (folder / "model").mkdir()
            save_checkpoint(folder / "model", self.model, self.tokenizer, self.job, self.types, done)

    def restore(self) -> int:
        """Load the last checkpoint; returns how many updates have been taken."""
        with self.worker.restored() as folder:
            if folder is None:
                return 0
            self.engine.load(folder)
            return int(json.loads((folder / POSITION).read_text(encoding="utf-8"))["step"])


class Meter:
    """How fast the updates go, and how much of the time is spent waiting for input."""

    def __init__(self) -> None:
        self._asked = self._began = time.perf_counter()
        self._waited = self._busy = 0.0
        self._instances = self._views = self._wordpieces = self._cells = 0
        self._skipped = False

    def arrived(self) -> None:
        """An update's input is here."""
        self._began = time.perf_counter()

    def took(self, batches: list[ViewBatch], world: int) -> dict[str, float]:
        """An update has been taken; its rates over all workers."""
        waited, now = self._began - self._asked, time.perf_counter()
        instances = sum(batch.instances() for batch in batches) * world
        views = sum(len(batch.lengths) for batch in batches) * world
        if self._skipped:  # the first update also starts the input
            self._waited += waited
            self._busy += now - self._began
            self._instances += instances
            self._views += views
            self._wordpieces += int(sum(batch.lengths.sum() + SPECIALS * len(batch.lengths) for batch in batches))
            self._cells += sum(len(b.lengths) * (int(b.lengths.max()) + SPECIALS) for b in batches)
        self._skipped = True
        seconds = now - self._asked
        return {"pretrain/instances_per_second": instances / seconds, "pretrain/views_per_second": views / seconds}

    def ready(self) -> None:
        """The next update's input is asked for."""
        self._asked = time.perf_counter()

    def result(self) -> dict[str, Any]:
        """Rates over all updates but the first; None where there was no other."""
        seconds = self._waited + self._busy
        if not seconds:
            return {
                "instances_per_second": None,
                "views_per_second": None,
                "padding_fraction": None,
                "input_share": None,
            }
        return {
            "instances_per_second": round(self._instances / seconds, 1),
            "views_per_second": round(self._views / seconds, 1),
            "padding_fraction": round(1 - self._wordpieces / self._cells, 4),
            "input_share": round(self._waited / seconds, 4),
        }


def report(stage: str, sums: dict[str, float], names: dict[str, float]) -> dict[str, float]:
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
    """The model that a job begins with; the new modules' weights are drawn from its seed."""
    torch.manual_seed(job.seed)
    encoder = load_encoder(job.encoder, job.train.dropout)
    if job.train.freeze_embeddings:
        encoder.get_input_embeddings().weight.requires_grad_(False)
    return PretrainingModel(encoder, len(types), job.objectives.model_dump(), job.train.dropout).train()


def learning_rates(model: PretrainingModel, job: PretrainJob) -> dict[float, list[torch.nn.Parameter]]:
    """The parameters by peak learning rate: the encoder's, and that of all that is new."""
    added = [parameter for part in model.parts().values() for parameter in part.parameters()]
    rates: dict[float, list[torch.nn.Parameter]] = {job.train.learning_rate: list(model.encoder.parameters())}
    rates.setdefault(job.train.head_learning_rate or job.train.learning_rate, []).extend(added)
    return rates


def save_checkpoint(
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
