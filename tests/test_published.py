"""Labelled corpora from where they are published: checked, and written under known names only.

The corpora are small ones of our own, and the published figures are set to theirs.
"""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from enpar.config import FetchJob
from enpar.corpora import fetch, load, published
from enpar.errors import UserError

DOCUMENT = {"doc_key": "D", "sentences": [["a", "b"], ["c"]], "ner": [[[0, 0, "X"], [1, 1, "Y"]], []]}
CONTENTS = {
    name: (json.dumps(DOCUMENT | {"relations": [[[0, 0, 1, 1, name]], []]}) + "\n").encode()
    for name in ("train.json", "dev.json", "test.json")
}
COUNTS = {split: {"documents": 1, "sentences": 2, "entities": 2, "relations": 1} for split in ("train", "dev", "test")}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """SciERC as if it were as small as ours."""
    change(monkeypatch, "scierc", counts=COUNTS)


def change(monkeypatch, name, **values):
    monkeypatch.setitem(published.PUBLICATIONS, name, replace(published.PUBLICATIONS[name], **values))


@pytest.fixture
def server(tmp_path):
    """(folder, URL): what is put into the folder is served under the URL."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path.endswith("broken.tar.gz"):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 10)
            else:
                super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def put(folder, files=CONTENTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def get(tmp_path, source, name="scierc"):
    return fetch.run(FetchJob(name=name, output=tmp_path / "out", source=str(source) if source else None))


def refused(tmp_path, source, name="scierc"):
    with pytest.raises(UserError) as error:
        get(tmp_path, source, name)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def written(tmp_path):
    return {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.name not in ("manifest.json", "_SUCCESS")}


DEEP = {f"processed_data/json/{name}": content for name, content in CONTENTS.items()} | {"processed_data/x.hdf5": b"x"}


@pytest.mark.parametrize("kind", ["folder", "deep folder", "tar", "zip"])
def test_folders_and_archives_are_read_at_any_depth(tmp_path, kind, caplog):
    if kind == "tar":
        source = tar(tmp_path / "x.tar.gz", DEEP)
    elif kind == "zip":
        source = zipped(tmp_path / "x.zip", DEEP)
    else:
        put(tmp_path / "x" / ("a/b" if kind == "deep folder" else "."))
        source = tmp_path / "x"
    with caplog.at_level("INFO", logger="enpar"):
        result = get(tmp_path, source)
    assert written(tmp_path) == CONTENTS
    assert result["path"] == str(tmp_path / "out")
    assert result["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    assert result["documents"] == 3
    assert result["splits"]["dev"]["kept"] == COUNTS["dev"]
    assert result["splits"]["dev"]["relation_types"] == ["dev.json"]
    assert "dev: dev.json: scierc; read 1 documents, 2 sentences" in caplog.text
    assert load(None, tmp_path / "out/test.json")[0].doc_id == "D"
    assert get(tmp_path, source) == result


def test_a_url_may_be_an_archive_or_a_folder_of_files(tmp_path, server, monkeypatch):
    folder, url = server
    tar(folder / "x.tar.gz", DEEP)
    change(monkeypatch, "scierc", url=url + "x.tar.gz")
    monkeypatch.setitem(fetch._OFFICIAL, "scierc", url + "x.tar.gz")
    assert get(tmp_path, None)["source"] == url + "x.tar.gz"
    assert written(tmp_path) == CONTENTS
    put(folder / "files")
    assert fetch.run(FetchJob(name="scierc", output=tmp_path / "2", source=url + "files/"))["documents"] == 3
    # A file by itself is what it is called, and what a server has not is missing, as in a folder.
    assert "train.json has no dev.json, test.json; " in refused(tmp_path / "3", url + "files/train.json")
    (folder / "files/dev.json").unlink()
    assert "files/ has no dev.json; " in refused(tmp_path / "3", url + "files/")


def test_a_download_that_fails_or_breaks_off_leaves_nothing(tmp_path, server):
    _, url = server
    assert "File not found; download sciERC_processed.tar.gz" in refused(tmp_path, url + "none.tar.gz")
    assert "broke off after 10 of 1000 bytes" in refused(tmp_path, url + "broken.tar.gz")
    assert "refused" in refused(tmp_path, "http://127.0.0.1:9/x.tar.gz")


def test_what_an_archive_would_put_elsewhere_is_not_taken(tmp_path):
    rest = {name: CONTENTS[name] for name in ("dev.json", "test.json")}
    for bad in ("../train.json", "a/../../train.json", "/train.json"):
        for make, name in ((tar, "x.tar.gz"), (zipped, "x.zip")):
            source = make(tmp_path / name, {bad: CONTENTS["train.json"], **rest})
            assert f"{source} has no train.json; download" in refused(tmp_path, source)


def test_links_in_archives_are_not_followed(tmp_path):
    put(tmp_path, {"secret": CONTENTS["train.json"]})
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(tmp_path / "y.tar", "w") as archive:
            info = tarfile.TarInfo("train.json")
            info.type, info.linkname = kind, str(tmp_path / "secret")
            archive.addfile(info)
        assert "y.tar has no train.json, dev.json, test.json" in refused(tmp_path, tmp_path / "y.tar")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("train.json")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, str(tmp_path / "secret"))
    assert "x.zip has no train.json" in refused(tmp_path, tmp_path / "x.zip")


def test_a_file_given_twice_is_not_chosen_from(tmp_path):
    put(tmp_path / "x" / "one")
    put(tmp_path / "x" / "two")
    assert "has dev.json twice, one/dev.json and two/dev.json" in refused(tmp_path, tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08broken", b"PK\x03\x04broken"])
def test_what_is_no_archive_is_told(tmp_path, content):
    put(tmp_path, {"x.tar.gz": content})
    message = refused(tmp_path, tmp_path / "x.tar.gz")
    assert "not to be read as a folder, .tar, .tar.gz or .zip" in message
    assert "source=FILE" in message


def test_half_an_archive_is_told(tmp_path):
    whole = tar(tmp_path / "x.tar.gz", {"train.json": bytes(range(256)) * 1000}).read_bytes()
    put(tmp_path, {"x.tar.gz": whole[: len(whole) // 2]})
    assert "not to be read" in refused(tmp_path, tmp_path / "x.tar.gz")


def test_counts_other_than_the_published_ones_are_refused(tmp_path, monkeypatch):
    change(monkeypatch, "scierc", counts=COUNTS | {"dev": {"sentences": 3, "entities": 2, "relations": 5}})
    message = refused(tmp_path, put(tmp_path / "x"))
    assert "dev.json has 2 sentences, published are 3; 1 relations, published are 5" in message


def test_a_malformed_file_is_named_by_its_own_name(tmp_path):
    source = put(tmp_path / "x", CONTENTS | {"test.json": b'{"doc_key"\n'})
    assert refused(tmp_path, source).startswith(f"source: {source}: test.json:1: not JSON")


def test_conll04_in_sperts_files(tmp_path, server, monkeypatch):
    folder, url = server
    item = {"tokens": ["a"], "entities": [{"type": "Peop", "start": 0, "end": 1}], "relations": []}
    files = {f"conll04_{split}.json": json.dumps([item]).encode() for split in ("train", "dev", "test")}
    put(folder, files | {"conll04_types.json": b"{}", "conll04_train_dev.json": b"[]"})
    assert "conll04_train.json has 1 sentences, published are 922" in refused(tmp_path, url, "conll04")
    change(monkeypatch, "conll04", counts={})
    get(tmp_path, url, "conll04")
    assert written(tmp_path) == files | {"conll04_types.json": b"{}"}


def test_nyt_may_lack_dev_and_hold_lines_that_cannot_be_read(tmp_path, caplog):
    item = {"sentText": "Ada left", "entityMentions": [{"text": "Ada", "label": "P"}], "relationMentions": []}
    good = (json.dumps(item) + "\n").encode()
    bad = (json.dumps(item | {"sentText": "Bob left"}) + "\n").encode()
    source = tar(
        tmp_path / "x.tar.gz", {"nyt/train.json": good + bad, "nyt/test.json": good, "nyt/test_noise.json": good}
    )
    result = get(tmp_path, source, "nyt")
    assert set(written(tmp_path)) == {"train.json", "test.json", "test_noise.json"}
    assert result["splits"].keys() == {"train", "test"}
    assert result["splits"]["train"]["rejected"] == {"malformed sentences": 1}
    assert [m.split(":")[0] for m in caplog.messages if "corpus.on_error=skip" in m] == ["train.json"]


def test_a_login_or_licence_is_told_with_what_to_do(tmp_path, monkeypatch):
    change(monkeypatch, "nyt", url="http://127.0.0.1:9/x.tar.gz")
    message = refused(tmp_path, None, "nyt")
    assert "source=FILE" in message and "Google Drive" in message
