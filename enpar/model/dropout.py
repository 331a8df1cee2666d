"""Dropout that costs a CPU a third of torch's.

torch draws a number for each element, one after the other: with dropout 0.1 that is a sixth of the time of a small
encoder's update. Here 64 random bits serve four elements.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_STEPS = 1 << 16


def dropout(values: Tensor, p: float, training: bool) -> Tensor:
    """As `torch.nn.functional.dropout`, `p` to the nearest 1/65,536 where `values` are on a CPU. Shape: unchanged."""
    dropped = round(p * _STEPS)
    if not training or not dropped or values.device.type != "cpu":
        return functional.dropout(values, p, training)
    words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.int16)[: values.numel()].view(values.shape)
    return (values * (drawn >= dropped - _STEPS // 2)).mul_(_STEPS / (_STEPS - dropped))


class Dropout(nn.Dropout):
    """`dropout` as a module."""

    def forward(self, values: Tensor) -> Tensor:
        """Shape: unchanged."""
        return dropout(values, self.p, self.training)


def replace_dropout(module: nn.Module) -> None:
    """Put `Dropout` in the place of torch's in all parts of a module."""
    for part in module.modules():
        for name, child in part.named_children():
            if type(child) is nn.Dropout:
                setattr(part, name, Dropout(child.p))


def register_attention() -> str:
    """Make `attention` known to transformers; the name that asks for it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register("enpar", attention)
    AttentionMaskInterface.register("enpar", eager_mask)
    return "enpar"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: object,
) -> tuple[Tensor, Tensor]:
    """Plain attention with this dropout, in the form that `transformers.AttentionInterface` registers.

    Shape: (batch, heads, length, width) each → (batch, length, heads, width), (batch, heads, length, length).
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = _dropout(functional.softmax(scores, dim=-1), dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


_dropout = dropout  # `attention` has an argument of that name
