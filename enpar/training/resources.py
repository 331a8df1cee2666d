"""What a training run asks of the machine: workers, threads and memory."""

import os

import torch

from enpar.config import PretrainJob, Scaling
from enpar.errors import UserError
from enpar.training.plan import sentences_an_update

_MEMORY = 3 * 2**30  # bytes for a training process on a CPU


def settle(job: PretrainJob) -> PretrainJob:
    """Fill in what the settings leave to the machine: workers, threads and ZeRO stage."""
    scaling = job.scaling
    workers = scaling.num_workers or _workers(job)
    threads = scaling.threads or max(1, round(scaling.cpus_per_worker))
    stage = job.deepspeed if job.deepspeed is not None else min(workers - 1, 1)
    settled = scaling.model_copy(update={"num_workers": workers, "threads": threads})
    return job.model_copy(update={"scaling": settled, "deepspeed": stage})


def _workers(job: PretrainJob) -> int:
    if os.environ.get("RAY_ADDRESS"):
        return 1  # how large the cluster is, and may become, is not known here
    if job.scaling.use_gpu:
        return max(1, torch.cuda.device_count())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    views = job.scaling.view_workers * job.scaling.cpus_for_views
    each = max(1.0, job.scaling.cpus_per_worker + views)
    work = sentences_an_update(job) // job.train.accumulation
    return max(1, min(int((os.cpu_count() or 1) / each), memory // _MEMORY, work))


def check_resources(scaling: Scaling) -> None:
    """See that this machine has what is asked for; Ray would wait for it for ever. A cluster may yet grow.

    Raises:
        UserError: it has not.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    workers, views = scaling.num_workers or 1, scaling.view_workers * scaling.cpus_for_views
    cpus, wanted = os.cpu_count() or 1, workers * (scaling.cpus_per_worker + views)
    if wanted > cpus:
        raise UserError(
            f"scaling: {workers} workers of {scaling.cpus_per_worker} CPUs, with {views:g} "
            f"more for the views of each, are {wanted:g}; this machine has {cpus}: lower num_workers or cpus_per_worker"
        )
    gpus = torch.cuda.device_count()
    if scaling.use_gpu and workers > gpus:
        raise UserError(f"scaling.use_gpu: {workers} workers want a GPU each; this machine has {gpus}")
