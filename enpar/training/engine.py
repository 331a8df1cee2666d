"""What takes a training step: plain torch in one process, or DeepSpeed in several."""

import copyreg
import logging
import os
from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from enpar.errors import UserError


class Engine(Protocol):
    """Takes updates of one or more micro-batches on each of `world` workers.

    The losses that are handed to `backward` add up, over micro-batches and workers, to the update's loss: means are
    taken over the global number of instances before, so an engine averages nothing.
    """

    module: nn.Module
    rank: int
    world: int
    device: torch.device

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of one micro-batch's share of the update's loss; `last` of this worker's in the update."""

    def step(self) -> None:
        """Clip, update the weights, and move the learning rates on."""

    def discard(self) -> None:
        """Forget the gradients of an update that is not to be taken."""

    def total(self, values: Tensor) -> Tensor:
        """The sum of a vector over all workers."""

    def save(self, folder: Path) -> None:
        """Write this worker's share of what a continued run needs."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""


class TorchEngine:
    """One process, plain torch."""

    rank, world = 0, 1

    def __init__(self, module: nn.Module, optimizer: Optimizer, schedule: LambdaLR, clip: float) -> None:
        self.module = module
        self.device = next(module.parameters()).device
        self._optimizer, self._schedule, self._clip = optimizer, schedule, clip
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Engine`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """See `Engine`."""
        clip_grad_norm_(self._parameters, self._clip, foreach=True)
        self._optimizer.step()
        self._schedule.step()
        self.discard()

    def discard(self) -> None:
        """See `Engine`."""
        self._optimizer.zero_grad()

    def total(self, values: Tensor) -> Tensor:
        """See `Engine`."""
        return values

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        raise NotImplementedError("runs in one plain process are short; they begin anew")

    def load(self, folder: Path) -> None:
        """See `Engine`."""
        raise NotImplementedError("runs in one plain process are short; they begin anew")


class DeepSpeedEngine:
    """One of several processes under DeepSpeed; torch.distributed is up already."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        schedule: LambdaLR,
        clip: float,
        deepspeed_settings: int | Mapping[str, Any],
    ) -> None:
        deepspeed = _import_deepspeed()
        settings = deepspeed_config(clip, deepspeed_settings)
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, lr_scheduler=schedule, config=settings, dist_init_required=False
        )
        self.module = module
        self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = torch.device(self._engine.device)

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Engine`."""
        # Updates differ in their number of micro-batches, so DeepSpeed is told which is the last and counts none.
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.world)  # DeepSpeed averages over workers; a sum is meant

    def step(self) -> None:
        """See `Engine`."""
        self._engine.step()

    def discard(self) -> None:
        """See `Engine`."""
        self._engine.zero_grad()

    def total(self, values: Tensor) -> Tensor:
        """See `Engine`."""
        torch.distributed.all_reduce(values)
        return values

    def save(self, folder: Path) -> None:
        """See `Engine`."""
        from deepspeed.runtime.zero.config import ZeroStageEnum

        # Before Python 3.11.4 an enum is pickled as a call of getattr, which `load` rightly refuses.
        copyreg.pickle(ZeroStageEnum, _by_value)
        self._engine.save_checkpoint(str(folder), tag="state")

    def load(self, folder: Path) -> None:
        """See `Engine`.

        Raises:
            UserError: the state was written by another number of workers.
        """
        workers = len(list((folder / "state").glob("*optim_states.pt")))
        if workers and workers != self.world:
            raise UserError(f"scaling.num_workers: the run was begun with {workers} workers, not {self.world}")
        # DeepSpeed would unpickle whatever the file holds; only tensors and these three of its own are let in.
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        self._engine.checkpoint_engine.load = partial(torch.load, weights_only=True)
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            self._engine.load_checkpoint(str(folder), tag="state")


def deepspeed_config(clip: float, settings: int | Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeed's configuration: ours for a ZeRO stage, with the user's mapping laid over it."""
    stage = settings if isinstance(settings, int) else 1
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only multiplies with it; micro-batches are ours
        "gradient_accumulation_steps": 1,  # see DeepSpeedEngine.backward
        "gradient_clipping": clip,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    return ours if isinstance(settings, int) else {**ours, **settings}


def _by_value(member: Enum) -> tuple[type[Enum], tuple[Any]]:
    return type(member), (member.value,)


def _import_deepspeed() -> Any:  # noqa: ANN401 - the module is untyped
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.getLogger("enpar").getEffectiveLevel() + 10)
    import deepspeed

    # Compiled at first use (45 s) for nothing that is needed here; the name is semi-private, so its loss is borne.
    operators = getattr(deepspeed.ops, "__compatible_ops__", {})
    if not torch.cuda.is_available() and "deepspeed_shm_comm" in operators:
        operators["deepspeed_shm_comm"] = False
    return deepspeed
