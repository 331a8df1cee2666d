"""Views for a training worker, made ahead of it by Ray Data's CPU workers."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from enpar.objectives.views import ViewBatch, ViewMaker, from_columns, to_columns
from enpar.training.plan import Plan

STEPS_A_BLOCK = 8


class _Making:
    """Makes the micro-batches of one training worker's share of some updates."""

    def __init__(
        self, source: "ray.ObjectRef[tuple[ViewMaker, Plan]]", rank: int, world: int, accumulation: int
    ) -> None:
        self._maker, self._plan = ray.get(source)
        self._place = rank, world, accumulation

    def __call__(self, steps: pa.Table) -> pa.Table:
        rows = []
        for step in steps["step"].to_pylist():
            epoch, pieces = self._plan.pieces(step, *self._place)
            for number, sentences in enumerate(pieces):
                columns = to_columns(self._maker.make(sentences, epoch))
                rows.append(
                    {"step": step, "piece": number} | {name: array.astype(np.int32) for name, array in columns.items()}
                )
        return pa.table({name: _column([row[name] for row in rows]) for name in rows[0]})


def _column(values: Sequence[int | np.ndarray[tuple[int, ...], np.dtype[np.int32]]]) -> pa.Array:
    if isinstance(values[0], int):
        return pa.array(values, pa.int64())
    return pa.array(values, pa.list_(pa.int32()))


def updates(
    source: "ray.ObjectRef[tuple[ViewMaker, Plan]]",
    steps: Sequence[int],
    rank: int,
    world: int,
    accumulation: int,
    cpus: float,
) -> Iterator[list[ViewBatch]]:
    """The micro-batches of one worker's share of each of these updates, in order.

    Args:
        source: a maker of views and a plan, in Ray's object store.
        steps: the updates, in order.
        rank, world, accumulation: which share.
        cpus: what Ray reserves for making them.
    """
    if not steps:
        return
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = -(-len(steps) // STEPS_A_BLOCK)
    made = ray.data.from_items([{"step": step} for step in steps], override_num_blocks=blocks).map_batches(
        _Making,
        fn_constructor_args=(source, rank, world, accumulation),
        batch_format="pyarrow",
        batch_size=None,
        compute=ActorPoolStrategy(size=1),
        num_cpus=cpus,
    )
    micro_batches: list[ViewBatch] = []
    for table in made.iter_batches(batch_size=accumulation, batch_format="pyarrow", prefetch_batches=4):
        for row in table.to_batches():
            for i in range(row.num_rows):
                columns = {name: row[name][i].values.to_numpy().astype(np.int64) for name in row.schema.names[2:]}
                micro_batches.append(from_columns(columns))
                if len(micro_batches) == accumulation:
                    yield micro_batches
                    micro_batches = []
