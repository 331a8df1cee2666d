"""How fast pre-training's updates go, and where their time goes."""

import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from enpar.model.device import device_name, peak_flops, peak_memory
from enpar.objectives.views import ViewBatch
from enpar.training.engine import Engine
from enpar.wordpieces import SPECIALS, Ints

PARTS = ("input", "forward", "backward", "optimizer", "exchange", "other")
_RESOLVE = 4096  # laps that are kept before they are added up, for which a GPU is waited for


class EncoderFlops:
    """The floating-point operations of training an encoder.

    6 for each wordpiece and parameter outside of the embeddings (Kaplan et al. 2020, section 2.1), and for the
    attention, forward and backward, 12 × layers × width × length for each wordpiece of a sequence of that length.
    """

    def __init__(self, encoder: nn.Module) -> None:
        config = encoder.config
        self._parameters = sum(p.numel() for name, p in encoder.named_parameters() if "embeddings." not in name)
        self._attention = 12 * config.num_hidden_layers * config.hidden_size  # type: ignore[union-attr,operator]

    def of(self, lengths: Ints) -> float:
        """For sequences of these lengths, [CLS] and [SEP] counted. Shape: (sequences,)."""
        return float(6 * self._parameters * lengths.sum() + self._attention * np.square(lengths).sum())


class Meter:
    """Measures one worker's updates; the first ones, in which all still warms up, are not counted.

    Args:
        device: what the worker computes on.
        flops: of the encoder that is trained.
        warm: updates that are not counted.
    """

    def __init__(self, device: torch.device, flops: EncoderFlops, warm: int) -> None:
        self._device, self._flops, self._warm = device, flops, warm
        self._laps: list[tuple[str, Any]] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._counts = np.zeros(5)  # instances, views, wordpieces, wordpieces with padding, FLOP
        self._began = time.perf_counter()
        self.lap("")

    def lap(self, part: str) -> None:
        """The time since the last lap went into this part; an empty one is not counted."""
        if self._device.type == "cuda":  # work is only queued: the GPU keeps the time
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._laps.append((part, event))
        else:
            self._laps.append((part, time.perf_counter()))
        if len(self._laps) >= _RESOLVE:
            self._resolve()

    def took(self, batches: list[ViewBatch], world: int) -> dict[str, float]:
        """An update has been taken by each of `world` workers; its rates, taking the others' share as large as ours."""
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        counts = sum((self._count(batch) for batch in batches), np.zeros(5))
        if self._warm:
            self._warm -= 1
            self._laps = self._laps[-1:]
        else:
            self._counts += counts
        names = ("pretrain/instances_per_second", "pretrain/views_per_second")
        return {name: world * value / seconds for name, value in zip(names, counts, strict=False)}

    def paused(self) -> None:
        """What came since the last lap, such as an evaluation, is no part of an update."""
        self._began = time.perf_counter()
        self.lap("")

    def result(self, engine: Engine) -> dict[str, Any]:
        """The rates of all workers together, shares of the first one's time, and the largest worker's memory."""
        self._resolve()
        memory = torch.zeros(engine.world, dtype=torch.float64)
        memory[engine.rank] = peak_memory(self._device)
        exact = torch.cat([torch.from_numpy(self._counts), memory])
        instances, views, wordpieces, cells, flops, *peaks = _total(engine, exact)
        seconds = sum(self._seconds[part] for part in PARTS)
        known = peak_flops(self._device)

        def rate(count: float, digits: int = 1) -> float | None:
            return round(count / seconds, digits) if seconds else None

        return {
            "instances_per_second": rate(instances),
            "sequences_per_second": rate(views),
            "tokens_per_second": rate(wordpieces),
            "padding_fraction": round(1 - wordpieces / cells, 4) if cells else None,
            "time": {part: rate(self._seconds[part], 4) for part in PARTS},
            "flops_per_second": rate(flops, 0),
            "peak_fraction": round(flops / seconds / known / engine.world, 4) if known and seconds else None,
            "peak_memory_bytes": int(max(peaks)),
            "device": device_name(self._device),
        }

    def _count(self, batch: ViewBatch) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
        lengths = batch.lengths + SPECIALS
        cells = len(lengths) * int(lengths.max(initial=0))
        return np.array([batch.instances(), len(lengths), lengths.sum(), cells, self._flops.of(lengths)], np.float64)

    def _resolve(self) -> None:
        """Turn laps into seconds; the last one stays, as the next begins there."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        for (_, before), (part, after) in zip(self._laps, self._laps[1:], strict=False):
            self._seconds[part] += before.elapsed_time(after) / 1e3 if self._device.type == "cuda" else after - before
        self._laps = self._laps[-1:]


def _total(engine: Engine, values: Tensor) -> list[float]:
    totals: list[float] = engine.total(values.to(engine.device)).tolist()
    return totals
