"""What is known of a trial: its record, `trial.json` in its folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from enpar.storage import atomic
from enpar.sweep.plan import Trial

FILE = "trial.json"
State = Literal["running", "stopped", "failed", "done"]


@dataclass
class Record:
    """How a trial went.

    Args:
        name: of its folder.
        number: its place in the plan, or in the order in which trials began; from 1.
        drawn: its setting as the search knows it.
        settings: its setting by dotted keys.
        pretrained: the folders of its pre-trainings.
        state: running (or broken off), stopped by the scheduler, failed, or done.
        reason: why it failed.
        reports: (evaluations so far, best score so far) of its first seed.
        runs: what each seed came to: seed, score, metrics and output.
        seconds: how long it took since it was begun or continued.
    """

    name: str
    number: int
    drawn: dict[str, Any]
    settings: dict[str, Any]
    pretrained: list[str]
    state: State = "running"
    reason: str | None = None
    reports: list[tuple[int, float]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state != "running"

    @property
    def score(self) -> float | None:
        """The mean over the seeds; of a trial that did not get to its end the last that was heard."""
        if self.runs:
            return float(mean(run["score"] for run in self.runs))
        return self.reports[-1][1] if self.reports else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds, if there are several."""
        return float(stdev(run["score"] for run in self.runs)) if len(self.runs) > 1 else None

    def metrics(self) -> dict[str, float]:
        """The means over the seeds of all that was measured."""
        names = self.runs[0]["metrics"] if self.runs else {}
        return {name: mean(run["metrics"][name] for run in self.runs) for name in names}


def new_record(trial: Trial, number: int) -> Record:
    """The record of a trial that is about to begin."""
    pretrained = dict.fromkeys(str(run.pretrain.output) for run in trial.runs if run.pretrain)
    return Record(trial.name, number, trial.drawn, trial.settings, list(pretrained))


def write_record(folder: Path, record: Record) -> None:
    """Put the record into the trial's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / FILE) as temporary:
        temporary.write_text(json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """The record of a trial's folder, if there is one."""
    try:
        return Record(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def read_records(trials: Path) -> list[Record]:
    """Those of all trials, by their numbers."""
    found = [read_record(path.parent) for path in trials.glob(f"*/{FILE}")]
    return sorted((record for record in found if record), key=lambda record: record.number)
