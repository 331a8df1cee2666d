"""Several nodes, for real: a cluster of a head, which has no CPUs, and two nodes, one of which dies in the middle.

Before it dies, what works there is halted, so that nothing can be over by then.
"""

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import spacy
import yaml
from commands import free_port, title, until
from pretraining import heldout_losses, in_this_process, nearly, total_losses, write_place
from ray.cluster_utils import Cluster

from enpar import corpora, finetune
from enpar.config import FinetuneJob, PretrainJob
from enpar.metrics import read_metrics
from enpar.sentence import read_sentences, write_jsonl
from enpar.settings import parse
from enpar.spacy_pipeline import sentences_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes need loopback addresses of their own")
HEAD, *NODES = (f"127.0.0.{number}" for number in (1, 2, 3))
# A node is given up after five questions that it does not answer: at once if it is gone, in ten seconds each if busy.
SOON = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "500"}


class Nodes:
    """The cluster, and what works on each of its two nodes."""

    def __init__(self, dashboard: int) -> None:
        head = {"node_ip_address": HEAD, "num_cpus": 0, "memory": 0, "dashboard_port": dashboard}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": True})
        self.address: str = self._cluster.address
        self._nodes = {ip: self._add(ip) for ip in NODES}

    def _add(self, ip: str) -> Any:
        return self._cluster.add_node(node_ip_address=ip, num_cpus=1)

    def complete(self) -> None:
        """Put a new node in the place of one that is gone."""
        for ip in NODES:
            if ip not in self._nodes:
                self._nodes[ip] = self._add(ip)

    def at_work(self, ip: str, kind: str) -> list[psutil.Process]:
        """The node's processes whose title has that word."""
        return [child for child in self._children(ip) if kind in title(child)]

    def kill(self, ip: str) -> None:
        """The node and all that is on it; what is halted would outlive its raylet, and its connections with it."""
        family = self._children(ip)
        self._cluster.remove_node(self._nodes.pop(ip), allow_graceful=False)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _children(self, ip: str) -> list[psutil.Process]:
        (raylet,) = self._nodes[ip].all_processes["raylet"]
        return psutil.Process(raylet.process.pid).children()

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    folder = Path("/tmp") / f"test-ray-{secrets.token_hex(4)}"  # short: the names of sockets are limited
    folder.mkdir()
    dashboard = free_port()
    with pytest.MonkeyPatch.context() as patch:
        names = {"RAY_TMPDIR": str(folder), "RAY_API_SERVER_ADDRESS": f"http://{HEAD}:{dashboard}"}
        for name, value in {**SOON, **names, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}.items():
            patch.setenv(name, value)
        nodes = Nodes(dashboard)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """Both are there."""
    cluster.complete()
    return cluster


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("nodes"))


# ---- A command, and how far it is -----------------------------------------------------------------------------------


