"""The entity encoder and the entity pair encoder on top of a BERT-like sentence encoder (section 2.1 of the paper)."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from enpar.model.dropout import Dropout

FILTERS = 100
ENTITY_KERNELS, ENTITY_WIDTH = (2, 3, 4), 192
CONTEXT_KERNELS, CONTEXT_WIDTH = (3, 4, 5), 128
PAIR_WIDTH = 256


class Spans(NamedTuple):
    """Spans of wordpieces, as rows of a batch's flattened hidden states.

    Args:
        starts: first row of each span. Shape: (spans,)
        lengths: rows of each span; 0 for an empty one. Shape: (spans,)
    """

    starts: Tensor
    lengths: Tensor


class Mlp(nn.Sequential):
    """Linear → gelu → LayerNorm → dropout. Shape: (…, inputs) → (…, outputs)."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.GELU(), nn.LayerNorm(outputs), Dropout(dropout))


class SpanEncoder(nn.Module):
    """A convolution over each span, a maximum over its positions, gelu, and an MLP.

    A span is padded with zeros to the width of the kernel on both sides, so a span shorter than a kernel and an
    empty one need no special care: an empty context is a convolution over zeros.
    """

    def __init__(self, hidden: int, kernels: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv1d(hidden, FILTERS, kernel) for kernel in kernels])
        self.mlp = Mlp(FILTERS * len(kernels), width, dropout)
        self._width = width
        self._widest = max(kernels)

    def forward(self, states: Tensor, spans: Spans) -> Tensor:
        """Encode spans.

        Args:
            states: hidden states of all wordpieces of the batch. Shape: (rows, hidden)
            spans: rows of each span.

        Returns:
            Shape: (spans, width)
        """
        if not len(spans.starts):
            return states.new_zeros((0, self._width))
        features = self._convolve(self._pack(states, spans))
        windows = spans.lengths + self._widest
        return self.finish(torch.segment_reduce(features.float(), "max", lengths=windows, unsafe=True))

    def weight(self) -> Tensor:
        """All kernels as one, the shorter ones filled with zeros. Shape: (filters, hidden, widest)."""
        convolutions = [cast(nn.Conv1d, module) for module in self.convolutions]
        return torch.cat(
            [functional.pad(conv.weight, (0, self._widest - conv.weight.shape[2])) for conv in convolutions]
        )

    def finish(self, pooled: Tensor) -> Tensor:
        """From the maxima over each span's windows to its representation. Shape: (spans, filters) → (spans, width)."""
        # The bias is added behind the maximum: windows of zeros tie, and segment_reduce divides only positive
        # gradients by the number of ties.
        bias = torch.cat([cast(Tensor, cast(nn.Conv1d, module).bias) for module in self.convolutions])
        encoded: Tensor = self.mlp(functional.gelu(pooled + bias))
        return encoded

    def _pack(self, states: Tensor, spans: Spans) -> Tensor:
        """The spans' states in one row, zeros between them.

        Each span is followed, and the first preceded, by zeros, so that no window sees two spans. With w the widest
        kernel, the windows that begin at the w - 1 zeros before a span, in it, or just behind it are the span's.
        """
        gap = self._widest
        ends = torch.cumsum(spans.lengths + gap, 0)
        total = int(ends[-1])
        rows = torch.arange(total, device=states.device)
        span = torch.repeat_interleave(spans.lengths + gap, output_size=total)
        offset = rows - (ends - spans.lengths - gap)[span]
        inside = offset < spans.lengths[span]
        source = torch.where(inside, spans.starts[span] + offset, 0)
        packed = states.index_select(0, source) * inside.unsqueeze(1)
        return functional.pad(packed, (0, 0, gap - 1, 0))

    def _convolve(self, packed: Tensor) -> Tensor:
        """Shape: (rows, hidden) → (windows, filters)."""
        # The last window begins at the last span's first zero, so that each span has `length + gap` windows.
        return functional.conv1d(packed.t().unsqueeze(0), self.weight())[0].t()


class EntityEncoder(SpanEncoder):
    """Contextual representations of entities. Shape: (spans,) of (rows, hidden) → (spans, 192)."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__(hidden, ENTITY_KERNELS, ENTITY_WIDTH, dropout)


class PairEncoder(nn.Module):
    """Contextual representations of entity pairs, from both entities and the three contexts around them."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.context = SpanEncoder(hidden, CONTEXT_KERNELS, CONTEXT_WIDTH, dropout)
        self.mlp = Mlp(2 * ENTITY_WIDTH + 3 * CONTEXT_WIDTH, PAIR_WIDTH, dropout)

    def forward(self, states: Tensor, first: Tensor, second: Tensor, contexts: Spans) -> Tensor:
        """Encode pairs.

        Args:
            states: hidden states of all wordpieces of the batch. Shape: (rows, hidden)
            first: representation of the entity that comes first in the text. Shape: (pairs, 192)
            second: representation of the other. Shape: (pairs, 192)
            contexts: left, middle and right context of each pair, one after the other. Shape: (3 * pairs,)

        Returns:
            Shape: (pairs, 256)
        """
        left, middle, right = self.context(states, contexts).view(-1, 3, CONTEXT_WIDTH).unbind(1)
        encoded: Tensor = self.mlp(torch.cat([left, first, middle, second, right], dim=1))
        return encoded


def pair_contexts(begins: Tensor, lengths: Tensor, spans: Tensor) -> Spans:
    """The left, middle and right contexts of pairs.

    Args:
        begins: row of the first wordpiece of each pair's sequence. Shape: (pairs,)
        lengths: wordpieces of each pair's sequence. Shape: (pairs,)
        spans: start and end of the first entity, start and end of the second. Shape: (pairs, 4)

    Returns:
        Shape: (3 * pairs,)
    """
    s1, e1, s2, e2 = spans.unbind(1)
    starts = torch.stack([begins, begins + e1, begins + e2], dim=1)
    widths = torch.stack([s1, s2 - e1, lengths - e2], dim=1)
    return Spans(starts.reshape(-1), widths.reshape(-1))
