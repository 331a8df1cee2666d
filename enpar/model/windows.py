"""Sentences as windows that the encoder can read at once, and batches of windows.

A window is a run of consecutive tokens. Tokens of which the tokenizer makes nothing (white space) are passed over: they
carry no tag, no span begins or ends with one, and a span may reach across one. All spans here are therefore counted in
a window's own tokens; `Window.tokens` leads back to the sentence's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from enpar.wordpieces import SPECIALS, Ints, Pieces, split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Marks(NamedTuple):
    """The wordpieces that stand around and behind every sequence."""

    cls: int
    sep: int
    pad: int


@dataclass(frozen=True)
class Window:
    """Tokens of a sentence, with n of them that have wordpieces.

    Args:
        sentence: number of the sentence.
        tokens: index of each token in its sentence. Shape: (n,)
        ids: wordpiece ids without [CLS] and [SEP]. Shape: (wordpieces,)
        starts: where each token's wordpieces begin, and the end of the last. Shape: (n + 1,)
    """

    sentence: int
    tokens: Ints
    ids: Ints
    starts: Ints


def windows_of(
    tokenizer: "PreTrainedTokenizerFast", sentences: Sequence[Sequence[str]], limit: int
) -> Iterator[list[Window]]:
    """The windows of each sentence: one, or several if it has more than `limit` wordpieces, or none if it has none."""
    for number, pieces in enumerate(split(tokenizer, sentences)):
        yield list(cut(pieces, number, limit))


def cut(pieces: Pieces, sentence: int, limit: int) -> Iterator[Window]:
    """Cut a sentence at token boundaries; a token of more than `limit` wordpieces loses those beyond it."""
    counts = np.diff(pieces.starts)
    tokens = np.flatnonzero(counts)
    widths = np.minimum(counts[tokens], limit)
    first = 0
    while first < len(tokens):
        ends = np.cumsum(widths[first : first + limit])
        number = int(np.searchsorted(ends, limit, side="right"))
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends[:number]])
        begin = pieces.starts[tokens[first]]
        # A token that was shortened fills a window alone, so that the wordpieces of each window are consecutive.
        yield Window(sentence, tokens[first : first + number], pieces.ids[begin : begin + starts[-1]], starts)
        first += number


def place(windows: Sequence[Window], spans: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Where spans are in the windows of their sentence.

    Those that reach across windows, and those of no wordpieces, are in none.

    Args:
        windows: all windows of the sentence.
        spans: start and end of each, in the sentence's tokens. Shape: (spans, 2)

    Yields:
        For each window the numbers of the spans in it, and their start and end in its tokens; ordered by these.
    """
    visible = np.concatenate([np.zeros(0, dtype=np.int64), *(window.tokens for window in windows)])
    places = np.searchsorted(visible, spans)
    order = np.lexsort((places[:, 1], places[:, 0]))
    first = 0
    for window in windows:
        last = first + len(window.tokens)
        start, end = places[order].T
        inside = order[(start < end) & (first <= start) & (end <= last)]
        yield inside, places[inside] - first
        first = last


class Batch:
    """Windows side by side, padded to the longest.

    Args:
        windows: the windows.
        marks: wordpiece ids of [CLS], [SEP] and [PAD].
        device: where the tensors are to be.
    """

    def __init__(self, windows: Sequence[Window], marks: Marks, device: torch.device) -> None:
        self.windows = tuple(windows)
        self.device = device
        self.lengths = np.array([len(window.ids) for window in windows], dtype=np.int64)
        self.token_counts = np.array([len(window.tokens) for window in windows], dtype=np.int64)
        self.width = int(self.lengths.max()) + SPECIALS
        ids = np.full((len(windows), self.width), marks.pad, dtype=np.int64)
        ids[:, 0] = marks.cls
        for row, window in zip(ids, windows, strict=True):
            row[1 : len(window.ids) + 1] = window.ids
            row[len(window.ids) + 1] = marks.sep
        self.input_ids = self.tensor(ids)

    @property
    def attention_mask(self) -> Tensor | None:
        """1 for what is read, 0 for padding; None if there is no padding. Shape: (windows, width)."""
        if (self.lengths == self.lengths[0]).all():
            return None
        return self.tensor((np.arange(self.width) < self.lengths[:, None] + SPECIALS).astype(np.int64))

    def tensor(self, values: "Ints | npt.NDArray[np.float32]") -> Tensor:
        """The values on the batch's device."""
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def row(self, window: Ints, wordpiece: Ints) -> Ints:
        """The row of a window's wordpiece in the flattened hidden states; [CLS] stands before the first."""
        return window * self.width + 1 + wordpiece

    @cached_property
    def token_rows(self) -> Ints:
        """The row of each token's first wordpiece, window by window. Shape: (tokens,)."""
        window = np.repeat(np.arange(len(self.windows)), self.token_counts)
        return self.row(window, np.concatenate([window.starts[:-1] for window in self.windows]))

    def pieces(self, spans: Ints) -> Ints:
        """Wordpieces of spans of tokens.

        Args:
            spans: window, start and end of each, in tokens. Shape: (spans, 3)

        Returns:
            Window, start and end of each, in wordpieces. Shape: (spans, 3)
        """
        starts = np.concatenate([window.starts for window in self.windows])
        begins = np.cumsum(self.token_counts + 1) - (self.token_counts + 1)
        begin = begins[spans[:, 0]]
        return np.stack([spans[:, 0], starts[begin + spans[:, 1]], starts[begin + spans[:, 2]]], axis=1)
