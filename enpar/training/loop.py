"""The training step that both stages share: torch only, knowing neither Ray nor the task."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from enpar.errors import RunError
from enpar.training.engine import Engine


class MicroBatch(Protocol):
    """A part of an update that goes through the model at once."""

    def counts(self) -> Mapping[str, float]:
        """Labelled items by objective, or the sum of their weights."""


M = TypeVar("M", bound=MicroBatch)
# The summed loss of each objective, and further sums to report (such as right answers), of one micro-batch.
Losses = tuple[dict[str, Tensor], dict[str, Tensor]]


def train_step(
    engine: Engine,
    step: int,
    micro_batches: Sequence[M],
    losses: Callable[[M], Losses],
    weights: Mapping[str, float],
    seed: int,
    lap: Callable[[str], None] = lambda part: None,
) -> dict[str, float]:
    """Take one update: the weighted sum of the objectives' means over the global number of their items.

    Args:
        engine: what holds the model.
        step: number of the update, from 0.
        micro_batches: this worker's share of the update.
        losses: puts a micro-batch through the model.
        weights: weight of each objective in the loss.
        seed: dropout is drawn from (seed, step, rank), so that a continued run repeats it.
        lap: is told what the time since it was last called went into: `forward`, `backward`, `optimizer`, or
            `exchange`, the adding up of counts and losses over workers (and so the wait for the slowest).

    Returns:
        `loss/OBJECTIVE` (means), `loss/total`, `count/OBJECTIVE`, and each further sum under its own name.

    Raises:
        RunError: the loss is not finite; no update is taken.
    """
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + engine.rank)
    counts = _global_counts(engine, micro_batches, weights)
    lap("exchange")
    sums: dict[str, Tensor] = {}
    for number, micro_batch in enumerate(micro_batches, start=1):
        objective_sums, extra = losses(micro_batch)
        parts = [weights[name] / (counts[name] or 1) * value for name, value in objective_sums.items()]
        loss = torch.stack(parts).sum()
        lap("forward")
        engine.backward(loss, last=number == len(micro_batches))
        lap("backward")
        for name, value in (objective_sums | extra).items():
            sums[name] = sums.get(name, 0) + value.detach()
    totals = _totals(engine, sums)
    metrics = {f"loss/{name}": totals.pop(name) / (counts[name] or 1) for name in weights}
    metrics["loss/total"] = sum(weights[name] * metrics[f"loss/{name}"] for name in weights)
    if not math.isfinite(metrics["loss/total"]):
        engine.discard()
        found = ", ".join(f"{name} {metrics[f'loss/{name}']}" for name in weights)
        raise RunError(f"the loss is not finite at step {step + 1} ({found}); lower the learning rate or use fp32")
    lap("exchange")
    engine.step()
    lap("optimizer")
    return metrics | {f"count/{name}": float(count) for name, count in counts.items()} | totals


def _global_counts(engine: Engine, micro_batches: Sequence[MicroBatch], names: Mapping[str, float]) -> dict[str, float]:
    counted = [micro_batch.counts() for micro_batch in micro_batches]
    mine = torch.tensor([sum(counts[name] for counts in counted) for name in names], device=engine.device)
    return dict(zip(names, engine.total(mine).tolist(), strict=True))


def _totals(engine: Engine, sums: Mapping[str, Tensor]) -> dict[str, float]:
    names = sorted(sums)
    values = torch.stack([sums[name].double() for name in names])
    return dict(zip(names, engine.total(values).tolist(), strict=True))
