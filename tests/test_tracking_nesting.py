"""A sweep, its trials and their stages: runs that belong to one another, in one process and in several."""

import subprocess
import sys

import pytest
from mlflow import MlflowClient

from enpar import metrics
from enpar.config import Tracking
from enpar.errors import UserError
from enpar.metrics import append_metrics
from enpar.output import Output
from enpar.tracking import begin, catch_up, check_tracking, track
from enpar.tracking_record import Record

# What a trial does in a process of its own: it gets its tracking settings as JSON.
TRIAL = """
import sys
from pathlib import Path
from enpar.config import Tracking
from enpar.metrics import append_metrics
from enpar.output import Output
from enpar.tracking import track

def claimed(path, stage):
    output = Output(path, stage, {"seed": 1})
    output.claim()
    return output

folder = Path(sys.argv[1])
with track(trial := claimed(folder, "trial"), Tracking.model_validate_json(sys.argv[2]), "trial") as run:
    with track(stage := claimed(folder / "finetune", "finetune"), run.below(), "finetune") as inner:
        append_metrics(stage.metrics, 1, {"dev/entity/f1": 0.5})
        inner.finish({"epochs": 1})
    append_metrics(trial.metrics, 1, {"trial/score": 0.5})
    if sys.argv[3:] == ["dies"]:
        import os
        os._exit(9)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch, database):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(metrics, "_POLL", 0.02)


def claimed(path, stage="tune"):
    output = Output(path, stage, {"seed": 1})
    output.claim()
    return output


def trial(folder, tracking, *more):
    command = [sys.executable, "-c", TRIAL, str(folder), tracking.model_dump_json(), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def runs(tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("enpar").experiment_id])
    return {run.info.run_name: run for run in found}


def parents(found):
    """Each run's name with that of its parent."""
    names = {run.info.run_id: name for name, run in found.items()}
    return {name: names.get(run.data.tags.get("mlflow.parentRunId")) for name, run in found.items()}


def test_trials_in_other_processes_and_their_stages(tmp_path):
    output = claimed(tmp_path / "sweep")
    with track(output, Tracking(), "tune") as sweep:
        for name in ("trial_1", "trial_2"):
            done = trial(output.path / name, sweep.below())
            assert done.returncode == 0, done.stderr
    found = runs(tmp_path)
    assert parents(found) == {
        "tune sweep": None,
        "trial trial_1": "tune sweep",
        "trial trial_2": "tune sweep",
        "finetune trial_1": "trial trial_1",
        "finetune trial_2": "trial trial_2",
    }
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["finetune trial_2"].data.metrics == {"dev/entity/f1": 0.5, "finetune/result/epochs": 1}
    assert found["trial trial_2"].data.metrics == {"trial/score": 0.5}
    assert list(tmp_path.rglob("mlflow.db")) == [tmp_path / "mlflow.db"]  # not one beside each output


def test_a_trial_that_is_killed_ends_as_killed(tmp_path):
    output = claimed(tmp_path / "sweep")
    with track(output, Tracking(), "tune") as sweep:
        done = trial(output.path / "trial_1", sweep.below(), "dies")
        assert done.returncode == 9, done.stderr
        catch_up(output.path / "trial_1", sweep.below())
    found = runs(tmp_path)
    assert parents(found) == {
        "tune sweep": None,
        "trial trial_1": "tune sweep",
        "finetune trial_1": "trial trial_1",
    }
    assert {name: run.info.status for name, run in found.items()} == {
        "tune sweep": "FINISHED",
        "trial trial_1": "KILLED",
        "finetune trial_1": "FINISHED",
    }
    assert found["trial trial_1"].data.metrics == {"trial/score": 0.5}


def test_a_parent_is_named_by_its_id_as_well(tmp_path):
    output, uri = claimed(tmp_path / "first"), f"sqlite:///{tmp_path}/mlflow.db"
    with track(output, Tracking(), "tune"):
        pass
    parent = Record.of(output.path).sent(uri).run
    with track(claimed(tmp_path / "second"), Tracking(parent=parent), "tune"):
        pass
    assert parents(runs(tmp_path)) == {"tune first": None, "tune second": "tune first"}


