"""The numbers of a training run, which its first worker measures, in the file that the command's own process follows.

That worker may be on another node than the command. An actor on the command's node therefore writes the file.
"""

from collections.abc import Mapping
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from enpar.errors import UserError
from enpar.metrics import append_metrics, truncate_metrics
from enpar.storage import Location


class Journal:
    """Writes the file of a run's numbers; made where the command runs, it is used by the first worker.

    Args:
        file: the file, on the command's node.
        copy: where it is copied to by `keep`; None for nowhere.
    """

    def __init__(self, file: Path, copy: Location | None) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Writer)
        self._writer = actor.remote(file.resolve(), copy)

    def begin(self, step: int) -> None:
        """Drop what comes after `step`: a run that continues from there writes it again."""
        ray.get(self._writer.begin.remote(step))

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of a step; training does not wait for it, `keep` does."""
        self._writer.add.remote(step, metrics)

    def keep(self) -> None:
        """Copy the file; before each checkpoint, so that a run that goes on from there lacks nothing.

        Raises:
            OSError: the copy fails.
        """
        if problem := ray.get(self._writer.keep.remote()):
            raise OSError(problem)


class _Writer:
    """The actor."""

    def __init__(self, file: Path, copy: Location | None) -> None:
        self._file, self._copy = file, copy

    def begin(self, step: int) -> None:
        truncate_metrics(self._file, step)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        append_metrics(self._file, step, metrics)

    def keep(self) -> str:
        """What is wrong; as an exception it would bury itself in Ray's own."""
        try:
            if self._copy and self._file.exists():
                self._copy.upload(self._file)
        except UserError as error:
            return str(error)
        return ""
