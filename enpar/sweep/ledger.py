"""The sweep as a whole: the record of every trial, lines of progress, and which weights are kept."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from enpar.metrics import append_metrics
from enpar.output import Output
from enpar.pretrained import WEIGHTS
from enpar.sweep.plan import Trial
from enpar.sweep.records import Record, new_record, read_records, write_record
from enpar.sweep.runs import Runs
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import describe

log = logging.getLogger("enpar")
_SECONDS_BETWEEN_LINES = 60.0


class Ledger:
    """What is known of all trials, in the folder and in memory; only the command's own process has one.

    Args:
        job: the sweep.
        output: its folder.
        total: trials there will be.
        at_once: trials that run at the same time.
        runs: the trials in MLflow.
    """

    def __init__(self, job: TuneJob, output: Output, total: int, at_once: int, runs: Runs) -> None:
        self._job, self._output, self._total, self._at_once, self._runs = job, output, total, at_once, runs
        found = read_records(output.path / "trials")
        self.records = {record.name: record for record in found}
        self._running: dict[str, list[float]] = {}  # since when; more than once what was drawn again meanwhile
        self._said_at = time.monotonic()
        if any(record.over for record in found):
            log.info("%d of %d trials were over already", sum(record.over for record in found), total)

    def begin(self, trial: Trial, number: int | None) -> None:
        """A trial starts, for the first time or again; where the settings have no order it gets the next number."""
        self._running.setdefault(trial.name, []).append(time.monotonic())
        if trial.name not in self.records:
            following = max((record.number for record in self.records.values()), default=0) + 1
            self.records[trial.name] = new_record(trial, number or following)
        if not (record := self.records[trial.name]).over:
            self._runs.begin(trial, record)
            write_record(trial.folder, record)

    def heard(self, trial: Trial, evaluations: int, score: float) -> None:
        """A running trial was evaluated."""
        record = self.records[trial.name]
        if not record.over and evaluations > len(record.reports):
            record.reports.append((evaluations, score))
            self._runs.heard(trial, record)

    def end(self, trial: Trial, outcome: Record | None, reason: str | None = None) -> None:
        """A trial is over; nothing is new of one that was over before this process began.

        Args:
            trial: which.
            outcome: what the trial itself says; None if it was stopped from outside.
            reason: why it failed without a word.
        """
        record, since = self.records[trial.name], self._running[trial.name].pop(0)
        if not self._running[trial.name]:
            del self._running[trial.name]
        if record.over:
            return
        record.seconds = round(time.monotonic() - since, 1)
        if outcome:
            record.state, record.reason, record.runs = outcome.state, outcome.reason, outcome.runs
            record.reports = outcome.reports
        else:
            record.state, record.reason = ("failed", reason) if reason else ("stopped", None)
        self._runs.end(trial, record)
        write_record(trial.folder, record)
        scores = {"tune/score": record.score} if record.score is not None else {}
        best = {"tune/best": best.score} if (best := self.best) and best.score is not None else {}
        append_metrics(self._output.metrics, self._over(), scores | best)
        if self._job.models == "best":
            self._prune()
        log.info("trial %d (%s): %s", record.number, describe(record.drawn), outcome_of(record))
        self._say()

    @property
    def best(self) -> Record | None:
        """The best of the trials that are done."""
        sign = 1 if self._job.mode == "max" else -1
        done = [record for record in self.records.values() if record.state == "done"]
        return max(done, key=lambda record: (sign * (record.score or 0.0), -record.number), default=None)

    def beat(self) -> None:
        """Say how things stand, if nothing was said for a while."""
        if time.monotonic() - self._said_at >= _SECONDS_BETWEEN_LINES:
            self._say()

    def ordered(self) -> Sequence[Record]:
        """All records by their numbers."""
        return sorted(self.records.values(), key=lambda record: record.number)

    def _over(self) -> int:
        return sum(record.over for record in self.records.values())

    def _say(self) -> None:
        self._said_at = time.monotonic()
        states = [record.state for record in self.records.values()]
        ends = [f"{states.count(state)} {state}" for state in ("stopped", "failed") if state in states]
        words = [f"{self._over()} of {self._total} trials over" + (f" ({', '.join(ends)})" if ends else "")]
        running = [self.records[name] for name in self._running if not self.records[name].over]
        words.append(f"{len(running)} running{_places(running)}")
        if best := self.best:
            words.append(f"best {score_of(best)} (trial {best.number}: {describe(best.drawn)})")
        log.info("%s", "; ".join([*words, *self._left(running)]))

    def _left(self, running: Sequence[Record]) -> list[str]:
        """Of trials that failed there is nothing to learn: most do so at once."""
        took = [record.seconds for record in self.records.values() if record.state in ("done", "stopped")]
        if not took or self._over() == self._total:
            return []
        elapsed = [time.monotonic() - self._running[record.name][0] for record in running]
        # The first to be over may be the short ones, without a pre-training: those beyond them count by what they took.
        usual = mean(took)
        each = mean([*took, *(seconds for seconds in elapsed if seconds > usual)])
        begun = [max(0.0, each - seconds) for seconds in elapsed]
        pending = self._total - self._over() - len(running)
        seconds = max([*begun, (sum(begun) + each * pending) / self._at_once])
        if seconds < 1:  # the last ones take longer than others did: who knows how long
            return []
        return [f"about {seconds:.0f} s left" if seconds < 120 else f"about {seconds / 60:.0f} min left"]

    def _prune(self) -> None:
        """Delete the fine-tuned weights of all but the best trial; their numbers stay."""
        best = self.best
        for record in self.records.values():
            if record.over and record is not best and self._job.base.finetune is not None:
                for run in record.runs:
                    (Path(run["output"]) / WEIGHTS).unlink(missing_ok=True)


def score_of(record: Record) -> str:
    """The score with its spread over the seeds."""
    if record.score is None:
        return "–"
    return f"{record.score:.4f}" + (f" ± {record.spread:.4f}" if record.spread is not None else "")


def outcome_of(record: Record) -> str:
    """How a trial ended, in a line."""
    if record.state == "failed":
        return f"failed: {record.reason}"
    if record.state == "stopped":
        return f"stopped at {score_of(record)} after evaluation {len(record.reports)}"
    return f"{score_of(record)} in {record.seconds:.0f} s"


def _places(running: Sequence[Record]) -> str:
    heard = [record for record in running if record.reports]
    places = [f"trial {record.number} at {record.reports[-1][1]:.4f} after {len(record.reports)}" for record in heard]
    return f" ({', '.join(places)})" if places else ""
