"""Fine-tuning: one epoch."""

import time
from typing import Any

import torch

from enpar import corpora
from enpar.bench.settings import BenchFinetune
from enpar.model.device import device_name, peak_memory, precision_on, use_cpus
from enpar.model.joint import Labels


def measure(job: BenchFinetune) -> dict[str, Any]:
    """Sentences of the training split a second, all three losses with their gradients and updates.

    Raises:
        UserError: the corpus or the encoder is missing.
    """
    use_cpus(job.threads)
    torch.manual_seed(job.seed)
    from enpar.extraction import start
    from enpar.training.fit import Learner

    sentences = corpora.read_splits({"train": job.corpus.train}, job.corpus)["train"].sentences
    known = corpora.describe(sentences)
    labels = Labels(tuple(known["entity_types"]), tuple(known["relation_types"]))
    extraction = start(job.init, job.load == "all", labels, job.train.dropout, job.train.precision)
    learner = Learner(extraction, sentences, job, lambda step, measured: None)
    learner.epoch(1)
    began = time.perf_counter()
    learner.epoch(job.train.epochs)  # its losses are read, so a GPU has done its work
    seconds = time.perf_counter() - began
    return {
        "sentences_per_second": round(len(sentences) / seconds, 1),
        "peak_memory_bytes": peak_memory(extraction.device),
        "device": device_name(extraction.device),
        "precision": precision_on(extraction.device, job.train.precision),
        "sentences": len(sentences),
        "threads": torch.get_num_threads(),
    }
