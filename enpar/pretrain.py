"""`enpar pretrain`: the four objectives on annotated sentences, with Ray Train workers under DeepSpeed."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from enpar.begun import Begun
from enpar.config import PretrainJob
from enpar.metrics import read_metrics
from enpar.objectives.views import ViewBatch, ViewMaker
from enpar.output import METRICS, Output
from enpar.pretrained import absolute, locate
from enpar.provenance import Data
from enpar.sentence import count_sentences, sentence_files
from enpar.tracking import check_tracking, finished, track
from enpar.training.engine import DeepSpeedEngine, Engine
from enpar.training.plan import Plan, divide, make_plan, total_steps
from enpar.training.pretrainer import MODEL, Pretrainer
from enpar.training.resources import check_resources, settle
from enpar.wordpieces import Ints, read_corpus

if TYPE_CHECKING:
    from enpar.training.launch import Worker

log = logging.getLogger("enpar")
STATE = ".train"  # what a broken-off run needs; gone when it is done
LAST = 20  # the result's losses are means over so many updates at the end


def run(job: PretrainJob) -> dict[str, Any]:
    """Pre-train, or go on with a run that was broken off.

    Raises:
        UserError: data, encoder or output are at fault; nothing has been started then.
        RunError: the loss is not finite, or the workers failed for good.
    """
    output = Output(job.output, "pretrain", job.model_dump(mode="json"))
    if (result := finished(output, job.tracking, job.overwrite)) is not None:
        return result
    check_tracking(job.tracking, job.output)
    output.apart_from(data=job.data, encoder=job.encoder)
    locate(job.encoder)
    job = job.model_copy(update={"encoder": absolute(job.encoder, Path.cwd())})  # the workers' directory is another one
    begun = Begun(output.location / STATE, "data", output.location)
    files = sentence_files(job.data)
    read = {str(file): f"{file.size()} bytes" for file in files}
    if not job.overwrite:
        begun.check(read)
    job = settle(job)
    check_resources(job)
    planned = prepare(job)
    output.claim(job.overwrite)
    begun.keep(read)
    data = {"train": Data(str(job.data), files, count_sentences(files))}
    with track(output, job.tracking, "pretrain", planned.steps, data) as tracked:
        result = _train(job, output, planned)
        output.finish(result)
        (output.location / STATE).remove()
        tracked.finish(result, [output.path])
    return result


@dataclass(frozen=True)
class Work:
    """What a job comes to.

    Args:
        maker: makes the views of any sentence.
        plan: the sentences of each update.
        heldout: the sentences that are held out. Shape: (n,)
        steps: updates of the run.
        types: the entity types.
        left_out: sentences that are neither trained on nor held out, by reason.
    """

    maker: ViewMaker
    plan: Plan
    heldout: Ints
    steps: int
    types: tuple[str, ...]
    left_out: dict[str, int]

    def update(self, step: int, world: int = 1) -> list[ViewBatch]:
        """All micro-batches of an update, as `world` workers would share them."""
        cut = [self.plan.pieces(step, rank, world) for rank in range(world)]
        return [self.maker.make(sentences, epoch) for epoch, pieces in cut for sentences in pieces]


def prepare(job: PretrainJob) -> Work:
    """Read the sentences and plan the updates of a settled job.

    Raises:
        UserError: the data or the encoder's tokenizer are missing or do not suffice.
    """
    corpus, tokenizer = read_corpus(job.data, job.encoder, job.views.max_wordpieces)
    division = divide(corpus, job.data_fraction, job.train.heldout, job.seed)
    plan = make_plan(corpus, division.train, job)
    steps = total_steps(plan, job.train)
    log.info(
        "%d sentences to train on, %d held out, %s left out; %d updates of %d sentences",
        len(division.train), len(division.heldout), corpus.left_out, steps, plan.per_update,
    )  # fmt: skip
    maker = ViewMaker(corpus, job.views, job.objectives, tokenizer.mask_token_id, job.seed)
    return Work(maker, plan, division.heldout, steps, corpus.type_names, corpus.left_out)


def _train(job: PretrainJob, output: Output, planned: Work) -> dict[str, Any]:
    import ray

    from enpar import cluster
    from enpar.training.journal import Journal
    from enpar.training.launch import launch

    started = time.monotonic()
    cluster.connect()
    arguments = {
        "job": job,
        "source": [ray.put((planned.maker, planned.plan))],  # in a list, so that Ray hands the reference on
        "heldout": planned.heldout,
        "steps": planned.steps,
        "types": planned.types,
        "journal": Journal(output.metrics, None if output.location.local else output.location / METRICS),
    }
    try:
        outcome = launch(work, arguments, job, output.location / STATE)
    finally:
        output.publish()  # what was measured until a run failed
    outcome.copy(MODEL, output.path)
    rows = read_metrics(output.metrics)
    return {
        "checkpoint": str(output.location),
        "steps": planned.steps,
        **_summary(rows, "pretrain", LAST),
        "heldout": {"first": _summary(rows[:1], "heldout", 1), "last": _summary(rows[-1:], "heldout", 1)},
        **outcome.returned,
        "sentences": {"train": len(planned.plan), "heldout": len(planned.heldout), "left_out": planned.left_out},
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

    job: PretrainJob = arguments["job"]

    def engine(model: nn.Module, optimizer: AdamW, schedule: LambdaLR) -> Engine:
        return DeepSpeedEngine(model, optimizer, schedule, job.train.clip, job.deepspeed or 0)

    with worker.restored() as folder:
        trainer = Pretrainer(job, arguments["types"], arguments["steps"], worker.device, engine, folder)
    (source,) = arguments["source"]
    maker, _ = ray.get(source)
    trainer.hold_out(maker, arguments["heldout"])
    batches = updates(source, range(trainer.first, trainer.steps), worker.rank, worker.world, job.scaling)
    return trainer.train(batches, arguments["journal"], worker.checkpoint) | {"workers": worker.world}
