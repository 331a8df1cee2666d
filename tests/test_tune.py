"""Sweeps for real: Ray Tune, pre-training and fine-tuning of a tiny encoder, and commands that are killed."""

import json
import re
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from commands import title, until
from encoders import tiny_encoder
from mlflow import MlflowClient
from mlflow.entities import Run

from enpar import corpora, finetune
from enpar.config import FinetuneJob
from enpar.metrics import read_metrics
from enpar.sentence import to_table, write_jsonl
from enpar.settings import parse

RATE = "finetune.train.learning_rate"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, _database: Path) -> Path:
    """A folder with sentences, a small corpus, a tiny encoder that knows their words, and MLflow databases."""
    folder = tmp_path_factory.mktemp("tune")
    for name in ("mlflow.db", "other.db"):
        shutil.copy(_database, folder / name)
    splits = {name: corpora.load("jsonl", corpora.sample_corpus() / f"{name}.jsonl") for name in ("train", "dev")}
    (folder / "sentences").mkdir()
    pairs = [sentence for sentence in splits["train"] if len(sentence.entities) > 1]
    pq.write_table(to_table(pairs), folder / "sentences" / "part-00000.parquet")
    (folder / "sentences" / "_SUCCESS").touch()
    tiny_encoder(folder / "encoder", {token for split in splits.values() for s in split for token in s.tokens})
    for name, count in (("train", 48), ("dev", 16)):
        write_jsonl(folder / f"{name}.jsonl", splits[name][:count])
    return folder


