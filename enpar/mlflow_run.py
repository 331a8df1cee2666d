"""A run copied to MLflow from the files of its output folder, in a thread of the command's own process."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from enpar import mlflow_artifacts as artifacts
from enpar import mlflow_forms as forms
from enpar.config import Tracking
from enpar.metrics import Follower, Row, Tail
from enpar.output import METRICS, Output
from enpar.provenance import Data, fingerprint
from enpar.tracking_record import Record, Sent, hold, parent_run
from enpar.tracking_uri import alone, sqlite_file, tracking_uri, without_secrets

log = logging.getLogger("enpar")

_RETRY = 30.0  # seconds until a server that failed is tried again
_PATIENCE = 15.0  # seconds that the end of a command waits for a server
_FAILING_PATIENCE = 3.0  # the same for a server that failed when it was last asked, and before what belongs to a run
_LOCAL_PATIENCE = 600.0  # the same for a local database, which is always flushed: a bound only against a broken disk
_UPLOAD_RATE = 1e6  # bytes a second that are granted on top for files
_KEY_TAG, _PARENT_TAG = "enpar.key", "mlflow.parentRunId"
# Its last part, because MLflow's pages otherwise begin with those for language models.
_PAGE = "%s/#/experiments/%s/runs/%s?workflowType=machine_learning"


class MlflowRun(Follower):
    """Copies one run; nothing that MLflow does or raises gets past this thread.

    What is sent twice arrives once: a run is found again by its key, and numbers have the times of the record.

    Raises:
        UserError: the tracking URI is none that MLflow knows.
    """

    def __init__(
        self, output: Output, tracking: Tracking, record: Record, data: Mapping[str, Data], quiet: bool = False
    ) -> None:
        super().__init__(output.metrics)
        self._say, self._warn = (log.debug, log.debug) if quiet else (log.info, log.warning)
        self._output, self._tracking, self._record, self._data = output, tracking, record, data
        self._uri = tracking_uri(tracking, output.location)
        self._shown = without_secrets(self._uri)
        self._database = sqlite_file(self._uri)
        self._result: dict[str, Any] = {}
        self._late: Mapping[str, str] = {}
        self._client: Any = None
        self._sent = record.sent(self._uri)
        self._sent.status = ""
        self._open, self._failing, self._gave_up = False, False, False
        self._retry_at, self._reason, self._warned = 0.0, "no answer in time", False
        self._ready = threading.Event()

    def start(self) -> None:
        """Begin to copy, and show other processes that this one does."""
        self._held = hold(self._output.location)
        super().start()

    @property
    def complete(self) -> bool:
        """Whether MLflow has all of the run, and its end."""
        return bool(self._sent.status)

    def below(self) -> Tracking:
        """Where the runs that belong to this one are logged; waits until this one is, or until that fails."""
        self._ready.wait(_PATIENCE if self._database else _FAILING_PATIENCE)
        parent = str(self._output.location.absolute())
        return self._tracking.model_copy(update={"uri": self._uri, "parent": parent, "name": None})

    def leave(self, result: dict[str, Any], paths: Sequence[Path], tags: Mapping[str, str]) -> None:
        """Set what is logged at the end."""
        self._result, self._late = result, tags
        self._record.tags = {**self._record.tags, **tags}  # another one: the thread may be reading
        kept = [path for path in paths if self._tracking.models or not path.is_dir()]
        self._record.artifacts = [os.path.relpath(path, self._output.path) for path in kept]
        if any(artifacts.is_model(path) for path in kept):
            import enpar.mlflow_model  # noqa: F401  # not in the thread: it must not import beside another

    def end(self, status: str) -> None:
        """Let it send the rest for as long as is reasonable, and say how to send what it could not."""
        self.close(status)
        self.wait()

    def close(self, status: str) -> None:
        """Let it send the rest, and wait for nothing."""
        self._record.ended = self._record.ended or time.time()  # of a run that is caught up it is known
        self._record.status = self._status = status
        self._record.save()
        self._over.set()

    def wait(self) -> None:
        """Wait until it has sent the rest, for as long as is reasonable."""
        if self._failing:
            self.join(_FAILING_PATIENCE)
        if not self._failing:
            self.join(self._patience())
        if not self.complete:
            self._warn(
                "MLflow at %s has not got all of this run (%s); its numbers are kept in %s. "
                "The same command, given again, sends what is missing (tracking.uri=… sends it elsewhere)",
                self._shown, self._reason, self._output.location / METRICS,
            )  # fmt: skip

    def _patience(self) -> float:
        files = (file for path in self._artifacts() for file, _ in artifacts.files_of(path, ""))
        upload = sum(file.stat().st_size for file in files) / _UPLOAD_RATE
        return _LOCAL_PATIENCE if self._database else _PATIENCE + upload

    def _artifacts(self) -> list[Path]:
        paths = (Path(os.path.normpath(self._output.path / path)) for path in self._record.artifacts)
        return [path for path in paths if path.exists()]

    # ---- In the thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Follow the file; the folder is held as long."""
        with self._held:
            super().run()

    def _look(self, over: bool) -> None:
        if self._gave_up or (not over and time.monotonic() < self._retry_at):
            return
        try:
            self._fingerprint()
            if not self._open:
                with alone(self._database):
                    self._begin()
            self._send_rows(self._tail.read())
            if over:
                self._close()
        except Exception as error:  # a server's, a driver's or a disk's: there is no list of them
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.debug("MLflow", exc_info=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.rpartition("Caused by ")[2].rstrip(")")  # what requests says at the end is what counts
        self._reason = without_secrets(reason.replace(self._uri, "it"))[:200]
        over = self._over.is_set()
        if not self._warned and not over:
            self._warned = True
            self._warn(
                "MLflow at %s does not take the run (%s); the run goes on, and its numbers are kept in %s",
                self._shown, self._reason, self._output.location / METRICS,
            )  # fmt: skip
        self._open, self._failing = False, True
        self._gave_up = over and self._database is None  # the command waits: not once more
        self._tail = Tail(self._path)  # what was read and not sent is read again
        self._retry_at = time.monotonic() + _RETRY
        self._ready.set()

    def _fingerprint(self) -> None:
        """Before the server is asked, so that it is known also where that never answers."""
        for context, data in self._data.items():
            try:
                known = {context: (data.place, data.rows, fingerprint(data.files))}
                self._record.data = self._record.data | known
            except OSError as error:
                log.warning("MLflow: %s is logged without a fingerprint: %s", data.place, error)
        self._data = {}

    def _begin(self) -> None:
        if self._record.parent and not self._sent.run:
            parent_run(self._record.parent, self._uri)  # what its parent waited for in vain is not waited for again
        self._client = self._client or MlflowClient(tracking_uri=self._uri)
        if not self._resume():
            self._create()
        run = self._sent.run
        self._client.log_batch(run, tags=forms.tags(self._record.tags))
        settings = {key: value for key, value in self._output.settings.items() if key not in ("tracking", "overwrite")}
        for batch in forms.batches(forms.params(settings), forms.PARAMS_A_BATCH):
            self._client.log_batch(run, params=batch)
        if self._record.data:
            self._client.log_inputs(run, [forms.dataset(name, *data) for name, data in self._record.data.items()])
        self._open, self._failing = True, False
        self._ready.set()

    def _resume(self) -> bool:
        """Find the run that this folder began on this server, if it is still there."""
        if not self._sent.run:
            return False
        try:
            run = self._client.get_run(self._sent.run)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or run.info.lifecycle_stage != "active":
            self._sent = self._record.runs[self._shown] = Sent()
            return False
        self._client.update_run(self._sent.run, status="RUNNING")
        return True

    def _create(self) -> None:
        """Create the run, unless that was done before and only the answer was lost."""
        experiment = self._experiment_id()
        found: list[Run] = []
        if self._sent.key:
            found = self._client.search_runs([experiment], f"tags.`{_KEY_TAG}` = '{self._sent.key}'", max_results=1)
        else:
            self._sent.key = uuid.uuid4().hex
            self._record.save()
        self._sent.run = str((found[0] if found else self._new(experiment)).info.run_id)
        self._record.save()

    def _new(self, experiment: str) -> Run:
        place, stage = self._output.location.absolute(), self._output.stage
        tags = {
            "enpar.stage": stage,
            "enpar.output": str(place),
            "mlflow.source.name": f"enpar {stage}",
            "mlflow.source.type": "LOCAL",
            _KEY_TAG: self._sent.key,
        }
        if parent := self._record.parent:
            tags[_PARENT_TAG] = parent_run(parent, self._uri)
        name = f"{stage} {place.name if place.name != stage else place.parent.name}"
        return self._client.create_run(experiment, int(self._record.began * 1000), tags, self._record.name or name)

    def _experiment_id(self) -> str:
        name = self._tracking.experiment
        # Without a server MLflow would put the artifacts into the working directory, which a Ray job throws away.
        location = (self._database.parent / "mlartifacts").as_uri() if self._database else None
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, location))
            except MlflowException:  # perhaps another command was quicker
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _send_rows(self, rows: list[Row]) -> None:
        """Send what MLflow does not have; a replaced file is read anew."""
        steps = dict(self._sent.steps)
        if metrics := forms.metrics(rows, steps):
            self._send_metrics(metrics)
            self._sent.steps = steps
            self._record.save()

    def _send_metrics(self, metrics: list[Any]) -> None:
        for batch in forms.batches(metrics, forms.METRICS_A_BATCH):
            self._client.log_batch(self._sent.run, metrics=batch)

    def _close(self) -> None:
        run, ended = self._sent.run, self._record.ended
        if self._late:
            self._client.log_batch(run, tags=forms.tags(self._late))
        if self._result:
            self._client.log_dict(run, self._result, "result.json")
            step = max(self._sent.steps.values(), default=0)
            self._send_metrics(forms.result_metrics(self._result, self._output.stage, ended, step))
        for path in self._artifacts():
            artifacts.send(self._client, run, path)
        self._client.set_terminated(run, self._status, int(ended * 1000))
        self._sent.status = self._status
        self._record.save()
        if self._uri.startswith("http"):
            experiment = self._client.get_run(run).info.experiment_id
            self._say(f"MLflow: {_PAGE}", self._shown.rstrip("/"), experiment, run)
