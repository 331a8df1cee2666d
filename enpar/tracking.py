"""A run's numbers: always in `metrics.jsonl`, shown as progress on stderr, and copied to MLflow.

The file is the source of truth. Whoever trains, in whatever process, only appends to it; the command's own process
follows it in background threads. A tracking server that is slow, dead or gone therefore neither slows nor loses a run.
"""

import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from enpar.config import Tracking
from enpar.errors import UserError
from enpar.output import Output, atomic

log = logging.getLogger("enpar")

RUN_FILE = ".mlflow_run"
_POLL = 0.5  # seconds between two looks at the file
_RETRY = 30.0  # seconds until a server that failed is tried again
_PATIENCE = 15.0  # seconds that the end of a command waits for a server
_LOCAL_PATIENCE = 600.0  # the same for a local database, which is always flushed: a bound only against a broken disk
_UPLOAD_RATE = 1e6  # bytes a second that are granted on top for files
_METRICS_A_BATCH, _PARAMS_A_BATCH, _KEY_LENGTH, _PARAM_LENGTH = 1000, 100, 250, 6000  # MLflow's limits
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")

Row = dict[str, Any]


def append_metrics(path: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Add one line, `{"step", "time" (unix seconds), name: value, …}`; it is with the operating system on return."""
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
    return _Tail(path).read()


class _Tail:
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


class Run:
    """What a stage leaves with its tracker."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.artifacts: tuple[Path, ...] = ()

    def finish(self, result: dict[str, Any], artifacts: Sequence[Path] = ()) -> None:
        """Set what is logged when the block ends: the result, and files or whole folders beside it."""
        self.result, self.artifacts = result, tuple(artifacts)


@contextmanager
def track(output: Output, tracking: Tracking, stage: str, total_steps: int | None = None) -> Iterator[Run]:
    """Show the lines of `output.metrics` as progress while the block runs, and copy all to one MLflow run.

    The run ends as FINISHED, as FAILED if the block raises, or as KILLED if it is interrupted. The same output
    folder continues the MLflow run it began.

    Raises:
        UserError: the tracking URI is none that MLflow knows.
    """
    run = Run()
    followers: list[_Follower] = [_Progress(output.metrics, stage, total_steps)]
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


class _Follower(threading.Thread):
    """A daemon: whatever it hangs on, the command can end."""

    def __init__(self, path: Path) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self._path = path
        self._tail = _Tail(path)
        self._over = threading.Event()
        self._status = "RUNNING"

    def run(self) -> None:
        over = False
        while not over:
            over = self._over.is_set()  # asked before reading: all that the block wrote is read
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


class _Progress(_Follower):
    """Says each new line on stderr."""

    def __init__(self, path: Path, stage: str, total_steps: int | None) -> None:
        super().__init__(path)
        self._stage, self._total = stage, total_steps
        self._latest = max((row["time"] for row in self._tail.read()), default=0.0)
        self._first: Row | None = None

    def _look(self, over: bool) -> None:
        # By time and not by step: what a continued run does again is news, what it kept is none.
        for row in self._tail.read():
            if row["time"] > self._latest:
                self._latest = row["time"]
                self._first = self._first or row
                log.info("%s", self._line(row))

    def _line(self, row: Row) -> str:
        words = [f"step {row['step']}" + (f"/{self._total}" if self._total else "")]
        words += [f"{name.removeprefix(self._stage + '/')} {_short(value)}" for name, value in _metrics(row)]
        return "  ".join(words + self._left(row))

    def _left(self, row: Row) -> list[str]:
        steps = row["step"] - self._first["step"] if self._first else 0
        if not self._total or not self._first or steps <= 0 or row["step"] >= self._total:
            return []
        seconds = (row["time"] - self._first["time"]) / steps * (self._total - row["step"])
        return [f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"]


class _Mlflow(_Follower):
    """Copies a run to MLflow; nothing that MLflow does or raises gets past this thread."""

    def __init__(self, output: Output, tracking: Tracking, stage: str, run: Run) -> None:
        super().__init__(output.metrics)
        self._output, self._stage, self._run, self._experiment = output, stage, run, tracking.experiment
        self._uri = _uri(tracking, output.path)
        self._database = _sqlite_file(self._uri)
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
                with _alone(self._database):
                    self._open()
            self._send_rows(self._tail.read())
            if over:
                self._close()
        except Exception as error:  # a server's, a driver's or a disk's: there is no list of them
            log.debug("MLflow", exc_info=True)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._warn(reason.rpartition("Caused by ")[2].rstrip(")"))  # what requests says at the end is what counts
            self._tail = _Tail(self._path)  # what was read and not sent is read again
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
        if saved["uri"] != _without_secrets(self._uri):
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
        saved = {"uri": _without_secrets(self._uri), "run": run_id, "sent": self._sent}
        with atomic(self._output.path / RUN_FILE) as temporary:
            temporary.write_text(json.dumps(saved) + "\n", encoding="utf-8")

    def _send_rows(self, rows: list[Row]) -> None:
        """Send what MLflow does not have: a replaced file is read anew, and a continued run repeats some steps."""
        from mlflow.entities import Metric

        metrics, sent = [], dict(self._sent)
        for row in rows:
            for name, value in _metrics(row):
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
            uri, reason = _without_secrets(self._uri), _without_secrets(reason.replace(self._uri, "it"))[:200]
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


def _uri(tracking: Tracking, output: Path) -> str:
    given = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return f"sqlite:///{output.absolute().parent / 'mlflow.db'}"
    if urlsplit(given).scheme.split("+")[0] not in _SCHEMES and given != "databricks":
        key = "tracking.uri" if tracking.uri else "MLFLOW_TRACKING_URI"
        raise UserError(
            f"{key}: {_without_secrets(given)}: expected such as http://host:5000 or sqlite:////path/mlflow.db"
        )
    return given


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, path = uri.partition(":///")
    return Path(path.split("?")[0]).absolute() if scheme.startswith("sqlite") and path else None


@contextmanager
def _alone(database: Path | None) -> Iterator[None]:
    """One command at a time: MLflow's creation of a database by two at once fails one of them."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with (database.parent / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _without_secrets(text: str) -> str:
    """Without user:password@ and without passwords or tokens in a query."""
    return re.sub(r"(?i)(password|passwd|pwd|token|secret)=[^&\s]*", r"\1=…", re.sub(r"//[^/\s]*@", "//", text))


def _flat(values: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, separator, f"{prefix}{key}{separator}")
        else:
            yield prefix + key, value


def _param(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return _without_secrets(text)[:_PARAM_LENGTH]


def _key(name: str) -> str:
    return re.sub(r"[^\w./ :-]", "_", name)[:_KEY_LENGTH]


def _metrics(row: Row) -> list[tuple[str, float]]:
    return [(name, value) for name, value in row.items() if name not in ("step", "time")]


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


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
