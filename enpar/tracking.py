"""A run is shown on stderr while it lasts, and copied to MLflow from its `metrics.jsonl`.

That happens beside the run, in threads of the command's own process: a tracking server that is slow, dead or gone
therefore neither slows nor loses a run. What it did not take, `catch_up` sends later.

Runs may belong to one another, as a sweep's trials to the sweep and their stages to them:

    with track(sweep_output, job.tracking, "tune") as sweep:
        tracking = sweep.below()        # for settings of other commands, also in other processes
        with track(trial_output, tracking, "trial") as trial:
            finetune.run(job.model_copy(update={"tracking": trial.below()}))
        …
    catch_up(sweep_output.path, job.tracking)      # what a server that was away has missed; trials that were stopped
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enpar import provenance
from enpar.config import Tracking
from enpar.metrics import Follower, Progress
from enpar.output import MANIFEST, METRICS, SUCCESS, Output
from enpar.provenance import Data
from enpar.storage import Location
from enpar.tracking_record import RUN_FILE, Record, check_parent, held
from enpar.tracking_uri import tracking_uri, without_secrets

if TYPE_CHECKING:
    from enpar.mlflow_run import MlflowRun

log = logging.getLogger("enpar")


class Run:
    """What a stage leaves with its tracker."""

    def __init__(self, mlflow: "MlflowRun | None") -> None:
        self._mlflow = mlflow

    def finish(
        self, result: dict[str, Any], artifacts: Sequence[Path] = (), tags: Mapping[str, str] | None = None
    ) -> None:
        """Set what is logged when the run ends: the result, files, folders of models, and tags.

        The folder of a fine-tuned model becomes an MLflow model, `model`; that of a checkpoint is `checkpoint`.
        """
        if self._mlflow:
            self._mlflow.leave(result, artifacts, tags or {})

    def close(self, status: str) -> None:
        """End what `begin` began, as FINISHED, FAILED or KILLED; `wait` waits until MLflow has that."""
        if self._mlflow:
            self._mlflow.close(status)

    def wait(self) -> None:
        """Wait until MLflow has the end of a run that is closed, for as long as is reasonable."""
        if self._mlflow:
            self._mlflow.wait()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be sent of a run that has ended."""
        return self._mlflow is None or self._mlflow.complete

    def below(self) -> Tracking:
        """The tracking settings of a run that belongs to this one; it may be in another process.

        Waits until MLflow has this run or has failed to take it, for 3 seconds at most (15 for a local database). The
        URI is in it with the password that it may hold: keep it out of files.
        """
        return self._mlflow.below() if self._mlflow else Tracking(enabled=False)


def check_tracking(tracking: Tracking, output: Path | Location) -> None:
    """See that a run could be tracked, before anything is done.

    Raises:
        UserError: the tracking URI is none that MLflow knows, or the parent is no other run.
    """
    if tracking.enabled:
        tracking_uri(tracking, output)
        check_parent(tracking.parent, output)


def finished(output: Output, tracking: Tracking, overwrite: bool) -> dict[str, Any] | None:
    """As `Output.finished`; what MLflow lacks of a run that is finished is sent to it.

    Raises:
        UserError: as `Output.check`, or the tracking URI is none that MLflow knows.
    """
    result = output.finished(overwrite)
    if result is not None:
        catch_up(output.location, tracking)
    return result


@contextmanager
def track(
    output: Output,
    tracking: Tracking,
    stage: str,
    total_steps: int | None = None,
    data: Mapping[str, Data] | None = None,
    show: bool = True,
) -> Iterator[Run]:
    """Show the lines of `output.metrics` as progress while the block runs, and copy all to one MLflow run.

    The run ends as FINISHED, as FAILED if the block raises, or as KILLED if it is interrupted. The same output
    folder continues the MLflow run it began.

    Args:
        output: the run's folder, which is claimed.
        tracking: where, and which run it belongs to.
        stage: the stage whose metrics are shown first.
        total_steps: for the time that is left.
        data: what is read, by context (train, dev, test, input).
        show: whether there is progress to be shown.

    Raises:
        UserError: the tracking URI is none that MLflow knows.
    """
    followers: list[Follower] = [Progress(output.metrics, stage, total_steps)] if show else []
    mlflow = _run(output, tracking, data or {}) if tracking.enabled else None
    followers += [mlflow] if mlflow else []
    for follower in followers:
        follower.start()
    status = "FAILED"
    try:
        yield Run(mlflow)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):  # the second is how Ray ends a process
        status = "KILLED"
        raise
    finally:
        for follower in followers:
            follower.end(status)


