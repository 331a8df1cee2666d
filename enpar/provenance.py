"""What a run rests on: the versions, the git revision, and a fingerprint of the data that it reads."""

import getpass
import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from enpar.output import versions
from enpar.storage import Location

if TYPE_CHECKING:
    from enpar.documents import Chunk

_BLOCK = 1 << 20  # bytes


class Data(NamedTuple):
    """What a run reads: the place that its user named, the files, and how many sentences or documents they hold."""

    place: str
    files: Sequence[str | Path | Location]
    rows: int


def data_of(path: Path, rows: int) -> Data:
    """The data in a file, or in all files of a folder but hidden ones."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("[!.]*") if file.is_file())
    return Data(str(path), files, rows)


def text_of(input: str, chunks: Sequence["Chunk"]) -> dict[str, Data]:
    """Raw text as the data of a run; none if it came from standard input."""
    files = list(dict.fromkeys(piece.path for chunk in chunks for piece in chunk.slices))
    return {"input": Data(input, files, sum(chunk.documents for chunk in chunks))} if files else {}


def fingerprint(files: Sequence[str | Path | Location]) -> str:
    """SHA-256 of a file's bytes, as `sha256sum FILE` gives it; of several, as `sha256sum FILE … | sha256sum` does.

    The files are named from the folder that holds them all: `cd FOLDER && sha256sum part-*.parquet | sha256sum`.

    Raises:
        OSError: a file cannot be read.
    """
    if len(files) == 1:
        return _sha256(files[0])
    paths = [str(file) for file in files]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    lines = (f"{_sha256(path)}  {os.path.relpath(path, folder)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: str | Path | Location) -> str:
    digest = hashlib.sha256()
    with Location.of(file).open() as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def revision() -> dict[str, str]:
    """The git commit that enpar is run from, or else that of the working directory, and whether it is changed.

    Returns:
        `commit` and `dirty` (true or false); nothing where there is no git, or no repository.
    """
    package = Path(__file__).parent
    tracked = _git(package, "ls-files", "--error-unmatch", Path(__file__).name)  # installed: another's repository
    folder = package if tracked else Path.cwd()
    if not (commit := _git(folder, "rev-parse", "--verify", "HEAD")):
        return {}
    dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    return {"commit": commit, "dirty": str(dirty).lower()}


def _git(folder: Path, *command: str) -> str:
    arguments = ["git", "-C", str(folder), *command]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)  # noqa: S603  # fixed
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def tags() -> dict[str, str]:
    """Who and what makes a run, as MLflow tags: its own names where it has one, so that its pages show them."""
    found = {f"version.{name}": version for name, version in versions().items()}
    found |= {f"mlflow.source.git.{name}": value for name, value in revision().items()}
    return found | {"version.python": platform.python_version(), "mlflow.user": _user()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's number without a name
        return str(os.getuid())
