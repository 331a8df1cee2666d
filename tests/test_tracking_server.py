"""A tracking server that is lost, and what is sent to it later, through real ones."""

import json
import logging
import socket
import threading
from contextlib import closing, suppress

import pytest
from mlflow import MlflowClient
from mlflow_server import loads, server, until, way_to

from enpar import metrics, mlflow_run
from enpar.config import Tracking
from enpar.metrics import append_metrics, read_metrics
from enpar.mlflow_run import MlflowRun
from enpar.output import Output
from enpar.tracking import catch_up, finished, track
from enpar.tracking_record import Record


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with server(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(autouse=True)
def _quick(monkeypatch, caplog):
    monkeypatch.setattr(metrics, "_POLL", 0.02)
    caplog.set_level(logging.INFO, logger="enpar")


def claimed(path, stage="pretrain"):
    output = Output(path, stage, {"seed": 1})
    output.claim()
    return output


def logged(output, tracking, client):
    return client.get_run(Record.of(output.path).sent(tracking.uri).run)


def points(output, tracking, client, name="loss"):
    history = client.get_metric_history(Record.of(output.path).sent(tracking.uri).run, name)
    return sorted((point.step, point.value) for point in history)


def number_of_runs(tracking, client):
    experiment = client.get_experiment_by_name(tracking.experiment)
    return len(client.search_runs([experiment.experiment_id]))


def complete(output, tracking, client, steps):
    run = logged(output, tracking, client)
    assert run.info.status == "FINISHED"
    assert points(output, tracking, client) == [(step, step) for step in steps]
    assert points(output, tracking, client, "pretrain/result/steps") == [(steps[-1], len(steps))]
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"result.json", "report.html"}
    assert number_of_runs(tracking, client) == 1
    assert run.info.start_time < int(read_metrics(output.metrics)[-1]["time"] * 1000) <= run.info.end_time


def ends(output, run):
    (output.path / "report.html").write_text("<p>")
    result = {"steps": len(read_metrics(output.metrics))}
    output.finish(result)
    run.finish(result, [output.path / "report.html"])


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_server_that_dies_in_the_middle_gets_the_rest_later(running, tmp_path, caplog):
    output, tracking = claimed(tmp_path / "run"), Tracking(uri=running.uri, experiment="dies")
    client = MlflowClient(running.uri)
    with track(output, tracking, "pretrain") as run:
        for step in range(1, 6):
            append_metrics(output.metrics, step, {"loss": step})
        until(lambda: Record.of(output.path).sent(running.uri).steps.get("loss") == 5, "nothing was sent")
        running.kill()
        for step in range(6, 11):
            append_metrics(output.metrics, step, {"loss": step})
        until(lambda: warnings(caplog), "nothing was said")
        ends(output, run)
    failed, left = warnings(caplog)
    assert f"MLflow at {running.uri} does not take the run" in failed
    assert "The same command, given again, sends what is missing" in left
    assert str(output.metrics) in failed and str(output.metrics) in left
    running.start()
    assert logged(output, tracking, client).info.status == "RUNNING"
    assert points(output, tracking, client) == [(step, step) for step in range(1, 6)]
    for _ in range(2):
        assert finished(output, tracking, overwrite=False) == {"steps": 10}
        complete(output, tracking, client, range(1, 11))
    assert [record.getMessage() for record in caplog.records if "has all of" in record.getMessage()] == [
        f"MLflow at {running.uri} has all of {output.path} now"
    ]


def test_a_server_that_was_never_there_gets_parents_and_children_later(running, tmp_path, caplog):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    tracking = Tracking(uri=f"http://127.0.0.1:{port}", experiment="never")
    sweep = claimed(tmp_path / "sweep", "tune")
    with track(sweep, tracking, "tune") as outer:
        for name in ("a", "b"):
            output = claimed(sweep.path / name)
            with suppress(ZeroDivisionError), track(output, outer.below(), "pretrain") as run:
                append_metrics(output.metrics, 1, {"loss": 1.0})
                ends(output, run) if name == "a" else 1 / 0
    assert sum("sends what is missing" in line for line in warnings(caplog)) == 3
    with way_to(running.uri, port):
        catch_up(sweep.path, tracking)
        catch_up(sweep.path, tracking)
    client = MlflowClient(running.uri)
    found = client.search_runs([client.get_experiment_by_name("never").experiment_id])
    assert {run.info.run_name: run.info.status for run in found} == {
        "tune sweep": "FINISHED",
        "pretrain a": "FINISHED",
        "pretrain b": "FAILED",
    }
    parent = Record.of(sweep.path).sent(tracking.uri).run
    assert [run.data.tags.get("mlflow.parentRunId") for run in found if run.info.run_id != parent] == [parent] * 2
    assert [run.data.metrics["loss"] for run in found if run.info.run_id != parent] == [1.0, 1.0]


def test_nothing_is_doubled_where_only_answers_are_lost(running, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_run, "_RETRY", 0.0)
    lost: list[str] = []

    def first(path, body):
        """The first answer of each kind that changes something."""
        if "log-batch" in path:
            path += "".join(sorted(kind for kind in ("metrics", "params", "tags") if loads(body).get(kind)))
        kind = path.partition("?")[0]
        changes = "log-" in kind or "create" in kind or "mlflow-artifacts" in kind or "runs/update" in kind
        if not changes or kind in lost:
            return False
        lost.append(kind)
        return True

    output = claimed(tmp_path / "run")
    with way_to(running.uri, lost=first) as uri:
        tracking = Tracking(uri=uri, experiment="answers")
        with track(output, tracking, "pretrain") as run:
            append_metrics(output.metrics, 1, {"loss": 1.0})
            until(lambda: Record.of(output.path).sent(uri).steps, "nothing was sent")
            append_metrics(output.metrics, 2, {"loss": 2.0})
            ends(output, run)
        while not Record.of(output.path).sent(uri).status:  # each try loses one answer more
            assert finished(output, tracking, overwrite=False) == {"steps": 2}
    assert {"create", "update"} <= {path.rpartition("/")[2] for path in lost if "/runs/" in path}
    assert len(lost) >= 6, lost
    complete(output, tracking, MlflowClient(running.uri), range(1, 3))
    assert json.loads((output.path / "manifest.json").read_text())["result"] == {"steps": 2}


def test_what_a_server_left_unanswered_can_be_sent_elsewhere(tmp_path, monkeypatch, caplog, database):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setattr(mlflow_run, "_PATIENCE", 0.2)
    output, here = claimed(tmp_path / "run"), Tracking(uri=f"sqlite:///{database}", experiment="elsewhere")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        tracking = Tracking(uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with track(output, tracking, "pretrain") as run:
            for step in range(1, 4):
                append_metrics(output.metrics, step, {"loss": step})
            ends(output, run)
    assert "no answer in time" in warnings(caplog)[-1]
    until(lambda: not any(isinstance(thread, MlflowRun) for thread in threading.enumerate()), "it still waits")
    for _ in range(2):
        assert finished(output, here, overwrite=False) == {"steps": 3}
        complete(output, here, MlflowClient(here.uri), range(1, 4))
