"""`enpar annotate`: raw text → sentences with entities, by spaCy on Ray Data.

The unit of work is a chunk of documents. A run that was broken off goes on with those that are not done yet.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq

from enpar.chunks import Worker, on_ray, workers_for
from enpar.config import AnnotateJob
from enpar.documents import Chunk, Document, Reader, Rejected, apart, plan
from enpar.files import sizes
from enpar.output import Output
from enpar.parts import Parts
from enpar.provenance import text_of
from enpar.sentence import Sentence, to_table
from enpar.spacy_pipeline import Pipeline, choose, sentences_of
from enpar.storage import atomic
from enpar.tracking import check_tracking, finished, track

PART = "part-{}.parquet"
COUNTS = ("documents", "sentences", "kept", "tokens", "entities")
# spaCy needs about 10 kB a character while the parser and NER run: bounds on what one worker has in hand at once.
_BATCH_DOCUMENTS, _BATCH_CHARACTERS = 64, 50_000


def run(job: AnnotateJob) -> dict[str, Any]:
    """Annotate a whole input; the result is as in the manifest. `seconds` are those of this call alone.

    Raises:
        UserError: the input, the pipeline or the output is at fault; found out before Ray starts, but for a parquet
            file that is corrupt behind its footer.
    """
    began = time.monotonic()
    output = Output(job.output, "annotate", job.model_dump(mode="json"))
    if (result := finished(output, job.tracking, job.overwrite)) is not None:
        return result
    chunks, pipeline = plan(job.input, job.documents_per_part), choose(job.spacy_model, job.sentences, job.noun_chunks)
    apart(output.location, job.input, chunks)
    check_tracking(job.tracking, job.output)
    parts = Parts(output.location.absolute(), len(chunks), PART, COUNTS)
    input = sizes(job.input)
    if not job.overwrite:
        parts.begun.check(input)
    workers = workers_for(job.num_workers, len(chunks), job.wait)
    output.claim(job.overwrite)
    parts.begun.keep(input)
    with track(output, job.tracking, "annotate", data=text_of(job.input, chunks)) as tracked:
        arguments = {"job": job, "pipeline": pipeline, "parts": parts}
        on_ray("annotate", Annotator, arguments, parts, chunks, workers)
        counts = parts.finish()
        dropped = {"few entities": counts["sentences"] - counts["kept"]}
        result = {**counts, "dropped": dropped, "seconds": round(time.monotonic() - began, 3)}
        output.finish(result)
        parts.forget()
        tracked.finish(result)
    return result


# ---- The worker ---------------------------------------------------------------------------------------------------


class Annotator(Worker):
    """Takes chunks, and writes their parts and statistics."""

    def __init__(self, job: AnnotateJob, pipeline: Pipeline, parts: Parts) -> None:
        self._nlp = pipeline.load(job.max_characters)
        self._min_entities = job.min_entities
        self._noun_chunks = job.noun_chunks
        self._reader = Reader(job.max_characters)
        self._parts = parts

    def work(self, chunk: Chunk) -> None:
        """Annotate the documents of a chunk."""
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
        part = self._parts.part(chunk.id)
        if kept:
            with atomic(part) as temporary:
                pq.write_table(to_table(kept), temporary, compression="zstd")
        self._parts.done(chunk.id, counts, rejected)

    def annotate(self, documents: Iterable[Document | Rejected]) -> Iterator[list[Sentence] | Rejected]:
        """The sentences of each document in turn, or why it is rejected."""
        for batch in _batches(documents):
            wanted = [item for item in batch if isinstance(item, Document)]
            try:
                parsed = iter([self._sentences(doc, d) for doc, d in zip(self._pipe(wanted), wanted, strict=True)])
            except Exception:  # one document's failure takes the batch with it: find out whose
                yield from (item if isinstance(item, Rejected) else self._alone(item) for item in batch)
            else:
                yield from (item if isinstance(item, Rejected) else next(parsed) for item in batch)

    def _pipe(self, documents: list[Document]) -> Iterable[Any]:
        return self._nlp.pipe([document.text for document in documents])  # type: ignore[no-any-return]

    def _sentences(self, doc: Any, document: Document) -> list[Sentence]:  # noqa: ANN401  # a spacy.tokens.Doc
        return sentences_of(doc, document.doc_id, self._noun_chunks)

    def _alone(self, document: Document) -> list[Sentence] | Rejected:
        try:
            return self._sentences(self._nlp(document.text), document)
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