def begin(output: Output, tracking: Tracking, tags: Mapping[str, str]) -> Run:
    """Copy all lines of `output.metrics` to one MLflow run until `Run.close`; neither waits, and nothing is said.

    For what is not one block: a trial among others. The arguments are as for `track`.
    """
    mlflow = _run(output, tracking, {}, tags, quiet=True) if tracking.enabled else None
    if mlflow:
        mlflow.start()
    return Run(mlflow)


def _run(
    output: Output,
    tracking: Tracking,
    data: Mapping[str, Data],
    tags: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> "MlflowRun":
    record = Record.of(output.location)
    run = _copier()(output, tracking, record, data, quiet)
    record.begin(tracking.parent, tracking.name, {**provenance.tags(), **(tags or {})})
    return run


def _copier() -> "type[MlflowRun]":
    """What copies a run, with bounds on how long MLflow waits for a server, no telemetry, and quiet unless debugging.

    It is imported here: a run without MLflow does not wait for that.
    """
    debug = log.isEnabledFor(logging.DEBUG)
    defaults = {"HTTP_REQUEST_MAX_RETRIES": "0", "HTTP_REQUEST_TIMEOUT": "10", "DISABLE_TELEMETRY": "true"}
    defaults["SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is the result's
    if not debug:
        defaults["LOGGING_LEVEL"] = "ERROR"
    for name, value in defaults.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
    from enpar.mlflow_run import MlflowRun

    for name in () if debug else ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowRun


def catch_up(folder: Path | Location, tracking: Tracking, patience: float = 0.0, quiet: bool = False) -> bool:
    """Send what MLflow lacks of the run in an output folder, and of those in folders below it; each thing once.

    A run that was not ended by its own process ends as FINISHED if its output is finished, else as KILLED. Parents
    come before what belongs to them. With the first that fails the rest is left for later.

    Args:
        folder: the output folder.
        tracking: where.
        patience: seconds to wait for a process that is about to end; a run whose process goes on is left to that.
        quiet: whether nothing is said.

    Returns:
        Whether nothing failed.

    Raises:
        UserError: the tracking URI is none that MLflow knows.
    """
    if not tracking.enabled:
        return True
    uri = tracking_uri(tracking, folder)
    tracking = tracking.model_copy(update={"uri": uri})
    return all(
        Record.of(path).sent(uri).status or held(path, patience) or _send(path, tracking, quiet)
        for path in _parents_first(Location.of(folder).files(recursive=True))
    )


def _parents_first(files: Iterable[Location]) -> Sequence[Location]:
    """The folders of the runs among these files."""
    folders = [file.parent.absolute() for file in files if file.name == RUN_FILE]
    parents = {folder: Record.of(folder).parent for folder in folders}
    graph = {folder: [Location.of(parent).absolute()] if parent else [] for folder, parent in parents.items()}
    return [folder for folder in TopologicalSorter(graph).static_order() if folder in graph]


def _send(folder: Location, tracking: Tracking, quiet: bool) -> bool:
    manifest = json.loads((folder / MANIFEST).read_text())
    output, record = Output(folder, manifest["stage"], manifest["settings"]), Record.of(folder)
    output.fetch([METRICS, *record.artifacts])
    run = _copier()(output, tracking, record, {}, quiet)
    run.leave(manifest.get("result", {}), [output.path / path for path in record.artifacts], {})
    run.start()
    run.end(record.status or ("FINISHED" if (folder / SUCCESS).kind() else "KILLED"))
    if run.complete and not quiet:
        log.info("MLflow at %s has all of %s now", without_secrets(tracking.uri or ""), folder)
    return run.complete