def space(place: Path, name: str, stages: str, space: dict, **more: object) -> list[str]:
    """The command of a sweep over one or both stages."""
    train = {"steps": 4, "batch_size": 40, "heldout": 20, "evaluate_every": 2, "checkpoint_every": 4}
    pretrain = {"data": str(place / "sentences"), "encoder": str(place / "encoder"), "train": train}
    rates = dict.fromkeys(("learning_rate", "span_learning_rate", "classifier_learning_rate"), 3e-3)
    tuning = {
        "corpus": {name: str(place / f"{name}.jsonl") for name in ("train", "dev")},
        "train": {"epochs": 3, "patience": 9, "sampling_start": 2, **rates},
    }
    if "pretrain" not in stages:
        tuning["init"] = str(place / "encoder")
    base = {stage: settings for stage, settings in (("pretrain", pretrain), ("finetune", tuning)) if stage in stages}
    settings = {"base": base, "space": space, "output": str(place / name), **more}
    (place / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return [sys.executable, "-m", "enpar", "tune", str(place / f"{name}.yaml")]


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[dict, str]:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    (line,) = stdout.splitlines()
    return json.loads(line), stderr


class Logged:
    """The runs of a database that belong to the sweep of a name, and what belongs to them."""

    def __init__(self, database: Path, sweep: str) -> None:
        self.client = MlflowClient(f"sqlite:///{database}")
        experiment = self.client.get_experiment_by_name("enpar").experiment_id
        found = self.client.search_runs([experiment])
        (self.sweep,) = [run for run in found if run.info.run_name == f"tune {sweep}"]
        self._runs = found

    def below(self, parent: Run) -> dict[str, Run]:
        own = [run for run in self._runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        by_name = {run.info.run_name: run for run in own}
        assert len(by_name) == len(own)
        return by_name

    def tree(self, parent: Run | None = None) -> dict[str, tuple]:
        """(status, what is below it) by name."""
        below = self.below(parent or self.sweep)
        return {name: (run.info.status, self.tree(run)) for name, run in sorted(below.items())}

    def artifacts(self, run: Run) -> set[str]:
        return {item.path for item in self.client.list_artifacts(run.info.run_id)}


def test_trials_share_their_pretraining_and_the_best_setting_can_be_finetuned_again(place: Path):
    both = {RATE: {"grid": [1e-9, 3e-3]}}
    more = {"searcher": "grid", "seeds": [1, 2]}
    result, stderr = finish(start(space(place, "shared", "pretrain finetune", both, **more)))
    # Both trials ran at once, with two seeds each, on one checkpoint that was made once.
    folders = [path for path in (place / "shared" / "pretrained").iterdir() if path.is_dir()]
    assert len(folders) == 1
    assert [row["step"] for row in read_metrics(folders[0] / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    assert "2 at once" in stderr
    manifests = sorted((place / "shared" / "trials").glob("*/seed-*/manifest.json"))
    assert len(manifests) == 4
    assert {json.loads(path.read_text())["settings"]["init"] for path in manifests} == {str(folders[0])}
    # The result, the table and the page have every setting.
    assert result["states"] == {"done": 2, "stopped": 0, "failed": 0}
    scores = {trial["config"][RATE]: trial["score"] for trial in result["trials"]}
    assert result["best"]["config"] == {RATE: max(scores, key=scores.get)}
    rows = [line for line in (place / "shared" / "report.md").read_text().splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[1] for row in rows] == ["learning_rate", "---", "1e-09", "0.003"]
    assert all(row in stderr for row in rows)
    page = (place / "shared" / "report.html").read_text()
    assert page.count("<svg") == 3 and not re.search(r"(src|href)=.http", page)
    assert all(name in page for name in ("1e-09", "0.003", "Pre-training loss"))
    # Weights are kept of the best alone, and its job file gives them again.
    weights = {path.parent.parent.name for path in (place / "shared" / "trials").glob("*/*/model.safetensors")}
    assert len(weights) == 1
    assert "threads=1, as it had" in Path(result["best_config_path"]).read_text()
    best = parse(FinetuneJob, [result["best_config_path"], "threads=1", "tracking.enabled=false"])
    again = finetune.run(best)
    (record,) = [json.loads((place / "shared" / "trials" / name / "trial.json").read_text()) for name in weights]
    assert again["dev"]["entity"]["f1"] == record["runs"][0]["metrics"]["dev/entity/f1"]
    # In MLflow trials are below the sweep, with what they share, and their fine-tunings are below them.
    seeds = {f"finetune seed {seed}": ("FINISHED", {}) for seed in (1, 2)}
    names = {1e-9: "trial 1: learning_rate=1e-09", 3e-3: "trial 2: learning_rate=0.003"}
    tree = {**dict.fromkeys(names.values(), ("FINISHED", seeds)), "pretrain": ("FINISHED", {})}
    logged = Logged(place / "mlflow.db", "shared")
    assert (logged.sweep.info.status, logged.tree()) == ("FINISHED", tree)
    for trial in result["trials"]:
        run = logged.below(logged.sweep)[names[trial["config"][RATE]]]
        assert run.data.params == {RATE: str(trial["config"][RATE])}
        assert run.data.tags["trial.state"] == "done"
        history = logged.client.get_metric_history(run.info.run_id, "trial/score")
        assert [point.step for point in history] == [1, 2, 3, 4]
        assert [history[-1].value, run.data.metrics["trial/spread"]] == [trial["score"], trial["spread"]]
        assert {name: run.data.metrics[name] for name in trial["metrics"]} == trial["metrics"]
        each = [run.data.metrics[f"seed-{seed}/dev/entity/f1"] for seed in (1, 2)]
        assert sum(each) / 2 == pytest.approx(trial["metrics"]["dev/entity/f1"])
        assert [logged.artifacts(one) for one in logged.below(run).values()] == [{"result.json"}] * 2
    kept = {"result.json", "report.md", "report.html", "best.yaml", "model"}  # one model, the best
    assert logged.artifacts(logged.sweep) == kept
    # And the sweep is left alone once it is done, but for a server that has not got it.
    elsewhere = {**more, "tracking": {"uri": f"sqlite:///{place}/other.db"}}
    assert finish(start(space(place, "shared", "pretrain finetune", both, **elsewhere)))[0] == result
    assert Logged(place / "other.db", "shared").tree() == tree


STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def records(trials: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in trials.glob("*/trial.json")]


def states(trials: Path) -> dict[Path, str]:
    return {trials / record["name"]: record["state"] for record in records(trials)}


def test_a_killed_search_goes_on_and_ends_alike_and_a_setting_that_fails_does_not_end_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    varied = {
        RATE: {"loguniform": [1e-9, 1e-2]},
        "finetune.train.batch_size": {"choice": [8, 16]},
        "encoder": {"choice": {"whole": {}, "missing": {"finetune.init": "nowhere"}}},  # it may be on the hub
    }
    # whole, missing, whole; one at a time, so that the last has just begun when the others are over
    more = {"searcher": "optuna", "samples": 3, "seed": 22, "concurrency": 1}
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        nowhere = {"uri": f"http://127.0.0.1:{free.getsockname()[1]}"}
    # No tracking server is there at first, which stops nothing.
    process = start(space(place, "killed", "finetune", varied, tracking=nowhere, **more))
    trials = place / "killed" / "trials"
    until(process, lambda: sorted(states(trials).values()) == ["done", "failed", "running"])
    family = [child for child in psutil.Process(process.pid).children(recursive=True) if "ray::_" in title(child)]
    process.kill()
    assert not psutil.wait_procs(family, timeout=60)[1]  # they go with it
    assert sorted(states(trials).values()) == ["done", "failed", "running"]
    over = [folder for folder, state in states(trials).items() if state != "running"]
    written = {file: file.stat().st_mtime_ns for folder in over for file in folder.glob("*/[!.]*")}
    result, stderr = finish(start(space(place, "killed", "finetune", varied, **more)))
    assert "2 of 3 trials were over already" in stderr
    assert {file: file.stat().st_mtime_ns for file in written if file.exists()}.items() <= written.items()
    assert result["states"] == {"done": 2, "stopped": 0, "failed": 1}
    (failed,) = [trial for trial in result["trials"] if trial["state"] == "failed"]
    assert "encoder nowhere: neither a folder nor to be had" in failed["reason"] and failed["score"] is None
    # All that was done is in MLflow now, and nothing seems to go on.
    statuses = {record["name"]: STATUS[record["state"]] for record in records(trials)}
    logged = Logged(place / "mlflow.db", "killed")
    found = logged.below(logged.sweep).values()
    assert {run.data.tags["trial.name"]: run.info.status for run in found} == statuses
    for run in found:
        done = run.info.status == "FINISHED"
        assert logged.tree(run) == ({"finetune seed 1": ("FINISHED", {})} if done else {})
    # What each setting scores is what it scores alone.
    for folder in [folder for folder, state in states(trials).items() if state == "done"]:
        settings = json.loads((folder / "seed-1" / "manifest.json").read_text())["settings"]
        settings |= {"output": str(place / f"alone-{folder.name}"), "tracking": {"enabled": False}}
        alone = finetune.run(FinetuneJob(**settings))["dev"]
        (run,) = json.loads((folder / "trial.json").read_text())["runs"]
        assert run["score"] == alone["entity"]["f1"] + alone["relation_exact"]["f1"]
    assert result["best"]["metrics"]["score"] == max(trial["score"] or 0 for trial in result["trials"])


AFTERWARDS = """
import json, sys, time
import psutil, ray
from ray.util import placement_group_table
from enpar import tune
from enpar.settings import parse
from enpar.sweep.settings import TuneJob

def titles():
    for child in psutil.Process().children(recursive=True):
        try:
            yield " ".join(child.cmdline())
        except psutil.Error:
            continue

result = tune.run(parse(TuneJob, sys.argv[1:]))
words = ("RayTrainWorker", "TrainController", "_pretrain", "_finetune", "MapWorker", "ImplicitFunc")
until = time.monotonic() + 60
while time.monotonic() < until:
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    left = [title for title in titles() if any(word in title for word in words)]
    free = ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]
    if not groups and not left and free:
        break
    time.sleep(0.2)
print(json.dumps({"result": result, "groups": len(groups), "left": left, "free": free}))
"""


def test_a_stopped_pretraining_leaves_nothing_running(place: Path):
    # One after the other, the good one first: the second is behind at its first evaluation.
    rates = {"pretrain.train.learning_rate": {"grid": [1e-3, 1e-9]}}
    more = {"scheduler": "asha", "asha": {"grace": 1, "reduction": 2}, "concurrency": 1}
    command = space(place, "stopped", "pretrain", rates, **more)
    steps = ["base.pretrain.train.steps=40", "base.pretrain.train.checkpoint_every=40"]
    afterwards, _ = finish(start([sys.executable, "-c", AFTERWARDS, command[-1], *steps]))
    good, bad = afterwards["result"]["trials"]
    assert (good["state"], bad["state"]) == ("done", "stopped")
    assert bad["score"] > good["score"]  # a loss
    assert bad["evaluations"] < good["evaluations"] == 20
    assert (afterwards["groups"], afterwards["left"], afterwards["free"]) == (0, [], True)
    # In MLflow neither the trial that was stopped nor its pre-training, which is its own, seems to go on.
    assert Logged(place / "mlflow.db", "stopped").tree() == {
        "trial 1: learning_rate=0.001": ("FINISHED", {"pretrain seed 1": ("FINISHED", {})}),
        "trial 2: learning_rate=1e-09": ("KILLED", {"pretrain seed 1": ("KILLED", {})}),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("space.finetune.train.lerning_rate.grid=[1]", "space.finetune.train.lerning_rate: no such setting"),
        ("base.finetune.corpus.dev=nowhere.jsonl", "nowhere.jsonl"),
        ("base.finetune.init=./nowhere", "./nowhere: no such folder"),
    ],
)
def test_mistakes_are_said_before_anything_starts(place: Path, change: str, message: str):
    command = space(place, "refused", "finetune", {RATE: {"grid": [1e-3]}})
    done = subprocess.run([*command, change], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (place / "refused").exists()
