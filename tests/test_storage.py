from pathlib import Path

import pytest
from pyarrow.fs import FileSystem

from enpar import storage
from enpar.config import AnnotateJob, PretrainJob
from enpar.errors import UserError
from enpar.storage import Location, atomic

ELSEWHERE = "mock://"  # a filesystem in memory that pyarrow has for tests


@pytest.fixture(autouse=True)
def _filesystem(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = FileSystem.from_uri(ELSEWHERE)
    known = storage._filesystem
    monkeypatch.setattr(storage, "_filesystem", lambda root: fresh if root == ELSEWHERE else known(root))


@pytest.fixture(params=["here", "elsewhere"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    location = Location.of(tmp_path / "folder") if request.param == "here" else Location("mock:///folder")
    location.filesystem.create_dir(location.path)
    return location


def test_what_is_written_is_there(folder: Location) -> None:
    assert folder.kind() == "folder" and folder.empty() and folder.files() == {}
    (folder / "b 1#.txt").write_text("übung")
    (folder / "a.txt").write_text("")
    assert (folder / "b 1#.txt").read_text() == "übung"
    assert (folder / "a.txt").kind() == "file" and (folder / "c").kind() is None
    assert folder.files() == {folder / "a.txt": 0, folder / "b 1#.txt": 6} and not folder.empty()
    (folder / "a.txt").remove()
    (folder / "a.txt").remove()
    assert list(folder.files()) == [folder / "b 1#.txt"]
    folder.remove()
    assert folder.kind() is None and folder.empty()
    with pytest.raises(FileNotFoundError):
        (folder / "a.txt").read_text()


def test_a_block_that_breaks_off_leaves_what_was_there(folder: Location) -> None:
    (folder / "x").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(folder / "x") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (folder / "x").read_text() == "old" and len(folder.files()) == 1


def test_folders_are_copied_both_ways(folder: Location, tmp_path: Path) -> None:
    (tmp_path / "from" / "in").mkdir(parents=True)
    (tmp_path / "from" / "in" / "x").write_text("1")
    (folder / "kept").write_text("")
    folder.upload(tmp_path / "from")
    assert list(folder.files(recursive=True)) == [folder / "in" / "x", folder / "kept"]
    (folder / "in").download(tmp_path / "to")
    assert (tmp_path / "to" / "x").read_text() == "1"


def test_a_uri_keeps_what_stands_behind_its_path() -> None:
    location = Location("s3://bucket/a/?scheme=http") / "b" / "c#1"
    assert str(location) == "s3://bucket/a/b/c#1?scheme=http"
    assert (location.name, str(location.parent)) == ("c#1", "s3://bucket/a/b?scheme=http")
    assert location.local is None and Location.of("file:///a%20b").local == Path("/a b")


def test_what_lies_within_what(tmp_path: Path) -> None:
    assert Location("mock:///a/b").within(Location("mock:///a/")) and Location("mock:///a").within(
        Location("mock:///a")
    )
    assert not Location("mock:///ab").within(Location("mock:///a"))
    assert not Location("mock:///a/b").within(Location("/a")) and not Location("/a/b").within(Location("mock:///a"))
    (tmp_path / "link").symlink_to(tmp_path)
    assert Location.of(tmp_path / "link" / "x").within(Location.of(tmp_path))


def test_an_unknown_filesystem_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"foo://b/x: Unrecognized filesystem type"):
        Location("foo://b/x").kind()


def test_settings_keep_a_uri_and_record_it_as_it_is() -> None:
    job = AnnotateJob(input="s3://b/in", output="s3://b/out?region=x")
    assert job.output == Location("s3://b/out?region=x")
    assert job.model_dump(mode="json")["output"] == "s3://b/out?region=x"
    job = PretrainJob(data="file:///d", output=2026, train={"steps": 1})
    assert (Location.of(job.data).local, job.output) == (Path("/d"), Path("2026"))
