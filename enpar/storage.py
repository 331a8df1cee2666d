"""Where inputs are read and outputs are written: paths of this machine, and URIs of any filesystem that pyarrow knows.

Credentials and endpoints are not said here: each filesystem takes them from its standard environment variables, on
every node.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from enpar.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET = re.compile(r"(?i)[?&][^=&]*(password|passwd|pwd|token|secret|key|sas)[^=&]*=")
_REMEDY = {"s3": "check bucket, endpoint (AWS_ENDPOINT_URL) and credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"}
_LONGEST = 300  # characters of what a filesystem says of its failure


def is_uri(place: str) -> bool:
    """Whether it names its filesystem, such as s3://bucket/folder."""
    return bool(_URI.match(place))


def holds_secret(uri: str) -> bool:
    """Whether it has a password or a key in it."""
    return is_uri(uri) and (urlsplit(uri).password is not None or bool(_SECRET.search(uri)))


@dataclass(frozen=True, order=True)
class Location:
    """A file or folder, here or elsewhere, which need not be there.

    What a filesystem elsewhere refuses, or that it does not answer, is a UserError that says so in a line; that a file
    is not there, or a failure of this machine's, is the usual OSError.

    Args:
        place: a path of this machine, or a URI.
    """

    place: str

    @classmethod
    def of(cls, place: "Path | str | Location") -> "Location":
        """The location that a path, a URI or (as it is) a location names."""
        if isinstance(place, Location):
            return place
        split = urlsplit(str(place))
        return cls(unquote(split.path) if split.scheme == "file" else str(place))

    @property
    def local(self) -> Path | None:
        """The path, on this machine; None elsewhere."""
        return None if is_uri(self.place) else Path(self.place)

    @property
    def filesystem(self) -> "FileSystem":
        """The filesystem it is on; it can be pickled."""
        return self._resolved()[0]

    @property
    def path(self) -> str:
        """Its absolute path on that filesystem."""
        return self._resolved()[1]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.place if self.local else _path_of(self.place)).name

    @property
    def parent(self) -> "Location":
        """The folder it is in."""
        if self.local:
            return Location(str(self.local.parent))
        return Location(_with_path(self.place, str(PurePosixPath(_path_of(self.place)).parent)))

    def __str__(self) -> str:
        return self.place

    def __truediv__(self, name: str) -> "Location":
        if self.local:
            return Location(str(self.local / name))
        return Location(_with_path(self.place, f"{_path_of(self.place).rstrip('/')}/{name}"))

    def absolute(self) -> "Location":
        """The same, whatever the working directory."""
        return Location(str(self.local.absolute())) if self.local else self

    def within(self, folder: "Location") -> bool:
        """Whether it is this folder, or in it."""
        if self.local and folder.local:
            return self.local.resolve().is_relative_to(folder.local.resolve())
        if self.local or folder.local or urlsplit(self.place)[:2] != urlsplit(folder.place)[:2]:
            return False
        return PurePosixPath(self.path).is_relative_to(folder.path)

    # ---- What is there ----------------------------------------------------------------------------------------------

    def kind(self) -> Literal["file", "folder"] | None:
        """What is there; None for nothing."""
        info = self._info()
        return "file" if info.is_file else "folder" if info.type.name == "Directory" else None

    def size(self) -> int:
        """Bytes of the file."""
        return int(self._info().size)

    def empty(self) -> bool:
        """Whether there is nothing in the folder, or no folder."""
        return not self._listing(recursive=False)

    def files(self, recursive: bool = False) -> "dict[Location, int]":
        """The files in the folder with their bytes, in order; none if there is no folder."""
        found = {info.path.removeprefix(f"{self.path}/"): info for info in self._listing(recursive)}
        return {self / name: int(found[name].size) for name in sorted(found) if found[name].is_file}

    def open(self) -> pa.NativeFile:
        """The file, to be read; its own failures later are OSErrors."""
        with self._reached():
            return self.filesystem.open_input_file(self.path)

    def read_text(self) -> str:
        """What the file says."""
        with self.open() as file, self._reached():
            return str(file.read().decode("utf-8"))

    # ---- Changes ----------------------------------------------------------------------------------------------------

    def write_text(self, text: str) -> None:
        """Make it a file that says this, all at once."""
        with atomic(self) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def remove(self) -> None:
        """Remove the file, or the folder with all that is in it, if it is there."""
        kind = self.kind()
        with self._reached():
            if kind == "folder":
                self.filesystem.delete_dir(self.path)
            elif kind == "file":
                self.filesystem.delete_file(self.path)

    def upload(self, path: Path) -> None:
        """Have it hold what a local file or folder holds, beside what it holds already; each file all at once."""
        from pyarrow.fs import LocalFileSystem, copy_files

        with self._reached():
            copy_files(str(path), self.path, LocalFileSystem(), self.filesystem)

    def download(self, path: Path) -> None:
        """Copy it, a file or a folder, to a local path."""
        from pyarrow.fs import LocalFileSystem, copy_files

        if self.kind() == "folder":
            path.mkdir(parents=True, exist_ok=True)
        with self._reached():
            copy_files(self.path, str(path), self.filesystem, LocalFileSystem())

    # -----------------------------------------------------------------------------------------------------------------

    def _resolved(self) -> "tuple[FileSystem, str]":
        from pyarrow.fs import LocalFileSystem

        if self.local:
            return LocalFileSystem(), str(self.local.absolute())
        with self._reached():
            filesystem, base = _filesystem(_with_path(self.place, ""))
        return filesystem, base.rstrip("/") + _path_of(self.place).rstrip("/")

    def _info(self) -> "FileInfo":
        with self._reached():
            return self.filesystem.get_file_info(self.path)

    def _listing(self, recursive: bool) -> "list[FileInfo]":
        from pyarrow.fs import FileSelector

        with self._reached():
            found: list[FileInfo] = self.filesystem.get_file_info(FileSelector(self.path, True, recursive))
        return found

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if self.local or isinstance(error, FileNotFoundError):
                raise
            said = str(error).splitlines()[0][:_LONGEST]
            remedy = _REMEDY.get(urlsplit(self.place).scheme, "name a URI that pyarrow can reach from here")
            raise UserError(f"{self}: {said}; {remedy}") from None


def _path_of(uri: str) -> str:
    """The path in a URI, as it is: `%` and `#` mean themselves."""
    return urlsplit(uri, allow_fragments=False).path


def _with_path(uri: str, path: str) -> str:
    """The URI with another path; `urlunsplit` would drop the slashes of one without a host."""
    scheme, host, _, query, _ = urlsplit(uri, allow_fragments=False)
    return f"{scheme}://{host}{path}" + (f"?{query}" if query else "")


@lru_cache(maxsize=32)
def _filesystem(root: str) -> "tuple[FileSystem, str]":
    """The filesystem of a URI without its path, and what its paths begin with, such as the bucket."""
    from pyarrow.fs import FileSystem

    filesystem, base = FileSystem.from_uri(root)
    return filesystem, base


@contextmanager
def atomic(place: Path | Location) -> Iterator[Path]:
    """A temporary local path that takes its place if the block ends well, and goes away if not.

    The block may make it a file or a folder; a folder replaces nothing. Elsewhere than on this machine, each file
    appears all at once, but a folder does not.
    """
    path = place.local if isinstance(place, Location) else place
    if path is None:
        assert isinstance(place, Location)
        with TemporaryDirectory(prefix="enpar-") as folder:
            yield Path(folder) / "content"
            place.upload(Path(folder) / "content")
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock, a file, once nobody else does; it goes with the process that holds it, whatever ends that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
