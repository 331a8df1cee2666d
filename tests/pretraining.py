"""Sentences and a tiny encoder to pre-train on, how far a run has come, and what it has to come to."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from commands import until
from encoders import tiny_encoder

from enpar import corpora
from enpar.config import PretrainJob
from enpar.metrics import read_metrics
from enpar.pretrain import prepare
from enpar.sentence import to_table
from enpar.training.engine import TorchEngine
from enpar.training.journal import _Writer
from enpar.training.pretrainer import Pretrainer


def write_place(folder: Path) -> Path:
    """A folder with `sentences` and an `encoder` that knows their words."""
    sentences = [s for s in corpora.load("jsonl", corpora.sample_corpus() / "train.jsonl") if len(s.entities) > 1]
    (folder / "sentences").mkdir()
    pq.write_table(to_table(sentences), folder / "sentences" / "part-00000.parquet")
    (folder / "sentences" / "_SUCCESS").touch()
    tiny_encoder(folder / "encoder", {token for sentence in sentences for token in sentence.tokens})
    return folder


def wait_for_step(process: "subprocess.Popen[str]", metrics: Path, step: int) -> None:
    """Return when the run has written the line of a step: after its checkpoint at 4, before its end."""
    until(process, lambda: any(row["step"] >= step for row in read_metrics(metrics)))


def total_losses(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, loss) of each update."""
    return [(row["step"], row["pretrain/loss/total"]) for row in rows if "pretrain/loss/total" in row]


def nearly(expected: list[tuple[int, float]], rel: float) -> list[tuple[int, Any]]:
    """The same steps, with losses that equal all that are as close."""
    return [(step, pytest.approx(loss, rel=rel)) for step, loss in expected]


def heldout_losses(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The losses of what is held out, at the end."""
    prefix = "heldout/loss/"
    return {name.removeprefix(prefix): value for name, value in rows[-1].items() if name.startswith(prefix)}


def in_this_process(job: PretrainJob) -> list[dict[str, Any]]:
    """The numbers of a job by step, of one engine of plain torch; without Ray, and without a break.

    The reference for workers, accumulation and runs that were broken off; with several workers, without dropout.
    """
    planned = prepare(job)

    def engine(*parts):
        return TorchEngine(*parts, job.train.clip)

    trainer = Pretrainer(job, planned.types, planned.steps, torch.device("cpu"), engine)
    trainer.hold_out(planned.maker, planned.heldout)
    with TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.jsonl"
        trainer.train(map(planned.update, range(planned.steps)), _Writer(metrics, None), lambda step, write: None)
        return read_metrics(metrics)
