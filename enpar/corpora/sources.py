"""What a corpus is fetched from: a folder, a file, an archive or a URL. Only files that are asked for are read."""

import http.client
import lzma
import shutil
import stat
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.parse import urlsplit

from enpar.errors import UserError

_LARGEST = 2**31  # bytes of a file that is read into memory
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


def read(source: str, remedy: str) -> bytes:
    """Read a file, or what a URL holds.

    Raises:
        UserError: it cannot be had; the message ends in the remedy.
    """
    with _local(source, remedy) as path:
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"source: {source}: {error.strerror or error}; {remedy}") from None


def members(source: str, wanted: Collection[str], remedy: str) -> dict[str, bytes]:
    """Read those of the wanted files that a source has.

    Args:
        source: a folder, a .tar, .tar.gz or .zip, one of the files itself, a URL of such a file, or a URL that ends in
            `/`, behind which every wanted file is asked for. In folders and archives the files may lie at any depth.
        wanted: names of files.
        remedy: what the user can do if the source cannot be had.

    Raises:
        UserError: the source cannot be had, or has a file twice, or too large a one.
    """
    if _is_url(source) and source.endswith("/"):
        return dict(_present(source, wanted, remedy))
    with _local(source, remedy) as path:
        name = PurePosixPath(urlsplit(source).path).name if _is_url(source) else path.name
        if name in wanted and path.is_file():
            return {name: path.read_bytes()}
        try:
            return _unique(_found(path, wanted), source)
        except _BROKEN as error:
            reason = str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(":")
            raise UserError(
                f"source: {source}: not to be read as a folder, .tar, .tar.gz or .zip ({reason}); {remedy}"
            ) from None


class _AbsentError(UserError):
    """A server says that it has no such file."""


def _present(folder: str, wanted: Collection[str], remedy: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the wanted files that a server has behind a URL."""
    for name in wanted:
        with suppress(_AbsentError):
            yield name, read(folder + name, remedy)


def _is_url(source: str) -> bool:
    return source.startswith(("https://", "http://"))


@contextmanager
def _local(source: str, remedy: str) -> Iterator[Path]:
    """A path as it is, or a temporary file with what a URL holds."""
    if not _is_url(source):
        yield Path(source)
        return
    with tempfile.NamedTemporaryFile() as file:
        try:
            with urllib.request.urlopen(source, timeout=60) as response:  # noqa: S310  # the scheme is checked above
                shutil.copyfileobj(response, file)
                length = response.headers.get("Content-Length")
        except (OSError, ValueError, http.client.HTTPException) as error:
            kind = _AbsentError if isinstance(error, HTTPError) and error.code == http.client.NOT_FOUND else UserError
            raise kind(f"source: {source}: {getattr(error, 'strerror', None) or error}; {remedy}") from None
        file.flush()
        if length is not None and file.tell() != int(length):
            raise UserError(
                f"source: {source}: broke off after {file.tell()} of {length} bytes; try again, or {remedy}"
            )
        yield Path(file.name)


def _found(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """(path within the source, content) of the wanted files.

    What an archive would put elsewhere, and what is no plain file (a link, a device), is passed over. Nothing is
    unpacked: contents are read, and written under names of our own.
    """
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.name in wanted and file.is_file():
                yield str(file.relative_to(path)), file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                link = stat.S_ISLNK(info.external_attr >> 16)
                if not info.is_dir() and not link and _asked_for(info.filename, info.file_size, wanted):
                    yield info.filename, archive.read(info)
    else:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isreg() and _asked_for(member.name, member.size, wanted):
                    content = tar.extractfile(member)
                    assert content is not None  # it is a regular file
                    yield member.name, content.read()


def _asked_for(name: str, size: int, wanted: Collection[str]) -> bool:
    path = PurePosixPath(name)
    if path.name not in wanted or path.is_absolute() or ".." in path.parts:
        return False
    if size > _LARGEST:
        raise ValueError(f"{name} has {size} bytes")
    return True


def _unique(found: Iterator[tuple[str, bytes]], source: str) -> dict[str, bytes]:
    places: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for place, content in found:
        name = PurePosixPath(place).name
        if name in places:
            raise UserError(f"source: {source} has {name} twice, {places[name]} and {place}; name the folder of one")
        places[name], contents[name] = place, content
    return contents
