"""Annotation against bare `nlp.pipe`."""

import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from enpar import annotate, cluster
from enpar.bench.settings import BenchAnnotate
from enpar.capacity import capacity
from enpar.config import AnnotateJob, Tracking
from enpar.documents import Document, Reader, plan
from enpar.spacy_pipeline import Pipeline, choose

log = logging.getLogger("enpar")


def measure(job: BenchAnnotate) -> dict[str, Any]:
    """Annotate the text twice: by bare `nlp.pipe`, and as the command does, into parquet.

    Loading the pipeline counts on both sides, starting Ray does not.

    Raises:
        UserError: the text or the pipeline is missing.
    """
    chunks, pipeline = plan(job.input, job.documents_per_part), choose(job.spacy_model, job.sentences)
    workers = min(job.num_workers or int(capacity().cpus), len(chunks))  # as many as `enpar annotate` takes
    limit = AnnotateJob.model_fields["max_characters"].default
    reader = Reader(limit)
    found = (item for chunk in chunks for item in reader.read(chunk))
    texts = [item.text for item in found if isinstance(item, Document)]
    log.info("bench: %d documents by bare nlp.pipe with %d processes", len(texts), workers)
    tokens, bare = _bare(pipeline, texts, workers, limit)
    log.info("bench: %.0f tokens/s; now by `enpar annotate`", tokens / bare)
    ours = _ours(job, workers)
    return {
        "tokens_per_second": round(tokens / ours, 1),
        "reference_tokens_per_second": round(tokens / bare, 1),
        "ratio": round(bare / ours, 4),
        "documents": len(texts),
        "tokens": tokens,
        "processes": workers,
    }


def _bare(pipeline: Pipeline, texts: list[str], workers: int, limit: int) -> tuple[int, float]:
    """Tokens of all texts, and seconds."""
    began = time.perf_counter()
    nlp = pipeline.load(limit)
    tokens = sum(len(doc) for doc in nlp.pipe(texts, n_process=workers))
    return tokens, time.perf_counter() - began


def _ours(job: BenchAnnotate, workers: int) -> float:
    """Seconds."""
    cluster.connect()
    with TemporaryDirectory() as folder:
        ours = AnnotateJob(
            input=job.input,
            output=Path(folder) / "sentences",
            spacy_model=job.spacy_model,
            sentences=job.sentences,
            documents_per_part=job.documents_per_part,
            num_workers=workers,
            tracking=Tracking(enabled=False),
        )
        began = time.perf_counter()
        annotate.run(ours)
        return time.perf_counter() - began
