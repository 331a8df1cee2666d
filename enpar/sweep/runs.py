"""The trials of a sweep in MLflow: a run each below the sweep's, kept by the command's own process, which alone learns
how every trial ends. The stages keep their own runs, each in its process: a fine-tuning's is below its trial's.
"""

from concurrent.futures import ThreadPoolExecutor

from enpar.metrics import append_metrics, truncate_metrics
from enpar.output import Output
from enpar.sweep.plan import Trial
from enpar.sweep.records import Record
from enpar.sweep.space import describe
from enpar.tracking import Run, begin, catch_up

ENDING = 10.0  # seconds that the process of a stage which was killed may take to go
# A trial that was stopped is no failure, and has not got to its end either.
_STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Runs:
    """No method but `close` waits for MLflow.

    Args:
        sweep: the sweep's run.
    """

    def __init__(self, sweep: Run) -> None:
        self._tracking = sweep.below()
        self._open: dict[str, Run] = {}
        self._closed: list[Run] = []
        self._later = ThreadPoolExecutor(1)

    def begin(self, trial: Trial, record: Record) -> None:
        """A trial starts, or starts again."""
        output = _output(trial)
        output.claim()
        if trial.name in self._open:  # its process was lost, and is replaced
            return
        truncate_metrics(output.metrics, -1)
        tracking = self._tracking.model_copy(update={"name": f"trial {record.number}: {describe(record.drawn)}"})
        tags = {"trial.number": str(record.number), "trial.name": record.name, "trial.state": "running"}
        self._open[trial.name] = begin(output, tracking, tags)

    def heard(self, trial: Trial, record: Record) -> None:
        """A trial was evaluated once more."""
        evaluations, score = record.reports[-1]
        append_metrics(_output(trial).metrics, evaluations, {"trial/score": score})

    def end(self, trial: Trial, record: Record) -> None:
        """A trial is over; stages of it that were killed are ended when their processes are gone."""
        append_metrics(_output(trial).metrics, len(record.reports) + 1, _outcome(record))
        run = self._open.pop(trial.name)
        run.finish({}, tags={"trial.state": record.state, **({"trial.reason": record.reason} if record.reason else {})})
        run.close(_STATUS[record.state])
        self._closed.append(run)
        if record.state != "done":
            self._later.submit(catch_up, trial.folder, self._tracking, ENDING, quiet=True)

    def close(self) -> None:
        """End trials that are broken off, and wait for what is being sent."""
        for run in self._open.values():
            run.finish({}, tags={"trial.state": "broken off"})
            run.close("KILLED")
        for run in [*self._closed, *self._open.values()]:
            run.wait()
        self._later.shutdown(cancel_futures=True)


def _output(trial: Trial) -> Output:
    # `drawn` has the names of settings that vary together, `settings` the values.
    return Output(trial.folder, "trial", trial.drawn | trial.settings)


def _outcome(record: Record) -> dict[str, float]:
    """The means over the seeds, and each seed's own numbers where there are several."""
    measured = {"trial/score": record.score, "trial/spread": record.spread, "trial/seconds": record.seconds}
    each = {f"seed-{run['seed']}/{name}": value for run in record.runs for name, value in run["metrics"].items()}
    known = {name: value for name, value in measured.items() if value is not None}
    return known | record.metrics() | (each if len(record.runs) > 1 else {})
