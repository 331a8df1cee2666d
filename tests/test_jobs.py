"""The three ways to run a command: alone, in a cluster that RAY_ADDRESS names, and by `ray job submit`.

The cluster is the one that cluster/local.sh starts, on ports and with a token of its own.
"""

import json
import os
import re
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import free_port, title
from pretraining import wait_for_step, write_place

from enpar.metrics import read_metrics

ROOT = Path(__file__).parent.parent
LOCAL = str(ROOT / "cluster" / "local.sh")
STEPS = 40
SETTINGS = [
    "jobs/pretrain_laptop.yaml",
    f"train.steps={STEPS}",
    "train.batch_size=80",
    "train.precision=fp32",
    "train.heldout=20",
    "train.checkpoint_every=10",
    "scaling.num_workers=1",
    "tracking.enabled=false",
]
TIMES = ("seconds", "checkpoint", "time", "flops_per_second", "peak_memory_bytes", "peak_fraction")
_WORKS = re.compile(r"/enpar |RayTrainWorker|TrainController|MapWorker")


@dataclass(frozen=True)
class Head:
    """A running cluster: the environment that a command needs to find it, and its processes."""

    address: str
    dashboard: str
    token: str
    folder: Path
    process: psutil.Process

    def environment(self, **more: str) -> dict[str, str]:
        return {**alone(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, **more}

    def stop(self, job: str) -> None:
        """What `ray job stop` does, without the seconds that it takes to start."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.dashboard}/api/jobs/{job}/stop", method="POST", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer) == {"stopped": True}

    def workers(self) -> dict[psutil.Process, str]:
        """What runs for a job, and its command line: its command, and Ray's workers that do anything."""
        lines = {child: title(child) for child in self.process.children(recursive=True)}
        return {child: line for child, line in lines.items() if _WORKS.search(line)}


def alone() -> dict[str, str]:
    """The environment without any word of Ray, with this Python's programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def run(arguments: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def enpar(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "enpar", *arguments]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    port, dashboard, token = free_port(), free_port(), secrets.token_hex(32)
    folder = Path("/tmp") / f"test-ray-{secrets.token_hex(4)}"  # short: the names of sockets are limited
    ports = {"PORT": str(port), "DASHBOARD_PORT": str(dashboard), "RAY_TMPDIR": str(folder)}
    environment = {**alone(), **ports, "RAY_AUTH_TOKEN": token}
    started = run([LOCAL], environment)
    assert started.returncode == 0, started.stderr
    process = psutil.Process(int((folder / "head.pid").read_text()))
    yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", token, folder, process)
    family = process.children(recursive=True)
    assert run([LOCAL, "stop"], environment).returncode == 0
    assert not psutil.wait_procs(family, timeout=30)[1]
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("jobs"))


def pretrain(place: Path, output: str, *more: str) -> list[str]:
    places = [f"data={place / 'sentences'}", f"encoder={place / 'encoder'}", f"output={place / output}"]
    return ["pretrain", *SETTINGS, *places, *more]


def result_of(text: str) -> dict[str, Any]:
    """The last line that is JSON, without what is never the same twice."""
    (line,) = [line for line in text.splitlines() if line.startswith('{"checkpoint"')]
    return {
        name: value
        for name, value in json.loads(line).items()
        if name not in TIMES and not name.endswith("_per_second")
    }


@pytest.fixture(scope="module")
def expected(head: Head, place: Path) -> dict[str, Any]:
    """What the command alone says: beside a cluster that runs where Ray looks for one, and not in it."""
    done = run(enpar(*pretrain(place, "alone")), {**alone(), "RAY_TMPDIR": str(head.folder)})
    assert done.returncode == 0, done.stderr
    return result_of(done.stdout)


def submit(head: Head, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["ray", "job", "submit", "--address", head.dashboard, "--working-dir", ".", "--", *arguments]
    return run(command, head.environment())


def test_a_cluster_gives_the_same_result(head: Head, place: Path, expected: dict[str, Any]):
    done = run(enpar(*pretrain(place, "joined")), head.environment(RAY_ADDRESS=head.address))
    assert done.returncode == 0, done.stderr
    assert result_of(done.stdout) == expected


def test_a_job_gives_the_same_result_with_its_log_and_status(head: Head, place: Path, expected: dict[str, Any]):
    done = submit(head, "enpar", *pretrain(place, "submitted"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"step {STEPS}/{STEPS}" in done.stdout
    assert result_of(done.stdout) == expected
    assert (place / "submitted" / "_SUCCESS").exists()


def test_a_job_that_fails_says_so(head: Head):
    done = submit(head, "enpar", "fetch", "name=sample-corpus", "output=runs/corpus")
    assert done.returncode == 1
    assert "enpar: output: runs/corpus would be lost" in done.stdout


def test_a_job_that_is_stopped_leaves_nothing_and_goes_on(head: Head, place: Path, expected: dict[str, Any]):
    command = ["enpar", *pretrain(place, "stopped")]
    arguments = ["--address", head.dashboard, "--submission-id", "stopped", "--working-dir", ".", "--", *command]
    process = subprocess.Popen(
        ["ray", "job", "submit", *arguments],
        cwd=ROOT, env=head.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    metrics = place / "stopped" / "metrics.jsonl"
    wait_for_step(process, metrics, 11)
    workers = head.workers()
    (trainer,) = [worker for worker, line in workers.items() if "RayTrainWorker" in line]
    trainer.suspend()  # it might get to its end before it is stopped
    assert len(workers) >= 2  # the command is another
    head.stop("stopped")
    assert not psutil.wait_procs(workers, timeout=60)[1]
    process.communicate(timeout=60)
    assert read_metrics(metrics)[-1]["step"] < STEPS
    assert not (place / "stopped" / "_SUCCESS").exists()

    done = submit(head, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"step {STEPS}/{STEPS}" in done.stdout
    assert (place / "stopped" / "_SUCCESS").exists()
    assert result_of(done.stdout)["loss"] == pytest.approx(expected["loss"], rel=1e-4)


@pytest.mark.parametrize("token", [secrets.token_hex(32), None], ids=["wrong", "missing"])
def test_a_wrong_or_missing_token_is_refused_in_one_sentence(
    head: Head, place: Path, tmp_path: Path, token: str | None
):
    environment = {**alone(), "HOME": str(tmp_path), "RAY_ADDRESS": head.address}
    if token:
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    done = run(enpar(*pretrain(place, "refused")), environment)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"enpar: RAY_ADDRESS: {head.address}")
    assert "RAY_AUTH_MODE=token" in line and "RAY_AUTH_TOKEN" in line
    assert not (place / "refused").exists()


def test_a_job_with_a_wrong_token_is_refused_with_what_to_set(head: Head):
    environment = head.environment(RAY_AUTH_TOKEN=secrets.token_hex(32))
    done = run(["ray", "job", "submit", "--address", head.dashboard, "--", "enpar", "--version"], environment)
    assert done.returncode == 1
    assert "RAY_AUTH_TOKEN" in done.stderr.splitlines()[-1]


def test_a_cluster_that_is_not_there_is_said(place: Path):
    done = run(enpar(*pretrain(place, "refused")), {**alone(), "RAY_ADDRESS": f"127.0.0.1:{free_port()}"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "RAY_ADDRESS" in line and "no Ray cluster" in line


def test_what_a_cluster_does_not_have_is_said_with_what_it_has(head: Head, place: Path):
    cpus = os.cpu_count() or 1
    more = [f"scaling.num_workers={4 * cpus}", f"train.batch_size={40 * cpus}", "wait=1"]
    done = run(enpar(*pretrain(place, "refused", *more)), head.environment(RAY_ADDRESS=head.address))
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert f"{4 * cpus} workers of 0.5 CPUs, with 0.25 CPUs more for the views of each, are {3 * cpus} CPUs" in line
    assert f"the cluster has {cpus} CPUs" in line
    assert not (place / "refused").exists()
