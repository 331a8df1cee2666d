"""`enpar annotate`: raw text → sentences with entities, by spaCy on Ray Data.

The unit of work is a chunk of documents. A run that was broken off goes on with those that are not done yet. Which
worker takes a chunk changes nothing in what is written.
"""

import logging
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray
from ray.util.annotations import RayDeprecationWarning

from enpar import cluster
from enpar.config import AnnotateJob
from enpar.documents import Chunk, Document, Reader, Rejected, Slice, apart, plan
from enpar.errors import UserError
from enpar.files import sizes
from enpar.output import Output
from enpar.parts import COUNTS, Parts
from enpar.sentence import Sentence
from enpar.spacy_pipeline import Pipeline, choose, sentences_of
from enpar.tracking import check_tracking, track

log = logging.getLogger("enpar")

# spaCy needs about 10 kB a character while the parser and NER run: bounds on what one worker has in hand at once.
_BATCH_DOCUMENTS, _BATCH_CHARACTERS = 64, 50_000
_SECONDS_BETWEEN_LINES = 5.0


def run(job: AnnotateJob) -> dict[str, Any]:
    """Annotate a whole input; the result is as in the manifest. `seconds` are those of this call alone.

    Raises:
        UserError: the input, the pipeline or the output is at fault; found out before Ray starts, but for a parquet
            file that is corrupt behind its footer.
    """
    began = time.monotonic()
    output = Output(job.output, "annotate", job.model_dump(mode="json"))
    if (result := output.finished(job.overwrite)) is not None:
        return result
    chunks, pipeline = plan(job.input, job.documents_per_part), choose(job.spacy_model, job.sentences)
    apart(job.output, job.input, chunks)
    check_tracking(job.tracking, job.output)
    parts = Parts(job.output.absolute(), len(chunks))
    if not job.overwrite:
        parts.check_input(sizes(job.input))
    output.claim(job.overwrite)
    parts.begin(sizes(job.input))
    with track(output, job.tracking, "annotate") as tracked:
        _annotate(job, pipeline, parts, chunks)
        result = parts.finish() | {"seconds": round(time.monotonic() - began, 3)}
        output.finish(result)
        parts.forget()
        tracked.finish(result)
    return result


def _annotate(job: AnnotateJob, pipeline: Pipeline, parts: Parts, chunks: list[Chunk]) -> None:
    """Do the chunks that are not done yet; where workers die, go on with others as long as anything gets done."""
    progress = _Progress(sum(chunk.documents for chunk in chunks))
    while todo := [chunk for chunk in chunks if not parts.is_done(chunk.id)]:
        progress.begin(sum(chunk.documents for chunk in todo))
        cluster.connect()
        try:
            _on_ray(job, pipeline, parts, todo, progress)
        except ray.exceptions.RayActorError:
            if not any(parts.is_done(chunk.id) for chunk in todo):
                raise
            log.warning("annotate: a worker died; going on with what it left undone")


def _on_ray(job: AnnotateJob, pipeline: Pipeline, parts: Parts, todo: list[Chunk], progress: "_Progress") -> None:
    workers = min(job.num_workers or int(ray.cluster_resources().get("CPU", 1)), len(todo))
    # A block for each chunk, so that Ray hands them out one by one; more blocks than this would slow down its driver.
    rows = ray.data.from_items([asdict(chunk) for chunk in todo], override_num_blocks=min(len(todo), 4096))
    with warnings.catch_warnings():
        # Ray's own restarts never end, not even where a document kills every worker that reads it; and Ray 2.60 has no
        # other way to turn them off than this one, which it warns about.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        done = rows.map_batches(
            Annotator,
            fn_constructor_kwargs={"job": job, "pipeline": pipeline, "parts": parts},
            batch_format="pyarrow",
            batch_size=1,
            num_cpus=1,  # for which Ray also sets OMP_NUM_THREADS=1: as many threads as workers, and no more
            max_restarts=0,
            compute=ray.data.ActorPoolStrategy(size=workers),
        )
    for row in done.iter_rows():
        if row["problem"]:
            raise UserError(row["problem"])
        progress.add(row["documents"])


