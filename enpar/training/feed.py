"""Views for a training worker, made ahead of it by Ray Data's CPU workers."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from enpar.config import Scaling
from enpar.objectives.views import ViewBatch, ViewMaker, from_columns, to_columns
from enpar.training.plan import Plan

STEPS_A_BLOCK = 8


class _Making:
    """Makes the micro-batches of one training worker's share of some updates."""

    def __init__(self, source: "ray.ObjectRef[tuple[ViewMaker, Plan]]", rank: int, world: int) -> None:
        self._maker, self._plan = ray.get(source)
        self._rank, self._world = rank, world

    def __call__(self, steps: pa.Table) -> pa.Table:
        rows = []
        for step in steps["step"].to_pylist():
            epoch, pieces = self._plan.pieces(step, self._rank, self._world)
            for left, sentences in zip(reversed(range(len(pieces))), pieces, strict=True):
                columns = to_columns(self._maker.make(sentences, epoch))
                rows.append({"left": left} | {name: array.astype(np.int32) for name, array in columns.items()})
        return pa.table({name: _column([row[name] for row in rows]) for name in rows[0]})


def _column(values: Sequence[int | np.ndarray[tuple[int, ...], np.dtype[np.int32]]]) -> pa.Array:
    if isinstance(values[0], int):
        return pa.array(values, pa.int64())
    return pa.array(values, pa.list_(pa.int32()))


def updates(
    source: "ray.ObjectRef[tuple[ViewMaker, Plan]]", steps: Sequence[int], rank: int, world: int, scaling: Scaling
) -> Iterator[list[ViewBatch]]:
    """The micro-batches of one worker's share of each of these updates, in order.

    Args:
        source: a maker of views and a plan, in Ray's object store.
        steps: the updates, in order.
        rank, world: which share.
        scaling: how many workers make them, and what Ray reserves for each.
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
        fn_constructor_args=(source, rank, world),
        batch_format="pyarrow",
        batch_size=None,
        compute=ActorPoolStrategy(size=scaling.view_workers),
        num_cpus=scaling.cpus_for_views,
    )
    micro_batches: list[ViewBatch] = []
    for table in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2):
        for row in table.to_batches():
            for i in range(row.num_rows):
                columns = {name: row[name][i].values.to_numpy().astype(np.int64) for name in row.schema.names[1:]}
                micro_batches.append(from_columns(columns))
                if not row["left"][i].as_py():  # of this update's
                    yield micro_batches
                    micro_batches = []
