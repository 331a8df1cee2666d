"""The files of an input: which they are, of which kind, and how they are opened."""

import glob
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, cast

import pyarrow as pa

from enpar.errors import UserError
from enpar.storage import Location

KINDS = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
_KNOWN = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
_AHEAD = 1 << 20  # bytes that are read at once: an object store takes its time for each request


@dataclass(frozen=True, slots=True)
class File:
    """A file of documents: where it is, what it is called within its input (its path from the input's root), bytes."""

    path: str
    name: str
    size: int


def find(input: str) -> list[File]:
    """The files of an input, ordered by name; hidden files of a folder are passed over.

    Raises:
        UserError: there is no such file or folder, or no file of a known kind in it.
    """
    location = Location.of(input)
    path = location.local
    if input and location.kind() == "file":
        if not kind_of(location.name):
            raise UserError(f"input: {input}: unknown kind of file; {_KNOWN} can be read")
        return [File(str(location.absolute()), location.name, location.size())]
    if path is None:
        return _elsewhere(location)
    if input and path.is_dir():
        root, paths = path, [p for p in path.rglob("*") if not _hidden(p.relative_to(path))]
    elif glob.has_magic(input):
        root, paths = _fixed(path), [Path(p) for p in glob.glob(input, recursive=True)]
    else:
        raise UserError(f"input: {input or '(nothing)'}: no such file or folder; name a file, a folder or a glob")
    files = {p.relative_to(root).as_posix(): p.absolute() for p in paths if kind_of(p.name) and p.is_file()}
    if not files:
        raise UserError(f"input: {input}: no file ends in {_KNOWN}")
    return [File(str(files[name]), name, files[name].stat().st_size) for name in sorted(files)]


def _elsewhere(folder: Location) -> list[File]:
    """The files in a folder of another filesystem."""
    if folder.kind() is None:
        raise UserError(f"input: {folder}: no such file or folder; name a file or a folder (globs are for local paths)")
    sizes = folder.files(recursive=True)
    files = {file.path.removeprefix(f"{folder.path}/"): file for file in sizes}
    known = [name for name in sorted(files) if kind_of(name) and not _hidden(PurePosixPath(name))]
    if not known:
        raise UserError(f"input: {folder}: no file ends in {_KNOWN}")
    return [File(str(files[name]), name, sizes[files[name]]) for name in known]


def sizes(input: str) -> dict[str, str]:
    """The size of every file of an input, by name: tells whether the input is still what was planned for."""
    return {file.name: f"{file.size} bytes" for file in find(input)}


def kind_of(name: str) -> str | None:
    """One of `KINDS`, or None where it cannot be read."""
    name = Location(name).name.lower()  # of a URI it is not what comes last
    return next((kind for kind in KINDS if name.endswith(kind)), None)


def _hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _fixed(pattern: Path) -> Path:
    """The leading folders of a glob in which nothing is left open."""
    while glob.has_magic(str(pattern)):
        pattern = pattern.parent
    return pattern


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Name the file that cannot be read."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"input: {path}: cannot be read ({reason}); mend it or leave it out") from None


def open_bytes(path: str) -> IO[bytes]:
    """The lines of JSONL, unpacked."""
    file = io.BufferedReader(Location(path).open(), _AHEAD)
    return cast(IO[bytes], gzip.GzipFile(fileobj=file) if kind_of(path) == ".jsonl.gz" else file)
