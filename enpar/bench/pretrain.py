"""Pre-training against a bare torch loop over the same micro-batches, and against a plain transformers loop."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from enpar import pretrain
from enpar.bench.settings import BenchPretrain
from enpar.config import PretrainJob, PretrainTraining
from enpar.model.device import autocast, use_cpus
from enpar.objectives.pretraining import to_tensors
from enpar.objectives.views import ViewBatch
from enpar.pretrained import WEIGHTS, load_config, load_tokenizer, locate, new_encoder, with_dropout
from enpar.training.engine import TorchEngine
from enpar.training.optimizer import build_optimizer, build_schedule
from enpar.training.pretrainer import Pretrainer, build_model, learning_rates, warm_updates
from enpar.training.resources import settle

log = logging.getLogger("enpar")
_SEQUENCES, _WORDPIECES = 64, 44  # of a batch of the plain loop
_PLAIN_SECONDS, _PLAIN_WARM = 15.0, 2
_AHEAD = 4  # updates whose views are made in advance


def measure(job: BenchPretrain) -> dict[str, Any]:
    """Measure `job.updates` updates, and the same work in both plainer ways.

    Raises:
        UserError: the data or the encoder is missing.
    """
    with TemporaryDirectory() as folder:
        ours = _job(job, Path(folder))
        result = _on_ray(ours) if job.ray else _in_this_process(ours)
        if job.references:
            result |= _references(ours, result)
    return {**result, "updates": job.updates, "workers": ours.scaling.num_workers, "threads": ours.scaling.threads}


def _job(job: BenchPretrain, folder: Path) -> PretrainJob:
    """The run that is measured: nothing held out, nothing tracked, one checkpoint at the end."""
    settings = job.model_dump(exclude={"stage", "updates", "ray", "references"})
    settings["encoder"] = _encoder(job.encoder, folder)
    settings |= {"output": folder / "output", "tracking": {"enabled": False}}
    if not job.ray:
        settings["scaling"] |= {"num_workers": 1, "min_workers": 1}
    train = {"steps": job.updates, "epochs": None, "heldout": 0, "checkpoint_every": job.updates}
    return settle(PretrainJob(**settings | {"train": PretrainTraining(**settings["train"] | train)}))


def _encoder(name: str, folder: Path) -> str:
    """The encoder; where a folder has a configuration and no weights, a copy with random ones."""
    place = Path(locate(name, weights=False))
    if not place.is_dir() or any(place.glob(f"{WEIGHTS}*")):
        return name
    log.info("bench: %s has no weights; random ones will do for speed", name)
    torch.manual_seed(0)
    new_encoder(load_config(name)).save_pretrained(folder / "encoder")
    load_tokenizer(name).save_pretrained(folder / "encoder")
    return str(folder / "encoder")


def _measured(result: dict[str, Any]) -> dict[str, Any]:
    names = (
        *("instances_per_second", "sequences_per_second", "tokens_per_second", "padding_fraction", "time"),
        *("flops_per_second", "peak_fraction", "peak_memory_bytes", "device", "precision"),
    )
    return {name: result[name] for name in names}


def _on_ray(job: PretrainJob) -> dict[str, Any]:
    import ray

    result = pretrain.run(job)
    ray.shutdown()  # the references have the machine to themselves
    return _measured(result)


def _in_this_process(job: PretrainJob) -> dict[str, Any]:
    use_cpus(job.scaling.threads)
    planned = pretrain.prepare(job)

    def engine(model: nn.Module, optimizer: AdamW, schedule: LambdaLR) -> TorchEngine:
        return TorchEngine(model, optimizer, schedule, job.train.clip)

    trainer = Pretrainer(job, planned.types, planned.steps, _device(job), engine)
    updates = _ahead(planned.update, planned.steps)
    return _measured(trainer.train(updates, None, lambda step, write: None))


def _ahead(make: Callable[[int], list[ViewBatch]], steps: int) -> Iterator[list[ViewBatch]]:
    """What `make` makes of each step, made in a thread a few steps in advance."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[list[ViewBatch]]] = []
        for step in range(steps + _AHEAD):
            if step < steps:
                waiting.append(pool.submit(make, step))
            if step >= _AHEAD:
                yield waiting.pop(0).result()


def _device(job: PretrainJob) -> torch.device:
    return torch.device("cuda" if job.scaling.use_gpu else "cpu")


# ---- references -----------------------------------------------------------------------------------------------------


def _references(job: PretrainJob, result: dict[str, Any]) -> dict[str, Any]:
    log.info("bench: the same micro-batches in a bare torch loop")
    bare = _bare(job)
    log.info("bench: a plain transformers loop in fp32")
    plain = _plain(job)
    found = {"bare_instances_per_second": bare, "reference_sequences_per_second": plain}
    ratio = round(result["instances_per_second"] / plain, 4)
    # One process against several would say nothing.
    alone = round(result["instances_per_second"] / bare, 4) if job.scaling.num_workers == 1 else None
    return {name: round(value, 1) for name, value in found.items()} | {"ratio": ratio, "bare_ratio": alone}


def _bare(job: PretrainJob) -> float:
    """Instances a second of one process with the threads of one worker, its input made beforehand."""
    use_cpus(job.scaling.threads)
    planned, device, tokenizer = pretrain.prepare(job), _device(job), load_tokenizer(job.encoder)
    weights = {name: weight for name, weight in job.objectives.model_dump().items() if weight}
    model = build_model(job, planned.types).to(device)
    optimizer = build_optimizer(learning_rates(model, job), job.train)
    schedule = build_schedule(optimizer, job.train.warmup, planned.steps)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    warm, instances, began = warm_updates(planned.steps), 0, 0.0
    updates = [planned.update(step, job.scaling.num_workers or 1) for step in range(planned.steps)]
    inputs = [[to_tensors(batch, *special).to(device) for batch in batches] for batches in updates]
    for step, (batches, tensors) in enumerate(zip(updates, inputs, strict=True)):
        if step == warm:
            instances, began = 0, _now(device)
        counts = {name: sum(batch.counts()[name] for batch in batches) for name in weights}
        for batch in tensors:
            with autocast(job.train.precision, device):
                sums, _ = model(batch)
            torch.stack([weights[name] / max(counts[name], 1) * sums[name] for name in weights]).sum().backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(parameters, job.train.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        instances += sum(batch.instances() for batch in batches)
    return instances / (_now(device) - began)


def _plain(job: PretrainJob) -> float:
    """Sequences a second of the encoder alone in fp32, on all CPUs or the GPU, with all else as transformers has it."""
    from transformers import AutoModel

    torch.set_num_threads(os.cpu_count() or 1)
    device = _device(job)
    config = with_dropout(load_config(job.encoder), job.train.dropout)
    model = AutoModel.from_pretrained(locate(job.encoder), config=config, dtype=torch.float32).to(device).train()
    optimizer = AdamW(model.parameters(), lr=job.train.learning_rate)
    torch.manual_seed(job.seed)
    ids = torch.randint(config.vocab_size, (_SEQUENCES, _WORDPIECES), device=device)
    mask = torch.ones_like(ids)
    done, began = -_PLAIN_WARM, 0.0
    while done < 1 or _now(device) - began < _PLAIN_SECONDS:
        if done == 0:
            began = _now(device)
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        states.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        done += 1
    return _SEQUENCES * done / (_now(device) - began)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
