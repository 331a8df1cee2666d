"""Pre-training for real: Ray Train workers, DeepSpeed, views from Ray Data, workers and commands that are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from commands import title
from pretraining import heldout_losses, in_this_process, nearly, total_losses, wait_for_step, write_place
from safetensors.torch import load_file
from transformers import AutoModel

from enpar.config import PretrainJob
from enpar.metrics import read_metrics
from enpar.settings import parse

STEPS = 12
SETTINGS = [
    f"train.steps={STEPS}",
    "train.batch_size=80",  # 8 sentences of 10 views
    "train.learning_rate=1e-3",
    "train.precision=fp32",
    "train.heldout=20",
    "train.evaluate_every=6",
    "train.checkpoint_every=4",
    "scaling.num_workers=2",
    "scaling.threads=1",
    "views.n_s=2",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("pretrain"))


def command(place: Path, output: str, *more: str) -> list[str]:
    settings = [f"data={place / 'sentences'}", f"encoder={place / 'encoder'}", f"output={place / output}", *SETTINGS]
    return [sys.executable, "-m", "enpar", "pretrain", *settings, "tracking.enabled=false", *more]


def finish(process: "subprocess.Popen[str]") -> tuple[dict, str]:
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1]), stderr


def start(arguments: list[str], folder: Path | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


@pytest.fixture(scope="module")
def unbroken(place: Path) -> tuple[dict, str]:
    return finish(start(command(place, "unbroken", "tracking.enabled=true")))


def losses(place: Path, output: str) -> list[tuple[int, float]]:
    return total_losses(read_metrics(place / output / "metrics.jsonl"))


def train_workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    family = psutil.Process(process.pid).children(recursive=True)
    return [child for child in family if "RayTrainWorker" in title(child)]


def test_the_result_and_the_folder(place: Path, unbroken: tuple[dict, str]):
    result, stderr = unbroken
    folder = place / "unbroken"
    assert result["checkpoint"] == str(folder)
    assert result["steps"] == STEPS
    assert set(result["loss"]) == {"met", "mep", "acd", "pp", "total"}
    assert set(result["accuracy"]) == {"met", "mep", "acd", "swap", "pp"}
    assert result["sentences"]["heldout"] >= 20
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "manifest.json", "_SUCCESS"} <= set(
        os.listdir(folder)
    )
    assert not (folder / ".train").exists()
    assert "Traceback" not in stderr
    assert "Warning" not in stderr
    assert all(line.startswith(("step ", "enpar", str(result["sentences"]["train"]))) for line in stderr.splitlines())


def test_every_step_is_in_the_metrics_and_the_losses_fall(place: Path, unbroken: tuple[dict, str]):
    assert [step for step, _ in losses(place, "unbroken")] == list(range(1, STEPS + 1))
    first, last = unbroken[0]["heldout"]["first"]["loss"], unbroken[0]["heldout"]["last"]["loss"]
    assert last["total"] < first["total"]


def test_transformers_reads_the_sentence_encoder(place: Path, unbroken: tuple[dict, str]):
    encoder = AutoModel.from_pretrained(place / "unbroken", add_pooling_layer=False)
    before = AutoModel.from_pretrained(place / "encoder", add_pooling_layer=False)
    weights = load_file(place / "unbroken" / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(encoder.state_dict()[name], weights[f"bert.{name}"])
    assert not torch.equal(encoder.state_dict()[name], before.state_dict()[name])


def test_a_finished_run_is_left_alone(place: Path, unbroken: tuple[dict, str]):
    written = (place / "unbroken" / "model.safetensors").stat().st_mtime_ns
    result, _ = finish(start(command(place, "unbroken", "tracking.enabled=true")))
    assert result == unbroken[0]
    assert (place / "unbroken" / "model.safetensors").stat().st_mtime_ns == written


def test_a_killed_worker_is_replaced_and_changes_nothing(place: Path, unbroken: tuple[dict, str]):
    process = start(command(place, "worker_killed"))
    wait_for_step(process, place / "worker_killed" / "metrics.jsonl", 6)
    workers = train_workers(process)
    assert len(workers) == 2
    os.kill(workers[1].pid, signal.SIGKILL)
    result, _ = finish(process)
    assert result["steps"] == STEPS
    assert result["loss"] == pytest.approx(unbroken[0]["loss"], rel=1e-4)
    assert losses(place, "worker_killed") == nearly(losses(place, "unbroken"), 1e-4)


def test_a_killed_command_goes_on_with_more_workers_as_one_process_would(place: Path):
    more = ["train.dropout=0", "train.steps=20", "train.accumulation=2", "scaling.view_workers=2"]
    more += ["scaling.cpus_for_views=0.1"]
    here = "encoder=encoder"  # the workers' directory is another one
    process = start(command(place, "killed", *more, here, "scaling.num_workers=1"), place)
    wait_for_step(process, place / "killed" / "metrics.jsonl", 10)
    workers = train_workers(process)
    process.kill()
    assert not psutil.wait_procs(workers, timeout=60)[1]  # they go with it
    other = place / "sentences" / "part-00001.parquet"
    shutil.copy(other.with_name("part-00000.parquet"), other)
    refused = start(command(place, "killed", *more, here), place)
    assert f"data: {other} has changed since {place / 'killed'} was begun (absent, now " in refused.communicate()[1]
    assert refused.returncode == 2
    other.unlink()
    result, _ = finish(start(command(place, "killed", *more, here), place))
    assert result["workers"] == 2
    settings = command(place, "alone", *more, "train.accumulation=1", "scaling.num_workers=1")[4:]
    expected = in_this_process(parse(PretrainJob, settings))
    assert losses(place, "killed") == nearly(total_losses(expected), 1e-5)
    assert result["heldout"]["last"]["loss"] == pytest.approx(heldout_losses(expected), rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(place: Path):
    process = start(command(place, "diverged", "train.learning_rate=1e30", "train.clip=1e30", "scaling.num_workers=1"))
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "the loss is not finite at step" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["train.batch_size=10"], "10 views are 1 sentences of 10 views, too few for 2 micro-batches"),
        (["train.batch_size=100000"], "too few for an update"),
        (["scaling.num_workers=64"], "this machine has"),
        (["encoder=nowhere/at/all"], "encoder nowhere/at/all: no such folder"),
    ],
)
def test_what_is_the_users_fault_is_said_before_ray_starts(place: Path, change: list[str], message: str):
    process = start(command(place, "refused", *change))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert message in stderr.splitlines()[-1]
    assert len(stderr.splitlines()) == 1
    assert not (place / "refused").exists()