def start(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "enpar", *arguments, "tracking.enabled=false"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[dict[str, Any], str]:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    return json.loads(stdout.splitlines()[-1]), stderr


def halt(processes: list[psutil.Process]) -> None:
    assert processes
    for process in processes:
        process.suspend()


# ---- Annotation -----------------------------------------------------------------------------------------------------

DOCUMENTS = 80
PEOPLE, TOWNS = ["Ada", "Bob", "Cora", "Dan", "Eve"], ["Rome", "Lima", "Oslo"]


def text_of(number: int) -> str:
    name, other, town = PEOPLE[number % 5], PEOPLE[number % 4], TOWNS[number % 3]
    return f"{name} met {other} in {town}. " * (number % 7) + "It rained."


def pipeline() -> spacy.Language:
    """It knows the names in the texts."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    patterns = [("PERSON", name) for name in PEOPLE] + [("GPE", name) for name in TOWNS]
    nlp.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": name} for label, name in patterns])
    return nlp


def test_annotation_goes_on_without_the_node(nodes: Nodes, tmp_path: Path):
    (nlp := pipeline()).to_disk(tmp_path / "spacy")
    lines = [json.dumps({"text": text_of(number), "id": f"d{number}"}) + "\n" for number in range(DOCUMENTS)]
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    places = [f"input={tmp_path / 'texts.jsonl'}", f"spacy_model={tmp_path / 'spacy'}", f"output={tmp_path / 'out'}"]
    process = start("annotate", *places, "documents_per_part=1", "num_workers=2")

    def done() -> int:
        return len(list((tmp_path / "out" / ".parts").glob("0*.json")))

    until(process, lambda: all(nodes.at_work(ip, "MapWorker") for ip in NODES) and done())
    halt(nodes.at_work(NODES[1], "MapWorker"))
    before = done()
    until(process, lambda: done() > before + 5)  # by the other one
    nodes.kill(NODES[1])
    result, stderr = finish(process)
    assert "a worker died; going on with what it left undone" in stderr
    found = [sentences_of(nlp(text_of(number)), f"d{number}") for number in range(DOCUMENTS)]
    kept = [sentence for document in found for sentence in document if sentence.entities]
    assert list(read_sentences(tmp_path / "out")) == kept
    assert (result["documents"], result["kept"]) == (DOCUMENTS, len(kept))
    assert result["sentences"] == sum(map(len, found))
    assert result["entities"] == 3 * len(kept) == sum(len(sentence.entities) for sentence in kept)


# ---- Pre-training ---------------------------------------------------------------------------------------------------

STEPS = 40
SETTINGS = [
    f"train.steps={STEPS}",
    "train.batch_size=80",
    "train.learning_rate=3e-4",
    "train.precision=fp32",
    "train.dropout=0",
    "train.heldout=20",
    "train.checkpoint_every=10",
    "scaling.cpus_per_worker=0.6",  # one a node
    "scaling.threads=1",
]


def settings(place: Path, output: str) -> list[str]:
    return [f"data={place / 'sentences'}", f"encoder={place / 'encoder'}", f"output={place / output}", *SETTINGS]


def losses(folder: Path) -> list[tuple[int, float]]:
    return total_losses(read_metrics(folder / "metrics.jsonl"))


def test_pretraining_goes_on_with_fewer_workers(nodes: Nodes, place: Path):
    process = start("pretrain", *settings(place, "fewer"), "scaling.num_workers=2", "wait=1")
    until(process, lambda: losses(place / "fewer"))
    (there,) = nodes.at_work(NODES[0], "RayTrainWorker")
    (lost,) = nodes.at_work(NODES[1], "RayTrainWorker")
    until(process, lambda: len(losses(place / "fewer")) > 11)  # beyond its first checkpoint
    halt([lost])
    nodes.kill(NODES[1])
    result, stderr = finish(process)
    assert not there.is_running()  # all begin again
    assert result["workers"] == 1
    assert "no room for 2 training workers any more; going on with 1" in stderr
    expected = in_this_process(parse(PretrainJob, settings(place, "fewer")))
    assert losses(place / "fewer") == nearly(total_losses(expected), 1e-4)
    assert len(losses(place / "fewer")) == STEPS
    assert result["heldout"]["last"]["loss"] == pytest.approx(heldout_losses(expected), rel=1e-4)


# ---- A sweep --------------------------------------------------------------------------------------------------------


def space(place: Path, output: str) -> Path:
    splits = {name: corpora.load("jsonl", corpora.sample_corpus() / f"{name}.jsonl") for name in ("train", "dev")}
    for name, count in (("train", 48), ("dev", 16)):
        write_jsonl(place / f"{name}.jsonl", splits[name][:count])
    rates = dict.fromkeys(("span_learning_rate", "classifier_learning_rate"), 3e-3)
    tuning = {
        "init": str(place / "encoder"),
        "corpus": {name: str(place / f"{name}.jsonl") for name in ("train", "dev")},
        "train": {"epochs": 3, "patience": 9, "sampling_start": 2, **rates},
    }
    searched = {"finetune.train.learning_rate": {"grid": [1e-4, 1e-3, 3e-3]}}
    sweep = {"base": {"finetune": tuning}, "space": searched, "searcher": "grid", "output": str(place / output)}
    (place / f"{output}.yaml").write_text(yaml.safe_dump(sweep))
    return place / f"{output}.yaml"


def test_a_sweep_goes_on_without_the_node(nodes: Nodes, place: Path):
    process = start("tune", str(space(place, "sweep")))
    trials = place / "sweep" / "trials"
    until(process, lambda: nodes.at_work(NODES[1], "_finetune") and list(trials.glob("*/seed-1/metrics.jsonl")))
    halt(nodes.at_work(NODES[1], "_finetune"))
    nodes.kill(NODES[1])
    result, _ = finish(process)
    assert result["states"] == {"done": 3, "stopped": 0, "failed": 0}
    for folder in trials.iterdir():
        tuned = json.loads((folder / "seed-1" / "manifest.json").read_text())["settings"]
        tuned |= {"output": str(place / f"alone-{folder.name}"), "tracking": {"enabled": False}}
        alone = finetune.run(FinetuneJob(**tuned))["dev"]
        (run,) = json.loads((folder / "trial.json").read_text())["runs"]
        assert run["score"] == alone["entity"]["f1"] + alone["relation_exact"]["f1"]
