"""AdamW with groups of its own for rates and weight decay, and the warm-up and decay of its learning rates."""

from collections.abc import Iterable, Mapping

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from enpar.config import Training


def build_optimizer(rates: Mapping[float, Iterable[nn.Parameter]], settings: Training) -> AdamW:
    """AdamW over parameters by peak learning rate.

    Weight decay spares biases and LayerNorm, that is, every parameter of fewer than two dimensions. Frozen
    parameters are left out.
    """
    groups = []
    for rate, parameters in rates.items():
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for decay, members in (
            (settings.weight_decay, [parameter for parameter in trained if parameter.ndim > 1]),
            (0.0, [parameter for parameter in trained if parameter.ndim <= 1]),
        ):
            if members:
                groups.append({"params": members, "lr": rate, "weight_decay": decay})
    return AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


def build_schedule(optimizer: Optimizer, warmup: float, steps: int) -> LambdaLR:
    """Each group's learning rate rises linearly over the first `warmup` of the steps, then falls linearly to 0."""
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        return min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising + 1)))

    return LambdaLR(optimizer, factor)