def test_a_run_that_goes_on_keeps_its_parent(tmp_path):
    with track(claimed(tmp_path / "sweep"), Tracking(), "tune") as sweep:
        output, uri = claimed(tmp_path / "sweep" / "trial"), sweep.below().uri
        with pytest.raises(RuntimeError), track(output, sweep.below(), "tune"):
            raise RuntimeError
    MlflowClient(uri).delete_run(Record.of(output.path).sent(uri).run)
    with track(output, Tracking(uri=uri), "tune"):
        append_metrics(output.metrics, 1, {"loss": 1.0})
    assert parents(runs(tmp_path)) == {"tune sweep": None, "tune trial": "tune sweep"}


def test_what_belongs_to_a_run_that_is_not_tracked_is_not_tracked_either(tmp_path):
    with track(claimed(tmp_path / "sweep"), Tracking(enabled=False), "tune") as sweep:
        assert sweep.below() == Tracking(enabled=False)


def test_an_impossible_parent_is_refused(tmp_path):
    for parent in ("sweep", str(tmp_path / "missing"), "123abc"):
        with pytest.raises(UserError, match=r"^tracking\.parent: .*neither an output folder nor the id"):
            check_tracking(Tracking(parent=parent), tmp_path)
    check_tracking(Tracking(parent=str(tmp_path)), tmp_path / "run")
    with pytest.raises(UserError, match=r"^tracking\.parent: .*the run's own output folder"):
        check_tracking(Tracking(parent=str(tmp_path)), tmp_path)


def test_a_run_has_the_name_that_is_given(tmp_path):
    with track(claimed(tmp_path / "sweep"), Tracking(name="search one"), "tune") as sweep:
        assert sweep.below().name is None
    assert list(runs(tmp_path)) == ["search one"]


def test_models_are_logged_unless_they_are_not_wanted(tmp_path):
    for name, models in (("with", True), ("without", False)):
        output = claimed(tmp_path / name)
        (output.path / "weights").mkdir()
        for path in ("weights/part", "report.md"):
            (output.path / path).write_text("x")
        with track(output, Tracking(models=models), "tune") as run:
            assert run.below().models is models
            run.finish({}, [output.path / "weights", output.path / "report.md"])
    client, found = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"), runs(tmp_path)
    logged = {name: {item.path for item in client.list_artifacts(run.info.run_id)} for name, run in found.items()}
    assert logged == {"tune with": {"weights", "report.md"}, "tune without": {"report.md"}}


def test_a_run_whose_process_goes_on_is_left_to_it(tmp_path):
    sweep = claimed(tmp_path / "sweep")
    with track(sweep, Tracking(), "tune") as outer:
        dead, alive = (begin(claimed(sweep.path / name), outer.below(), {}) for name in ("dead", "alive"))
        dead.close("KILLED")
        dead.wait()
        assert catch_up(sweep.path, outer.below())
        assert (dead.complete, alive.complete) == (True, False)
        alive.below()  # waits until it is there
        assert runs(tmp_path)["tune alive"].info.status == "RUNNING"
        alive.finish({}, tags={"state": "done"})
        alive.close("FINISHED")
        alive.wait()
    found = runs(tmp_path)
    assert {name: run.info.status for name, run in found.items()} == {
        "tune sweep": "FINISHED",
        "tune dead": "KILLED",
        "tune alive": "FINISHED",
    }
    assert found["tune alive"].data.tags["state"] == "done"


def test_what_belongs_to_a_run_is_sent_after_it_wherever_it_lies(tmp_path, database):
    output, gone = claimed(tmp_path / "all" / "z"), Tracking(uri=f"sqlite:///{tmp_path}/all/z/manifest.json/mlflow.db")
    with track(output, gone, "tune") as outer, track(claimed(tmp_path / "all" / "a"), outer.below(), "tune"):
        pass
    assert catch_up(tmp_path / "all", Tracking(uri=f"sqlite:///{database}"))
    assert parents(runs(tmp_path)) == {"tune z": None, "tune a": "tune z"}
