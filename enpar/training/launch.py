"""Training workers on Ray Train: the only file that imports ray.train."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ray import train
from ray.train.torch import TorchTrainer, get_device

from enpar.config import Scaling
from enpar.errors import RunError, UserError
from enpar.model.device import ALLOCATOR, use_cpus

log = logging.getLogger("enpar")
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
        """Have every worker write its share of a checkpoint; returns when all have."""
        with TemporaryDirectory() as folder:
            write(Path(folder))
            train.report({"step": step}, checkpoint=train.Checkpoint.from_directory(folder))


@dataclass(frozen=True)
class Outcome:
    """What is left of a training run.

    Args:
        returned: what the first worker returned.
        checkpoint: the folder of the last checkpoint.
    """

    returned: dict[str, Any]
    checkpoint: Path


def launch(
    work: Callable[[Worker, dict[str, Any]], dict[str, Any]], arguments: dict[str, Any], scaling: Scaling, storage: Path
) -> Outcome:
    """Run `work` on every worker until it returns; a lost worker is replaced, all from the last checkpoint.

    A run that was broken off altogether goes on from its last checkpoint in `storage`.

    Raises:
        RunError: the run failed.
        UserError: a worker found the settings at fault.
    """
    verbose = log.isEnabledFor(logging.DEBUG)

    def on_worker(config: dict[str, Any]) -> dict[str, Any]:
        try:
            return work(Worker(scaling.threads or 1, verbose), config)
        except (RunError, UserError) as error:
            # Every worker comes here, and would again: such an end is returned, not retried.
            return {"error": str(error), "user": isinstance(error, UserError)}

    trainer = TorchTrainer(
        on_worker,
        train_loop_config=arguments,
        scaling_config=train.ScalingConfig(
            num_workers=scaling.num_workers or 1,
            use_gpu=scaling.use_gpu,
            resources_per_worker={"CPU": scaling.cpus_per_worker, **({"GPU": 1} if scaling.use_gpu else {})},
        ),
        run_config=train.RunConfig(
            name="run",
            storage_path=str(storage),
            failure_config=train.FailureConfig(max_failures=scaling.max_failures),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": ALLOCATOR},
        ),
    )
    try:
        result = trainer.fit()
    except train.TrainingFailedError as error:
        raise RunError(f"training failed: {_last_line(error)}") from error
    return _outcome(result)


def _outcome(result: Any) -> Outcome:  # noqa: ANN401 - Ray is untyped here
    returned = result.return_value or {}
    if "error" in returned:
        raise UserError(returned["error"]) if returned["user"] else RunError(returned["error"])
    return Outcome(returned, Path(result.checkpoint.path))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
