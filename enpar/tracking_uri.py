"""Where a run is tracked: the MLflow tracking URI, and what may be shown of it."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from enpar.config import Tracking
from enpar.errors import UserError
from enpar.output import in_ray_job
from enpar.storage import Location

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def tracking_uri(tracking: Tracking, output: Path | Location) -> str:
    """The setting, else the standard variable, else a database beside the output folder.

    Raises:
        UserError: it is none that MLflow knows, or the database would be lost.
    """
    given = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return f"sqlite:///{_folder(Location.of(output)) / 'mlflow.db'}"
    if urlsplit(given).scheme.split("+")[0] not in _SCHEMES and given != "databricks":
        key = "tracking.uri" if tracking.uri else "MLFLOW_TRACKING_URI"
        raise UserError(
            f"{key}: {without_secrets(given)}: expected such as http://host:5000 or sqlite:////path/mlflow.db"
        )
    return given


def _folder(output: Location) -> Path:
    """Where a database can be: beside the output or, where that is not on this machine, in the working directory."""
    if output.local:
        return output.local.absolute().parent
    if in_ray_job():
        raise UserError(
            "tracking.uri: a database would be lost with the copy of the working directory that a Ray job runs in; "
            "set MLFLOW_TRACKING_URI to a server, or tracking.enabled=false"
        )
    return Path.cwd()


def sqlite_file(uri: str) -> Path | None:
    """The database's file; None where a server has it."""
    scheme, _, path = uri.partition(":///")
    return Path(path.split("?")[0]).absolute() if scheme.startswith("sqlite") and path else None


@contextmanager
def alone(database: Path | None) -> Iterator[None]:
    """One command at a time: MLflow's creation of a database by two at once fails one of them."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with (database.parent / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def without_secrets(text: str) -> str:
    """Without user:password@ and without passwords or tokens in a query."""
    return re.sub(r"(?i)(password|passwd|pwd|token|secret)=[^&\s]*", r"\1=…", re.sub(r"//[^/\s]*@", "//", text))
