"""A run's numbers: a file of them, `metrics.jsonl`, and the lines of progress that tell of it.

The file is the source of truth. Whoever trains, in whatever process, only appends to it; the command's own process
follows it in background threads.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enpar.storage import atomic

log = logging.getLogger("enpar")

_POLL = 0.5  # seconds between two looks at the file
_PATIENCE = 15.0  # seconds that the end of a command waits for a follower
_SECONDS_BETWEEN_LINES = 5.0

Row = dict[str, Any]


# ---- The file -----------------------------------------------------------------------------------------------------


def append_metrics(path: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Add one line, `{"step", "time" (unix seconds), name: value, …}`; it is with the operating system on return.

    A name is `stage/group/name` or `stage/name`, such as `pretrain/loss/met`; a stage that is not the command's own,
    such as `dev`, is an evaluation.
    """
    row = {"step": step, "time": time.time(), **{name: float(value) for name, value in metrics.items()}}
    with path.open("ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")  # a line that a killed process left half-written must not swallow this one
        file.write(json.dumps(row).encode() + b"\n")


def truncate_metrics(path: Path, step: int) -> None:
    """Drop what comes after `step`: a run that continues from there writes it again."""
    if path.exists():
        rows = [row for row in read_metrics(path) if row["step"] <= step]
        with atomic(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_metrics(path: Path) -> list[Row]:
    """All lines, without one that is only half-written; none if there is no file."""
    return Tail(path).read()


def values_of(row: Row) -> dict[str, float]:
    """What was measured."""
    return {name: value for name, value in row.items() if name not in ("step", "time")}


class Tail:
    """Reads a growing file piece by piece, and from its start again once `truncate_metrics` has replaced it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = 0, 0

    def read(self) -> list[Row]:
        """Read the whole lines since the last call."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [row for line in whole.splitlines() if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"step", "time"} <= row.keys() else None


# ---- Following it -------------------------------------------------------------------------------------------------


class Follower(threading.Thread):
    """A daemon: whatever it hangs on, the command can end."""

    def __init__(self, path: Path) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self._path = path
        self._tail = Tail(path)
        self._over = threading.Event()
        self._status = "RUNNING"

    def run(self) -> None:
        """Look again and again, and once more when all is over."""
        over = False
        while not over:
            over = self._over.is_set()  # asked before reading: all that the command wrote is read
            self._look(over)
            self._over.wait(_POLL)

    def end(self, status: str) -> None:
        """Let it do its last look, and wait for that as long as is reasonable."""
        self._status = status
        self._over.set()
        self.join(self._patience())

    def _look(self, over: bool) -> None:
        raise NotImplementedError

    def _patience(self) -> float:
        return _PATIENCE


class Progress(Follower):
    """Says how a run goes: a step every few seconds, the first and the last one, and every evaluation."""

    def __init__(self, path: Path, stage: str, total_steps: int | None) -> None:
        super().__init__(path)
        self._stage, self._total = stage, total_steps
        self._latest = max((row["time"] for row in self._tail.read()), default=0.0)
        self._first: Row | None = None  # of the steps in this process; the time before it is start-up
        self._step = 0
        self._said_at = 0.0
        self._unsaid = ""

    def _look(self, over: bool) -> None:
        # By time and not by step: what a continued run does again is news, what it kept is none.
        for row in self._tail.read():
            if row["time"] > self._latest:
                self._latest = row["time"]
                self._take(row)
        if over and self._unsaid:
            log.info("%s", self._unsaid)

    def _take(self, row: Row) -> None:
        stages = _by_stage(row, self._stage)
        own = stages.pop(self._stage, {})
        if own or not stages:
            self._take_step(row, own, evaluated=bool(stages))
        for stage, measured in stages.items():
            log.info("%s", "  ".join([self._place(row), stage, *_words(_f1s(measured) or measured)]))

    def _take_step(self, row: Row, measured: dict[str, float], evaluated: bool) -> None:
        if self._first is None or row["step"] < self._step:  # or steps are done again, after a lost worker
            self._first, self._said_at = row, 0.0
        self._step = row["step"]
        self._unsaid = "  ".join([self._place(row), *_words(measured), *self._left(row)])
        if evaluated or self._step == self._total or row["time"] - self._said_at >= _SECONDS_BETWEEN_LINES:
            log.info("%s", self._unsaid)
            self._said_at, self._unsaid = row["time"], ""

    def _place(self, row: Row) -> str:
        return f"step {row['step']}" + (f"/{self._total}" if self._total else "")

    def _left(self, row: Row) -> list[str]:
        steps = row["step"] - self._first["step"] if self._first else 0
        if not self._total or not self._first or steps <= 0 or row["step"] >= self._total:
            return []
        seconds = (row["time"] - self._first["time"]) / steps * (self._total - row["step"])
        return [f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"]


def _by_stage(row: Row, own: str) -> dict[str, dict[str, float]]:
    """What was measured by its stage; a name without one is the run's own."""
    stages: dict[str, dict[str, float]] = {}
    for name, value in values_of(row).items():
        stage, _, rest = name.partition("/") if "/" in name else (own, "", name)
        stages.setdefault(stage, {})[rest] = value
    return stages


def _f1s(measured: dict[str, float]) -> dict[str, float]:
    """The F1 of each score, such as `entity/f1`, as one group."""
    return {f"f1/{name.removesuffix('/f1')}": value for name, value in measured.items() if name.endswith("/f1")}


def _words(measured: dict[str, float]) -> list[str]:
    """Single numbers, then groups, then a rate: of several, all of the same steps, the last one is enough."""
    groups: dict[str, dict[str, float]] = {}
    words: list[str] = []
    rates: list[str] = []
    for name, value in measured.items():
        group, _, inner = name.partition("/")
        if inner:
            groups.setdefault(group, {})[inner] = value
        elif name.endswith("_per_second"):
            rates.append(f"{_short(value)} {name.removesuffix('_per_second')}/s")
        elif name != "learning_rate":
            words.append(f"{name} {_short(value)}")
    return [*words, *(_group(name, values) for name, values in groups.items()), *rates[-1:]]


def _group(name: str, values: dict[str, float]) -> str:
    parts = "  ".join(f"{inner} {_short(value)}" for inner, value in values.items() if inner != "total")
    if "total" not in values:
        return f"{name} {parts}"
    return f"{name} {_short(values['total'])}" + (f" ({parts})" if parts else "")


def _short(value: float) -> str:
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e9 else f"{value:.3g}"
