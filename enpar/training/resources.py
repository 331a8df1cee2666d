"""What a training run asks of the machine or the cluster: workers, threads and memory.

What there is, Ray knows; a run of one process needs none, so Ray is imported only where it is asked.
"""

from typing import TYPE_CHECKING

from enpar.config import PretrainJob, Scaling
from enpar.training.plan import sentences_an_update

if TYPE_CHECKING:
    from enpar.capacity import Bundle

_MEMORY = 3 * 2**30  # bytes for a training process on a CPU


def settle(job: PretrainJob) -> PretrainJob:
    """Fill in what the settings leave to the machine or the cluster: workers, threads and ZeRO stage.

    Raises:
        UserError: the cluster cannot be joined.
    """
    scaling = job.scaling
    workers = scaling.num_workers or max(scaling.min_workers, _workers(job))
    threads = scaling.threads or max(1, round(scaling.cpus_per_worker))
    stage = job.deepspeed if job.deepspeed is not None else min(workers - 1, 1)
    settled = scaling.model_copy(update={"num_workers": workers, "threads": threads})
    return job.model_copy(update={"scaling": settled, "deepspeed": stage})


def _workers(job: PretrainJob) -> int:
    from enpar.capacity import capacity

    has = capacity(job.scaling.use_gpu)
    if job.scaling.use_gpu:
        return max(1, int(has.gpus))
    each = max(1.0, job.scaling.cpus_per_worker + _views(job.scaling))
    work = sentences_an_update(job) // job.train.accumulation
    return max(1, min(int(has.cpus / each), int(has.memory // _MEMORY), work))


def check_resources(job: PretrainJob) -> None:
    """See that there is room for what a settled job asks for; Ray would wait for it for ever.

    Raises:
        UserError: there is not.
    """
    from enpar.capacity import require

    workers = job.scaling.num_workers or 1
    require(_bundles(job.scaling, workers), _asked(job.scaling, workers), job.wait)


def room_left(job: PretrainJob) -> int:
    """How many of a settled job's workers there is room for now; waits until it is the fewest that are to go on."""
    from enpar.capacity import most

    scaling, all_of_them = job.scaling, job.scaling.num_workers or 1
    fewest = min(scaling.min_workers, all_of_them)
    numbers = range(all_of_them, fewest - 1, -1)
    return numbers[most([_bundles(scaling, workers) for workers in numbers], _asked(scaling, fewest))]


def _asked(scaling: Scaling, workers: int) -> str:
    gpus = " and a GPU" if scaling.use_gpu else ""
    return (
        f"scaling: {workers} workers of {scaling.cpus_per_worker:g} CPUs{gpus}, with {_views(scaling):g} CPUs more for "
        f"the views of each, are {workers * (scaling.cpus_per_worker + _views(scaling)):g} CPUs"
        + (f" and {workers} GPUs" if scaling.use_gpu else "")
    )


def _bundles(scaling: Scaling, workers: int) -> "list[Bundle]":
    training = {"CPU": scaling.cpus_per_worker, **({"GPU": 1.0} if scaling.use_gpu else {})}
    views = {"CPU": scaling.cpus_for_views}
    return [training] * workers + [views] * (workers * scaling.view_workers)


def _views(scaling: Scaling) -> float:
    return scaling.view_workers * scaling.cpus_for_views