class _Progress:
    """Says how far the run has come, every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total

    def begin(self, left: int) -> None:
        self._left, self._first, self._said = left, (0.0, 0), time.monotonic()
        before = f"; {self._total - left:,} of them are done already" if left < self._total else ""
        log.info(f"annotate: {self._total:,} documents{before}")

    def add(self, documents: int) -> None:
        now = time.monotonic()
        self._left -= documents
        if not self._first[0]:
            self._first = now, self._left  # speed is counted from here: workers take seconds to start
        if now - self._said >= _SECONDS_BETWEEN_LINES or not self._left:
            self._said = now
            rate = (self._first[1] - self._left) / max(now - self._first[0], 1e-3)
            left = round(self._left / rate) if rate else 0
            speed = f", {rate:.0f}/s, {left // 60}:{left % 60:02d} left" if rate else ""
            log.info(f"annotate: {self._total - self._left:,} of {self._total:,} documents{speed}")


# ---- The worker ---------------------------------------------------------------------------------------------------


class Annotator:
    """The Ray Data actor: takes chunks, writes their parts and statistics, and answers with the numbers."""

    def __init__(self, job: AnnotateJob, pipeline: Pipeline, parts: Parts) -> None:
        self._nlp = pipeline.load(job.max_characters)
        self._min_entities = job.min_entities
        self._reader = Reader(job.max_characters)
        self._parts = parts

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Annotate chunks; `problem` is the user's error, which as an exception would bury itself in Ray's own."""
        rows = []
        for row in batch.to_pylist():
            chunk = Chunk(row["id"], tuple(Slice(**piece) for piece in row["slices"]))
            problem = ""
            try:
                self._chunk(chunk)
            except UserError as error:
                problem = str(error)
            rows.append({"documents": chunk.documents, "problem": problem})
        return pa.Table.from_pylist(rows)

    def _chunk(self, chunk: Chunk) -> None:
        counts = dict.fromkeys(COUNTS, 0)
        kept: list[Sentence] = []
        rejected: list[Rejected] = []
        with self._nlp.memory_zone():  # else the vocabulary grows with every document
            for found in self.annotate(self._reader.read(chunk)):
                counts["documents"] += 1
                if isinstance(found, Rejected):
                    rejected.append(found)
                else:
                    counts["sentences"] += len(found)
                    kept += [s for s in found if len(s.entities) >= self._min_entities]
        counts["kept"] = len(kept)
        counts["tokens"] = sum(len(s.tokens) for s in kept)
        counts["entities"] = sum(len(s.entities) for s in kept)
        self._parts.write(chunk.id, kept, {**counts, "rejected": [asdict(r) for r in rejected]})

    def annotate(self, documents: Iterable[Document | Rejected]) -> Iterator[list[Sentence] | Rejected]:
        """The sentences of each document in turn, or why it is rejected."""
        for batch in _batches(documents):
            wanted = [item for item in batch if isinstance(item, Document)]
            try:
                parsed = iter([sentences_of(doc, d.doc_id) for doc, d in zip(self._pipe(wanted), wanted, strict=True)])
            except Exception:  # one document's failure takes the batch with it: find out whose
                yield from (item if isinstance(item, Rejected) else self._alone(item) for item in batch)
            else:
                yield from (item if isinstance(item, Rejected) else next(parsed) for item in batch)

    def _pipe(self, documents: list[Document]) -> Iterable[Any]:
        return self._nlp.pipe([document.text for document in documents])  # type: ignore[no-any-return]

    def _alone(self, document: Document) -> list[Sentence] | Rejected:
        try:
            return sentences_of(self._nlp(document.text), document.doc_id)
        except Exception as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            return Rejected(document.file, document.line, "spaCy failed", detail)


def _batches(items: Iterable[Document | Rejected]) -> Iterator[list[Document | Rejected]]:
    """Successive items, as many at a time as the memory of one worker bears."""
    batch: list[Document | Rejected] = []
    characters = 0
    for item in items:
        length = len(item.text) if isinstance(item, Document) else 0
        if batch and (len(batch) == _BATCH_DOCUMENTS or characters + length > _BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(item)
        characters += length
    if batch:
        yield batch
