"""What an output folder remembers of its run in MLflow, so that what could not be sent is sent later, and once."""

import fcntl
import re
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from pydantic import BaseModel, PrivateAttr, ValidationError

from enpar.errors import UserError
from enpar.storage import Location
from enpar.tracking_uri import without_secrets

RUN_FILE = ".mlflow_run"
_LOCK = ".mlflow_lock"
_POLL = 0.1  # seconds between two looks at a lock


class Sent(BaseModel):
    """What one tracking server has of the run."""

    key: str = ""
    """A tag of the run: finds it again where the server's answer to its creation was lost."""
    run: str = ""
    """The run's id."""
    steps: dict[str, int] = {}
    """The last step of each metric."""
    status: str = ""
    """How the run ended, once the server has all of it."""


class Record(BaseModel):
    """The file `.mlflow_run` of an output folder."""

    parent: str | None = None
    """The run that it belongs to: an output folder or a run id."""
    name: str = ""
    """Its name, where the default is not meant."""
    tags: dict[str, str] = {}
    began: float = 0.0
    ended: float = 0.0
    status: str = ""
    """How it ended; nothing if its process was killed before it could say."""
    data: dict[str, tuple[str, int, str]] = {}
    """What the run reads, by context: place, rows, SHA-256."""
    artifacts: list[str] = []
    """Paths from the output folder."""
    runs: dict[str, Sent] = {}
    """By tracking URI, without secrets."""
    _file: Location = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @classmethod
    def of(cls, folder: Path | Location) -> "Record":
        """The record of an output folder; an empty one if it has none."""
        file = Location.of(folder) / RUN_FILE
        try:
            record = cls.model_validate_json(file.read_text())
        except (OSError, ValidationError):
            record = cls()
        record._file = file
        return record

    def sent(self, uri: str) -> Sent:
        """What the server of a tracking URI has."""
        return self.runs.setdefault(without_secrets(uri), Sent())

    def begin(self, parent: str | None, name: str | None, tags: dict[str, str]) -> None:
        """A process begins or continues the run."""
        self.parent, self.name = parent or self.parent, name or self.name
        self.tags, self.began, self.ended, self.status = tags, self.began or time.time(), 0.0, ""
        self.save()

    def save(self) -> None:
        """Write the file."""
        with self._lock:
            self._file.write_text(self.model_dump_json() + "\n")


def hold(folder: Location) -> AbstractContextManager[object]:
    """Say that this process copies the run of an output folder, until the end of the block or of the process.

    Of a folder that is not on this machine nothing is said.
    """
    if folder.local is None:
        return nullcontext()
    lock = (folder.local / _LOCK).open("a")
    with suppress(OSError):  # a file system without locks
        fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def held(folder: Location, patience: float = 0.0) -> bool:
    """Whether a process copies the run of an output folder; of one that is not on this machine it is not known.

    Args:
        folder: the output folder.
        patience: seconds that are waited for the end of a process.
    """
    end = time.monotonic() + patience
    while locked := folder.local is not None and _locked(folder.local / _LOCK):
        if time.monotonic() >= end:
            break
        time.sleep(_POLL)
    return locked


def _locked(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never held, or a file system without locks
        return False
    return False


def check_parent(parent: str | None, output: Path | Location | None = None) -> None:
    """See that this may be the parent of an output folder's run.

    Raises:
        UserError: it is neither another folder nor looks like the id of a run.
    """
    if parent and output and Location.of(parent).absolute() == Location.of(output).absolute():
        raise UserError(f"tracking.parent: {parent}: the run's own output folder; name that of another")
    if parent and not Path(parent).is_dir() and not re.fullmatch("[0-9a-f]{32}", parent):
        raise UserError(f"tracking.parent: {parent}: neither an output folder nor the id of an MLflow run")


def parent_run(parent: str, uri: str) -> str:
    """The id of the run that a parent has on a server.

    Raises:
        UserError: as `check_parent`; or the server has no run of that folder, or not yet.
    """
    check_parent(parent)
    if not Path(parent).is_dir():
        return parent
    if not (run := Record.of(Path(parent)).sent(uri).run):
        raise UserError(f"tracking.parent: {without_secrets(uri)} has no run of {parent}")
    return run
