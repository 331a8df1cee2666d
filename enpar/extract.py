"""`enpar extract`: raw text → its sentences with entities and relations, as JSON lines with character offsets.

The unit of work is a chunk of documents. A run that was broken off goes on with those that are not done yet.
"""

import hashlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, TextIO

from enpar.chunks import Worker, in_this_process, on_ray, workers_for
from enpar.config import ExtractJob
from enpar.documents import Chunk, Document, Reader, Rejected, apart, plan
from enpar.errors import UserError
from enpar.extractor import Extractor
from enpar.files import find, sizes
from enpar.given import read_item
from enpar.output import Output
from enpar.parts import HIDDEN, Parts
from enpar.pretrained import WEIGHTS, extraction_settings
from enpar.provenance import text_of
from enpar.records import Unfit, parse_text
from enpar.sentence import json_line
from enpar.spacy_pipeline import locate
from enpar.splitter import load_splitter
from enpar.storage import Location, atomic
from enpar.tracking import check_tracking, finished, track

log = logging.getLogger("enpar")
STANDARD = "-"  # standard input or output in place of a file
COUNTS = ("documents", "sentences", "entities", "relations", "kept")
_ALONE = 8_000_000  # bytes of input that one process does by default, rather than wait for Ray to start
_SECONDS_BETWEEN_LINES = 10.0


def run(job: ExtractJob) -> dict[str, Any] | None:
    """Extract from a whole input; no result, but JSON lines, if the output is `-`.

    Raises:
        UserError: the model, the input or the output is at fault; found out before torch and Ray are loaded, but for
            weights or a parquet file that are corrupt inside.
    """
    began = time.monotonic()
    output = None if job.output == STANDARD else Output(Location.of(job.output), "extract", job.model_dump(mode="json"))
    if output is not None and (result := finished(output, job.tracking, job.overwrite)) is not None:
        return result
    extraction_settings(job.model)
    if job.spacy_model is not None:
        locate(job.spacy_model)
    chunks = None if job.input == STANDARD else plan(job.input, job.documents_per_part)
    if output is None:
        _print(job, chunks)
        return None
    if chunks is not None:
        apart(output.location, job.input, chunks)
    check_tracking(job.tracking, output.location)
    parts = Parts(output.location.absolute(), len(chunks or "-"), HIDDEN + "/{}.jsonl", COUNTS)
    input = _input(job)
    if not job.overwrite:
        parts.begun.check(input)
    workers = _workers(job, chunks or ())
    output.claim(job.overwrite)
    parts.begun.keep(input)
    with track(output, job.tracking, "extract", data=text_of(job.input, chunks or ())) as tracked:
        _extract(job, parts, chunks, workers)
        parts.join("sentences.jsonl")
        result = {"output": job.output, **parts.finish(), "seconds": round(time.monotonic() - began, 3)}
        output.finish(result)
        parts.forget()
        tracked.finish(result)
    return result


def _input(job: ExtractJob) -> dict[str, str]:
    """What must be the same when a run that was broken off goes on: the files, and the model."""
    with (job.model / WEIGHTS).open("rb") as file:
        weights = hashlib.file_digest(file, "blake2b").hexdigest()[:16]
    return {**({} if job.input == STANDARD else sizes(job.input)), str(job.model / WEIGHTS): weights}


def _workers(job: ExtractJob, chunks: Sequence[Chunk]) -> int:
    """How many workers there are to be on Ray, where that is asked for or pays; 0 is this process."""
    if job.num_workers == 0 or (job.num_workers is None and (len(chunks) < 2 or _size(job.input) <= _ALONE)):
        return 0
    return workers_for(job.num_workers, len(chunks), job.wait, gpus=True)


