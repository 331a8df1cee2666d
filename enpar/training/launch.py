"""Training workers on Ray Train: the only file that imports ray.train."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pyarrow.fs import copy_files
from ray import train
from ray.train.torch import TorchTrainer, get_device

from enpar.config import PretrainJob
from enpar.errors import RunError, UserError
from enpar.model.device import ALLOCATOR, use_cpus
from enpar.storage import Location
from enpar.training.resources import room_left

log = logging.getLogger("enpar")
_START = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # how long Ray Train waits for room for the workers
_POLL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"  # how often Ray Train looks whether workers have come to their end
_PATIENCE = 5.0  # seconds of it at least, in which the workers are placed where there is room
_QUIET = ("ray", "ray.data", "ray.train", "DeepSpeed")


class Worker:
    """What the code of one training worker knows of the others, and how it leaves and finds checkpoints."""

    def __init__(self, threads: int, verbose: bool) -> None:
        context = train.get_context()
        self.rank: int = context.get_world_rank()
        self.world: int = context.get_world_size()
        self.device: torch.device = get_device()
        use_cpus(threads)
        logging.basicConfig(level=logging.INFO if verbose else logging.WARNING)
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        """The folder of the last checkpoint; None at the beginning."""
        checkpoint = train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)

    def checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        """Have every worker call what writes a checkpoint; returns when all have."""
        with TemporaryDirectory() as folder:
            write(Path(folder))
            train.report({"step": step}, checkpoint=train.Checkpoint.from_directory(folder))


@dataclass(frozen=True)
class Outcome:
    """What is left of a training run.

    Args:
        returned: what the first worker returned.
        checkpoint: the last checkpoint.
    """

    returned: dict[str, Any]
    checkpoint: train.Checkpoint

    def copy(self, folder: str, to: Path) -> None:
        """Copy what a folder of the last checkpoint holds."""
        copy_files(f"{self.checkpoint.path}/{folder}", str(to), self.checkpoint.filesystem)


Work = Callable[[Worker, dict[str, Any]], dict[str, Any]]


def launch(work: Work, arguments: dict[str, Any], job: PretrainJob, storage: Location) -> Outcome:
    """Run `work` on every worker until it returns; a lost worker is replaced, all from the last checkpoint.

    Where there is no room for all of them any more, it goes on with fewer. A run that was broken off altogether goes
    on from its last checkpoint in `storage`.

    Raises:
        RunError: the run failed.
        UserError: a worker found the settings at fault.
    """
    scaling, failures = job.scaling, 0
    workers = scaling.num_workers or 1
    os.environ[_START] = str(max(job.wait, _PATIENCE))
    os.environ.setdefault(_POLL, "0.5")  # Ray's two seconds are long for a short run
    while True:
        try:
            return _outcome(_trainer(work, arguments, job, workers, storage).fit())
        except train.TrainingFailedError as error:
            failures += 1
            # A ControllerError: the workers could not be started, for want of room or of the node they were to be on.
            if not isinstance(error, train.ControllerError) or failures == scaling.max_failures + 1:
                raise RunError(f"training failed: {_last_line(error)}") from error
        before, workers = workers, room_left(job)
        if workers < before:
            log.warning("there is no room for %d training workers any more; going on with %d", before, workers)


def _trainer(work: Work, arguments: dict[str, Any], job: PretrainJob, workers: int, storage: Location) -> TorchTrainer:
    scaling, verbose = job.scaling, log.isEnabledFor(logging.DEBUG)

    def on_worker(config: dict[str, Any]) -> dict[str, Any]:
        try:
            return work(Worker(scaling.threads or 1, verbose), config)
        except (RunError, UserError) as error:
            # Every worker comes here, and would again: such an end is returned, not retried.
            return {"error": str(error), "user": isinstance(error, UserError)}

    return TorchTrainer(
        on_worker,
        train_loop_config=arguments,
        scaling_config=train.ScalingConfig(
            num_workers=workers,
            use_gpu=scaling.use_gpu,
            resources_per_worker={"CPU": scaling.cpus_per_worker, **({"GPU": 1} if scaling.use_gpu else {})},
        ),
        run_config=train.RunConfig(
            name="run",
            storage_path=storage.path,
            storage_filesystem=storage.filesystem,
            failure_config=train.FailureConfig(max_failures=scaling.max_failures, controller_failure_limit=0),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": ALLOCATOR},
        ),
    )


def _outcome(result: Any) -> Outcome:  # noqa: ANN401 - Ray is untyped here
    returned = result.return_value or {}
    if "error" in returned:
        raise UserError(returned["error"]) if returned["user"] else RunError(returned["error"])
    return Outcome(returned, result.checkpoint)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
