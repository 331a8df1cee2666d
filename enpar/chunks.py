"""Chunks of documents and the workers that do them, in this process or on Ray Data: each once, whatever dies meanwhile.

Which worker takes a chunk changes nothing in what is written.
"""

import logging
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from enpar.documents import Chunk, Slice
from enpar.errors import RunError, UserError
from enpar.parts import Parts

log = logging.getLogger("enpar")
_SECONDS_BETWEEN_LINES = 5.0
_FRUITLESS = 3  # times that workers may die one after the other before anything gets done


class Worker(ABC):
    """Does one chunk after another, and is the actor of Ray Data."""

    @abstractmethod
    def work(self, chunk: Chunk) -> None:
        """Write a chunk's part and statistics."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Do chunks; `problem` is the user's error, which as an exception would bury itself in Ray's own."""
        rows = []
        for row in batch.to_pylist():
            chunk = Chunk(row["id"], tuple(Slice(**piece) for piece in row["slices"]))
            problem = ""
            try:
                self.work(chunk)
            except UserError as error:
                problem = str(error)
            rows.append({"documents": chunk.documents, "problem": problem})
        return pa.Table.from_pylist(rows)


def in_this_process(stage: str, worker: Worker, parts: Parts, chunks: Sequence[Chunk]) -> None:
    """Do the chunks that are not done yet, one after the other."""
    todo = parts.todo(chunks)
    progress = _Progress(stage, chunks)
    progress.begin(todo)
    for chunk in todo:
        worker.work(chunk)
        progress.add(chunk.documents)


def workers_for(num_workers: int | None, chunks: int, wait: float, gpus: bool = False) -> int:
    """How many workers there are to be; there is room for them.

    Args:
        num_workers: how many are asked for; by default one a GPU, where they want one and there is any, else one a CPU.
        chunks: there are no more workers than these.
        wait: seconds to wait until a cluster has room.
        gpus: whether they share the GPUs.

    Raises:
        UserError: there is no room, or the cluster cannot be joined.
    """
    from enpar.capacity import capacity, require

    has = capacity(gpus)
    devices = int(has.gpus) if gpus else 0
    workers = min(num_workers or devices or max(1, int(has.cpus)), chunks)
    share = _share(workers, devices)
    bundle = {"CPU": 1.0, **({"GPU": share} if share else {})}
    require([bundle] * workers, f"num_workers: {workers} workers are {workers} CPUs", wait)
    return workers


def on_ray(
    stage: str,
    worker: type[Worker],
    arguments: Mapping[str, Any],
    parts: Parts,
    chunks: Sequence[Chunk],
    workers: int,
    gpus: bool = False,
) -> None:
    """Do the chunks that are not done yet; where workers or their nodes die, go on with others.

    Args:
        stage: its name, for progress.
        worker: what does chunks, each on a CPU of its own.
        arguments: what a worker is made with.
        parts: where it writes.
        chunks: all of them.
        workers: how many there are to be, of `workers_for`; fewer where the cluster has become smaller.
        gpus: whether they share the GPUs.

    Raises:
        RunError: workers died again and again, and nothing got done between.
    """
    import ray

    from enpar import cluster

    progress, fruitless = _Progress(stage, chunks), 0
    while todo := parts.todo(chunks):
        progress.begin(todo)
        cluster.connect()
        todo = todo[fruitless:] + todo[:fruitless]  # the first may be what workers die of: it keeps nothing else back
        try:
            _pass(worker, arguments, todo, _pool(workers, gpus, len(todo)), progress)
        except ray.exceptions.RayActorError as error:
            fruitless = 0 if len(parts.todo(todo)) < len(todo) else fruitless + 1
            if fruitless == _FRUITLESS:
                reason = str(error).strip().splitlines()[-1].strip()
                raise RunError(f"{stage}: its workers die before they have done anything: {reason}") from error
            log.warning("%s: a worker died; going on with what it left undone", stage)


def _pool(workers: int, gpus: bool, chunks: int) -> dict[str, Any]:
    """The actors that there are to be, with what Ray reserves for each, in the cluster as it is now."""
    import ray

    resources = ray.cluster_resources()
    workers = min(workers, max(1, int(resources.get("CPU", 1))), chunks)
    share = _share(workers, int(resources.get("GPU", 0)) if gpus else 0)
    return {"num_cpus": 1, "compute": ray.data.ActorPoolStrategy(size=workers), "num_gpus": share or None}


def _share(workers: int, gpus: int) -> float:
    """The share of a GPU that each worker has."""
    return 1 / -(-workers // gpus) if gpus else 0.0


def _pass(
    worker: type[Worker],
    arguments: Mapping[str, Any],
    todo: Sequence[Chunk],
    pool: Mapping[str, Any],
    progress: "_Progress",
) -> None:
    import ray
    from ray.util.annotations import RayDeprecationWarning

    # A block for each chunk, so that Ray hands them out one by one; more blocks than this would slow down its driver.
    rows = ray.data.from_items([asdict(chunk) for chunk in todo], override_num_blocks=min(len(todo), 4096))
    with warnings.catch_warnings():
        # Ray's own restarts never end, not even where a document kills every worker that reads it; and Ray 2.60 has no
        # other way to turn them off than this one, which it warns about.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        done = rows.map_batches(
            worker,
            fn_constructor_kwargs=dict(arguments),
            batch_format="pyarrow",
            batch_size=1,
            max_restarts=0,
            **pool,  # for one CPU Ray also sets OMP_NUM_THREADS=1: as many threads as workers, and no more
        )
    for row in done.iter_rows():
        if row["problem"]:
            raise UserError(row["problem"])
        progress.add(row["documents"])


class _Progress:
    """Says how far the run has come, every few seconds."""

    def __init__(self, stage: str, chunks: Sequence[Chunk]) -> None:
        self._stage, self._total = stage, sum(chunk.documents for chunk in chunks)

    def begin(self, todo: Sequence[Chunk]) -> None:
        self._left = sum(chunk.documents for chunk in todo)
        self._first, self._said = (0.0, 0), time.monotonic()
        before = f"; {self._total - self._left:,} of them are done already" if self._left < self._total else ""
        log.info(f"{self._stage}: {self._total:,} documents{before}")

    def add(self, documents: int) -> None:
        now = time.monotonic()
        self._left -= documents
        if not self._first[0]:
            self._first = now, self._left  # speed is counted from here: workers take seconds to start
        if now - self._said >= _SECONDS_BETWEEN_LINES or not self._left:
            self._said = now
            rate = (self._first[1] - self._left) / max(now - self._first[0], 1e-3)
            left = round(self._left / rate) if rate else 0
            speed = f", {rate:.0f}/s, {left // 60}:{left % 60:02d} left" if rate else ""
            log.info(f"{self._stage}: {self._total - self._left:,} of {self._total:,} documents{speed}")
