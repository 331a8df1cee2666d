"""Extraction from sentences."""

import time
from typing import Any

import torch

from enpar import corpora
from enpar.bench.settings import BenchExtract
from enpar.model.device import device_name, peak_memory, use_cpus


def measure(job: BenchExtract) -> dict[str, Any]:
    """Sentences a second, from tokens to entities and relations.

    Raises:
        UserError: the model or the corpus is missing.
    """
    use_cpus(job.threads)
    from enpar.extraction import load

    sentences = corpora.read_splits({"test": job.corpus.test}, job.corpus)["test"].sentences
    extraction = load(job.model)
    extraction.predict(sentences[:100], job.batch_wordpieces)
    rounds, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < job.seconds:
        extraction.predict(sentences, job.batch_wordpieces)
        rounds += 1
    return {
        "sentences_per_second": round(rounds * len(sentences) / seconds, 1),
        "peak_memory_bytes": peak_memory(extraction.device),
        "device": device_name(extraction.device),
        "sentences": len(sentences),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }
