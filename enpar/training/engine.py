"""What takes a training step: plain torch in one process, or DeepSpeed in several."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from enpar.errors import UserError

_OPTIMIZER = "optimizer.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter, beside how often it was stepped


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
        """Write what a continued run needs beside the weights: every worker calls it, the first one writes."""

    def load(self, folder: Path) -> int:
        """Read what any number of workers wrote; the weights are there already. Returns the updates taken so far."""


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

    def load(self, folder: Path) -> int:
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
        self._optimizer, self._schedule = optimizer, schedule
        self._begin_moments()
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
        # DeepSpeed's own checkpoints are pickles, and shards that only as many workers can read.
        state: dict[str, Tensor] = {}
        for name, parameter in self._trained():
            for moment in _MOMENTS:
                whole = self._whole(parameter, moment)
                if self.rank == 0:
                    state[f"{moment}.{name}"] = whole.cpu().contiguous()
        if self.rank == 0:
            schedule = json.dumps(self._schedule.state_dict())
            save_file(state, folder / _OPTIMIZER, metadata={"schedule": schedule})

    def load(self, folder: Path) -> int:
        """See `Engine`.

        Raises:
            UserError: there is no such state, or one of other parameters.
        """
        path = folder / _OPTIMIZER
        try:
            with safe_open(path, framework="pt") as state:
                updates = self._restore_schedule(json.loads(state.metadata()["schedule"]))
                for name, parameter in self._trained():
                    for moment in _MOMENTS:
                        self._set(parameter, moment, state.get_tensor(f"{moment}.{name}"))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: no state to go on from: {error}; overwrite=true begins anew") from None
        return updates

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.module.named_parameters() if parameter.requires_grad)

    def _whole(self, parameter: nn.Parameter, moment: str) -> Tensor:
        """A parameter's moment, put together from the workers' shares where ZeRO has divided it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        whole: Tensor | None = safe_get_full_optimizer_state(parameter, moment)
        return self._optimizer.state[parameter][moment] if whole is None else whole

    def _set(self, parameter: nn.Parameter, moment: str, whole: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        if parameter in self._optimizer.state:
            self._optimizer.state[parameter][moment].copy_(whole)
        else:  # ZeRO: the optimizer has this worker's share of all parameters in place of them
            safe_set_full_optimizer_state(parameter, whole, moment)

    def _begin_moments(self) -> None:
        """Give the optimizer the state that it would make at its first step.

        With ZeRO, DeepSpeed finds each parameter's share in it only once the two are linked. It would link them
        itself, but after the first step of the first group of parameters, when the others have no state yet.
        """
        for group in self._optimizer.param_groups:
            for share in group["params"]:
                moments = {moment: torch.zeros_like(share) for moment in _MOMENTS}
                self._optimizer.state[share] = {"step": torch.zeros((), device=share.device), **moments}
        link = getattr(self._engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
        if link is not None:
            link()

    def _restore_schedule(self, state: dict[str, Any]) -> int:
        """Returns how often the schedule, and so every share of the optimizer, has been stepped."""
        self._schedule.load_state_dict(state)
        updates = int(self._schedule.last_epoch)
        for group, rate in zip(self._optimizer.param_groups, self._schedule.get_last_lr(), strict=True):
            group["lr"] = rate
            for share in group["params"]:
                self._optimizer.state[share]["step"].fill_(updates)
        return updates


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
