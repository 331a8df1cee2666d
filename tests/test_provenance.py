import hashlib
import shutil
import subprocess

import pytest

from enpar import provenance
from enpar.provenance import data_of, fingerprint, revision


def git(folder, *command):
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    done = subprocess.run(["git", "-C", folder, *identity, *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_fingerprints_are_those_of_sha256sum(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.txt", "a.txt", "inner/c.ann", ".hidden"):
        (tmp_path / name).write_text(f"in {name}")
    assert fingerprint([tmp_path / "a.txt"]) == hashlib.sha256(b"in a.txt").hexdigest()
    data = data_of(tmp_path, 3)
    command = "sha256sum a.txt b.txt inner/c.ann | sha256sum"
    expected = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert fingerprint(data.files) == expected.split()[0]
    (tmp_path / ".hidden").write_text("changed")
    assert fingerprint(data_of(tmp_path, 3).files) == expected.split()[0]
    (tmp_path / "inner/c.ann").rename(tmp_path / "inner/d.ann")
    assert fingerprint(data_of(tmp_path, 3).files) != expected.split()[0]


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "work.py").write_text("1")
    git(folder, "add", "work.py")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")


def installed(folder, monkeypatch):
    """As if enpar lay in a virtual environment there, which git leaves alone."""
    package = folder / ".venv" / "enpar"
    package.mkdir(parents=True)
    (package / "provenance.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))


@needs_git
def test_the_revision_of_the_working_directory(repository, monkeypatch):
    installed(repository, monkeypatch)
    monkeypatch.chdir(repository)
    head = git(repository, "rev-parse", "HEAD")
    assert revision() == {"commit": head, "dirty": "false"}
    (repository / "work.py").write_text("2")
    assert revision() == {"commit": head, "dirty": "true"}


@needs_git
def test_the_revision_of_a_checkout_comes_first(repository, tmp_path, monkeypatch):
    (repository / "provenance.py").touch()
    git(repository, "add", "provenance.py")
    git(repository, "commit", "--quiet", "-m", "second")
    monkeypatch.setattr(provenance, "__file__", str(repository / "provenance.py"))
    monkeypatch.chdir(tmp_path)
    assert revision() == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": "false"}


def test_no_revision_without_a_repository(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert revision() == {}
    monkeypatch.setenv("PATH", "")  # nor without git
    assert revision() == {}