def _extract(job: ExtractJob, parts: Parts, chunks: Sequence[Chunk] | None, workers: int) -> None:
    """Write the parts."""
    if chunks is None:
        ChunkExtractor(job, parts, None).write(0, _standard_input(job))
        return
    if not workers:
        in_this_process("extract", ChunkExtractor(job, parts, None), parts, chunks)
        return
    pipeline = None if job.spacy_model is None else locate(job.spacy_model)[0]
    places = {"model": job.model.absolute(), "spacy_model": pipeline}  # whatever the workers' directory is
    arguments = {"job": job.model_copy(update=places), "parts": parts, "threads": 1}
    on_ray("extract", ChunkExtractor, arguments, parts, chunks, workers, gpus=True)


def _size(input: str) -> int:
    """Bytes of the files of an input."""
    return sum(file.size for file in find(input))


def _print(job: ExtractJob, chunks: Iterable[Chunk] | None) -> None:
    """Write JSON lines to standard output, as they are found."""
    reader = Reader(job.max_characters, read_item)
    documents = _standard_input(job) if chunks is None else (item for chunk in chunks for item in reader.read(chunk))
    counts, rejected = write(_extractor(job, None), documents, sys.stdout)
    for item in rejected:
        log.info("extract: %s, line %d: %s: %s", item.file, item.line, item.reason, item.detail)
    reasons = Counter(item.reason for item in rejected)
    log.info("extract: %s", json.dumps({name: counts[name] for name in COUNTS} | {"rejected": reasons}))


def _standard_input(job: ExtractJob) -> Iterator[Document | Rejected]:
    """Standard input as one document."""
    try:
        name, text, start, _ = parse_text("stdin", sys.stdin.buffer.read())
    except Unfit as unfit:
        raise UserError(f"input: standard input: {': '.join(unfit.args)}") from None
    if len(text) > job.max_characters:
        raise UserError(f"input: {len(text)} characters; max_characters is {job.max_characters}")
    empty = Rejected(STANDARD, 1, "empty", "nothing visible")
    yield Document(name or "", text, STANDARD, 1, start) if text.strip() else empty


# ---- The worker -----------------------------------------------------------------------------------------------------


class ChunkExtractor(Worker):
    """Takes chunks, and writes their parts and statistics."""

    def __init__(self, job: ExtractJob, parts: Parts, threads: int | None) -> None:
        self._job, self._parts, self._threads = job, parts, threads
        self._reader = Reader(job.max_characters, read_item)

    @cached_property
    def _extractor(self) -> Extractor:
        # Loaded by the first chunk: Ray tells the user's errors from its own only where a chunk is done.
        return _extractor(self._job, self._threads)

    def work(self, chunk: Chunk) -> None:
        """Extract from the documents of a chunk."""
        self.write(chunk.id, self._reader.read(chunk))

    def write(self, number: int, documents: Iterable[Document | Rejected]) -> None:
        """Write the part of a chunk's documents, and its statistics."""
        with atomic(self._parts.part(number)) as temporary, temporary.open("w", encoding="utf-8") as file:
            counts, rejected = write(self._extractor, documents, file)
        self._parts.done(number, counts, rejected)


def write(
    extractor: Extractor, documents: Iterable[Document | Rejected], file: TextIO
) -> tuple[Counter[str], list[Rejected]]:
    """Write what is found as it is found; what was counted, and the documents that cannot be used."""
    counts: Counter[str] = Counter()
    rejected: list[Rejected] = []

    def accepted() -> Iterator[Document]:
        for item in documents:
            counts["documents"] += 1
            if isinstance(item, Document):
                counts["kept"] += 1
                yield item
            else:
                rejected.append(item)

    said = time.monotonic()
    for record in extractor.stream(accepted()):
        counts.update(sentences=1, entities=len(record["entities"]), relations=len(record["relations"]))
        file.write(json_line(record) + "\n")
        if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            log.info(f"extract: {counts['sentences']:,} sentences of {counts['documents']:,} documents")
    file.flush()
    return counts, rejected


def _extractor(job: ExtractJob, threads: int | None) -> Extractor:
    from enpar.model.device import use_cpus

    use_cpus(threads)
    return Extractor(job.model, job.batch_wordpieces, load_splitter(job.spacy_model))
