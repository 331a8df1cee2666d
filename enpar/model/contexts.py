"""The contexts of many pairs, encoded together.

The contexts of a sentence's pairs cover the same wordpieces over and over: n entities have n²/2 pairs. `SpanEncoder`
convolves each span for itself. Here what a kernel's positions ("taps") make of each wordpiece is computed once, and
each window of a convolution is a sum of taps:

- windows that lie in a span are the same for all spans, and the maximum over a range of them is looked up in a table
  of maxima over 1, 2, 4, 8 … windows;
- windows that reach across a span's start (or its end) into the zeros before (behind) it are the same for all spans
  that start (end) there;
- spans shorter than the kernel are summed for themselves.
"""

import torch
from torch import Tensor
from torch.nn import functional

from enpar.model.encoders import SpanEncoder, Spans


class SharedContexts:
    """Encodes spans of the same hidden states as `encoder` does, for prediction.

    Args:
        encoder: the encoder of the contexts.
        states: hidden states of all wordpieces of a batch. Shape: (rows, hidden)
        longest: wordpieces of the longest span.
    """

    def __init__(self, encoder: SpanEncoder, states: Tensor, longest: int) -> None:
        self._encoder = encoder
        weight = encoder.weight()
        filters, hidden, self._kernel = weight.shape
        taps = functional.linear(states, weight.permute(2, 0, 1).reshape(-1, hidden))
        self._taps = taps.view(-1, self._kernel, filters)
        self._maxima = self._table(longest)

    def __call__(self, spans: Spans) -> Tensor:
        """Encode spans. Shape: (spans,) → (spans, width)."""
        pooled = self._maxima.new_zeros((len(spans.starts), self._taps.shape[2]))
        long = spans.lengths >= self._kernel - 1
        pooled[long] = self._long(spans.starts[long], spans.lengths[long])
        pooled[~long] = self._short(spans.starts[~long], spans.lengths[~long])
        return self._encoder.finish(pooled.clamp(min=0))  # there is always a window of zeros

    def _table(self, longest: int) -> Tensor:
        """The maximum over 2^i windows from each row on, at [i, row]. Shape: (levels, windows, filters)."""
        windows = max(len(self._taps) - self._kernel + 1, 0)
        levels = max(longest - self._kernel + 1, 1).bit_length()
        table = self._taps.new_zeros((levels, windows, self._taps.shape[2]), dtype=torch.float32)
        for tap in range(self._kernel):
            table[0] += self._taps[tap : tap + windows, tap]
        for level in range(1, levels):
            before, half = table[level - 1], 1 << (level - 1)
            torch.maximum(before[:-half], before[half:], out=table[level, :-half])
        return table

    def _long(self, starts: Tensor, lengths: Tensor) -> Tensor:
        edges = torch.maximum(self._heads(starts), self._tails(starts + lengths))
        windows = lengths - self._kernel + 1
        some = windows > 0
        first, count = starts[some], windows[some]
        level = (count.float().log2() + 1e-6).long()
        inner = torch.maximum(self._maxima[level, first], self._maxima[level, first + count - (1 << level)])
        edges[some] = torch.maximum(edges[some], inner)
        return edges

    def _heads(self, starts: Tensor) -> Tensor:
        """The maximum over the windows that begin before a span and reach into it."""
        distinct, which = torch.unique(starts, return_inverse=True)
        return _diagonals(self._block(distinct), 1, self._kernel)[which]

    def _tails(self, ends: Tensor) -> Tensor:
        """The maximum over the windows that begin in a span and reach beyond it."""
        distinct, which = torch.unique(ends, return_inverse=True)
        return _diagonals(self._block(distinct - self._kernel + 1), 2 - self._kernel, 1)[which]

    def _short(self, starts: Tensor, lengths: Tensor) -> Tensor:
        inside = torch.arange(self._kernel - 1, device=starts.device) < lengths.unsqueeze(1)
        block = self._block(starts) * inside[:, :, None, None]
        return _diagonals(block, 2 - self._kernel, self._kernel)

    def _block(self, starts: Tensor) -> Tensor:
        """The taps of as many rows as a kernel has, but one. Shape: (starts, kernel - 1, kernel, filters)."""
        rows = starts.unsqueeze(1) + torch.arange(self._kernel - 1, device=starts.device)
        return self._taps[rows.clamp(max=len(self._taps) - 1)].float()


def _diagonals(block: Tensor, first: int, end: int) -> Tensor:
    """The maximum over windows: the tap j of the window of offset o is at row j - o. Shape: (spans, filters)."""
    sums = [block.diagonal(offset, 1, 2).sum(-1) for offset in range(first, end)]
    return torch.stack(sums).amax(0)
