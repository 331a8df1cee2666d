"""A run is shown on stderr while it lasts, and copied to MLflow from its `metrics.jsonl`.

That happens beside the run, in threads of the command's own process: a tracking server that is slow, dead or gone
therefore neither slows nor loses a run.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enpar.config import Tracking
from enpar.metrics import Follower, Progress, Row, Tail, values_of
from enpar.output import Output, atomic
from enpar.tracking_uri import alone, sqlite_file, tracking_uri, without_secrets

log = logging.getLogger("enpar")

RUN_FILE = ".mlflow_run"
_RETRY = 30.0  # seconds until a server that failed is tried again
_PATIENCE = 15.0  # seconds that the end of a command waits for a server
_LOCAL_PATIENCE = 600.0  # the same for a local database, which is always flushed: a bound only against a broken disk
_UPLOAD_RATE = 1e6  # bytes a second that are granted on top for files
_METRICS_A_BATCH, _PARAMS_A_BATCH, _KEY_LENGTH, _PARAM_LENGTH = 1000, 100, 250, 6000  # MLflow's limits


class Run:
    """What a stage leaves with its tracker."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.artifacts: tuple[Path, ...] = ()

    def finish(self, result: dict[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Set what is logged when the block ends: the result, and files or whole folders beside it."""
        self.result, self.artifacts = result, tuple(artifacts)


def check_tracking(tracking: Tracking, output: Path) -> None:
    """See that a run could be tracked, before anything is done.

    Raises:
        UserError: the tracking URI is none that MLflow knows.
    """
    if tracking.enabled:
        tracking_uri(tracking, output)


@contextmanager
def track(output: Output, tracking: Tracking, stage: str, total_steps: int | None = None) -> Iterator[Run]:
    """Show the lines of `output.metrics` as progress while the block runs, and copy all to one MLflow run.

    The run ends as FINISHED, as FAILED if the block raises, or as KILLED if it is interrupted. The same output
    folder continues the MLflow run it began.

    Raises:
        UserError: the tracking URI is none that MLflow knows.
    """
    run = Run()
    followers: list[Follower] = [Progress(output.metrics, stage, total_steps)]
    if tracking.enabled:
        followers.append(_Mlflow(output, tracking, stage, run))
    for follower in followers:
        follower.start()
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for follower in followers:
            follower.end(status)


class _Mlflow(Follower):
    """Copies a run to MLflow; nothing that MLflow does or raises gets past this thread."""

    def __init__(self, output: Output, tracking: Tracking, stage: str, run: Run) -> None:
        super().__init__(output.metrics)
        self._output, self._stage, self._run, self._experiment = output, stage, run, tracking.experiment
        self._uri = tracking_uri(tracking, output.path)
        self._database = sqlite_file(self._uri)
        self._client: Any = None
        self._run_id = ""
        self._sent: dict[str, int] = {}  # the last step of each metric that MLflow has
        self._retry_at, self._warned, self._gave_up = 0.0, False, False
        # Here and not in the thread: two threads that import at once can see each other's half-made modules.
        _import_mlflow()

    def end(self, status: str) -> None:
        super().end(status)
        if self.is_alive():
            self._warn("no answer in time")

    def _patience(self) -> float:
        files = [file for path in self._run.artifacts for file, _ in _files(path)]
        upload = 0.0 if self._warned else sum(file.stat().st_size for file in files) / _UPLOAD_RATE
        return _LOCAL_PATIENCE if self._database else _PATIENCE + upload

    def _look(self, over: bool) -> None:
        if self._gave_up or (not over and time.monotonic() < self._retry_at):
            return
        try:
            if not self._run_id:
                with alone(self._database):
                    self._open()
            self._send_rows(self._tail.read())
            if over:
                self._close()
        except Exception as error:  # a server's, a driver's or a disk's: there is no list of them
            log.debug("MLflow", exc_info=True)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._warn(reason.rpartition("Caused by ")[2].rstrip(")"))  # what requests says at the end is what counts
            self._tail = Tail(self._path)  # what was read and not sent is read again
            self._retry_at = time.monotonic() + _RETRY
            self._gave_up = self._over.is_set() and self._database is None  # the command waits: not once more

    def _open(self) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = self._client or MlflowClient(tracking_uri=self._uri)
        run_id = self._resume() or self._create()
        settings = {key: value for key, value in self._output.settings.items() if key not in ("tracking", "overwrite")}
        params = [Param(key[:_KEY_LENGTH], _param(value)) for key, value in _flat(settings, ".")]
        for batch in _batches(params, _PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=batch)
        self._run_id = run_id

    def _resume(self) -> str:
        """Find the run this folder began on this server, if it is still there."""
        from mlflow.exceptions import MlflowException

        try:
            saved = json.loads((self._output.path / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        if saved["uri"] != without_secrets(self._uri):
            return ""
        try:
            run = self._client.get_run(saved["run"])
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return ""
            raise
        if run.info.lifecycle_stage != "active":
            return ""
        self._client.update_run(saved["run"], status="RUNNING")
        self._sent = saved["sent"]
        return str(saved["run"])

    def _create(self) -> str:
        path = self._output.path.absolute()
        tags = {"enpar.stage": self._stage, "enpar.output": str(path)}
        run = self._client.create_run(self._experiment_id(), run_name=f"{self._stage} {path.name}", tags=tags)
        self._save(run.info.run_id)
        return str(run.info.run_id)

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        # Without a server MLflow would put the artifacts into the working directory, which a Ray job throws away.
        location = (self._database.parent / "mlartifacts").as_uri() if self._database else None
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment, artifact_location=location))
            except MlflowException:  # perhaps another command was quicker
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _save(self, run_id: str) -> None:
        saved = {"uri": without_secrets(self._uri), "run": run_id, "sent": self._sent}
        with atomic(self._output.path / RUN_FILE) as temporary:
            temporary.write_text(json.dumps(saved) + "\n", encoding="utf-8")

    def _send_rows(self, rows: list[Row]) -> None:
        """Send what MLflow does not have: a replaced file is read anew, and a continued run repeats some steps."""
        from mlflow.entities import Metric

        metrics, sent = [], dict(self._sent)
        for row in rows:
            for name, value in values_of(row).items():
                if row["step"] > sent.get(name, -1):
                    sent[name] = row["step"]
                    metrics.append(Metric(_key(name), value, int(row["time"] * 1000), row["step"]))
        for batch in _batches(metrics, _METRICS_A_BATCH):
            self._client.log_batch(self._run_id, metrics=batch)
        if metrics:
            self._sent = sent
            self._save(self._run_id)

    def _close(self) -> None:
        from mlflow.entities import Metric

        if self._run.result:
            self._client.log_dict(self._run_id, self._run.result, "result.json")
            now, step = int(time.time() * 1000), max(self._sent.values(), default=0)
            numbers = [(key, value) for key, value in _flat(self._run.result, "/") if type(value) in (int, float)]
            metrics = [Metric(_key(f"{self._stage}/result/{key}"), value, now, step) for key, value in numbers]
            for batch in _batches(metrics, _METRICS_A_BATCH):
                self._client.log_batch(self._run_id, metrics=batch)
        for path in self._run.artifacts:
            for file, folder in _files(path):
                self._client.log_artifact(self._run_id, str(file), folder)
        self._client.set_terminated(self._run_id, self._status)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            uri, reason = without_secrets(self._uri), without_secrets(reason.replace(self._uri, "it"))[:200]
            log.warning("MLflow at %s does not take the run (%s); its numbers are kept in %s", uri, reason, self._path)


def _import_mlflow() -> None:
    """Import MLflow with bounds on how long it waits for a server, without telemetry, and quiet unless debugging."""
    defaults = {"HTTP_REQUEST_MAX_RETRIES": "0", "HTTP_REQUEST_TIMEOUT": "10", "DISABLE_TELEMETRY": "true"}
    defaults["SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is the result's
    debug = log.isEnabledFor(logging.DEBUG)
    if not debug:
        defaults["LOGGING_LEVEL"] = "ERROR"
    for name, value in defaults.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
    import mlflow  # noqa: F401

    for name in () if debug else ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _flat(values: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, separator, f"{prefix}{key}{separator}")
        else:
            yield prefix + key, value


def _param(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return without_secrets(text)[:_PARAM_LENGTH]


def _key(name: str) -> str:
    return re.sub(r"[^\w./ :-]", "_", name)[:_KEY_LENGTH]


def _files(path: Path) -> list[tuple[Path, str | None]]:
    """Each file with the artifact folder it belongs in; hidden ones (our own, half-written ones) are left out."""
    if path.is_file():
        return [(path, None)]
    files = [(file, file.relative_to(path.parent)) for file in sorted(path.rglob("*")) if file.is_file()]
    return [
        (file, str(inside.parent)) for file, inside in files if not any(p.startswith(".") for p in inside.parts[1:])
    ]


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
