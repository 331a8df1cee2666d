import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from enpar import metrics
from enpar import mlflow_run as module
from enpar.config import Tracking
from enpar.errors import UserError
from enpar.metrics import append_metrics, read_metrics, truncate_metrics
from enpar.output import Output, versions
from enpar.provenance import data_of
from enpar.tracking import track
from enpar.tracking_record import RUN_FILE, Record

SETTINGS = {
    "train": {"learning_rate": 5e-5, "steps": None, "precision": "bf16"},
    "corpus": {"train": "a.jsonl"},
    "source": "https://me:hunter2@example.org/x",
    "long": "x" * 7000,
    "tracking": {"uri": "http://me:hunter2@example.org"},
    "overwrite": False,
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch, caplog):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(metrics, "_POLL", 0.02)
    caplog.set_level(logging.INFO, logger="enpar")


@pytest.fixture
def output(tmp_path, database):
    return claimed(tmp_path / "run")


def claimed(path):
    output = Output(path, "pretrain", SETTINGS)
    output.claim()
    return output


def client(output):
    return MlflowClient(tracking_uri=f"sqlite:///{output.path.parent}/mlflow.db")


def logged(output):
    """The folder's MLflow run, as the file in it names it."""
    return client(output).get_run(run_of(output))


def run_of(output, uri=None):
    return Record.of(output.path).sent(uri or f"sqlite:///{output.path.parent}/mlflow.db").run


def points(output, name):
    history = client(output).get_metric_history(logged(output).info.run_id, name)
    return sorted((point.step, point.value) for point in history)


def breaks_off(output, steps, error):
    with track(output, Tracking(), "pretrain"):
        for step in steps:
            append_metrics(output.metrics, step, {"loss": step})
        raise error


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_everything_logged_reads_back(output, tmp_path):
    model = tmp_path / "model"
    (model / "inner").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / ".half").write_text("")
    (model / "inner" / "weights").write_text("w")
    (tmp_path / "report.html").write_text("<p>")
    result = {"steps": 1200, "loss": {"met": 1.5}, "checkpoint": "/x", "done": True, "test": {"relation": {"f1": 0.5}}}
    (tmp_path / "train.jsonl").write_text("{}\n{}\n")
    data = {"train": data_of(tmp_path / "train.jsonl", 2), "test": data_of(model, 7)}
    with track(output, Tracking(experiment="mine"), "pretrain", data=data) as run:
        for step in range(1, 1201):
            append_metrics(output.metrics, step, {"pretrain/loss/pp": 1 / step, "odd name!": step})
        run.finish(result, [tmp_path / "report.html", model, tmp_path / "missing"])
    found = logged(output)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "pretrain run"
    assert client(output).get_experiment(found.info.experiment_id).name == "mine"
    assert found.data.tags["enpar.stage"] == "pretrain"
    assert found.data.tags["enpar.output"] == str(output.path)
    assert found.data.tags["mlflow.source.name"] == "enpar pretrain"
    assert {f"version.{name}": version for name, version in versions().items()}.items() <= found.data.tags.items()
    read = {tag.value: entry.dataset for entry in found.inputs.dataset_inputs for tag in entry.tags}
    digest = hashlib.sha256(b"{}\n{}\n").hexdigest()
    assert (read["train"].name, read["train"].digest) == ("train.jsonl", digest[:12])
    assert json.loads(read["train"].profile) == {"num_rows": 2, "sha256": digest}
    assert json.loads(read["test"].profile)["num_rows"] == 7
    assert found.data.params == {
        "train.learning_rate": "5e-05",
        "train.steps": "null",
        "train.precision": "bf16",
        "corpus.train": "a.jsonl",
        "source": "https://example.org/x",
        "long": "x" * 6000,
    }
    assert points(output, "pretrain/loss/pp") == [(step, 1 / step) for step in range(1, 1201)]
    assert points(output, "odd name_") == [(step, step) for step in range(1, 1201)]
    history = client(output).get_metric_history(found.info.run_id, "pretrain/loss/pp")
    assert min(point.timestamp for point in history) == int(read_metrics(output.metrics)[0]["time"] * 1000)
    assert {name: value for name, value in found.data.metrics.items() if "/result/" in name} == {
        "pretrain/result/steps": 1200,
        "pretrain/result/loss/met": 1.5,
        "pretrain/result/test/relation/f1": 0.5,
    }
    artifacts = tmp_path / "mlartifacts" / found.info.run_id / "artifacts"
    assert json.loads((artifacts / "result.json").read_text()) == result
    files = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert files == {"result.json", "report.html", "model/config.json", "model/inner/weights"}


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError, "FAILED"), (UserError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_block_that_raises_ends_its_run(output, error, status):
    with pytest.raises(error, match="as it was"):
        breaks_off(output, [1], error("as it was"))
    assert logged(output).info.status == status
    assert points(output, "loss") == [(1, 1.0)]


def test_a_continued_run_keeps_its_run_and_has_each_step_once(output):
    with pytest.raises(RuntimeError):
        breaks_off(output, range(1, 6), RuntimeError("as it was"))
    first = logged(output).info.run_id
    truncate_metrics(output.metrics, 3)
    with track(output, Tracking(), "pretrain"):
        for step in range(4, 9):
            append_metrics(output.metrics, step, {"loss": step, "heldout": -step})
    assert logged(output).info.run_id == first
    assert logged(output).info.status == "FINISHED"
    assert points(output, "loss") == [(step, step) for step in range(1, 9)]
    assert points(output, "heldout") == [(step, -step) for step in range(4, 9)]


def test_a_run_goes_to_the_server_that_is_named_now(output, tmp_path):
    with track(output, Tracking(), "pretrain"):
        append_metrics(output.metrics, 1, {"loss": 1.0})
    first, other = logged(output).info.run_id, f"sqlite:///{tmp_path}/other/mlflow.db"
    with track(output, Tracking(uri=other), "pretrain"):
        pass
    assert run_of(output, other) not in ("", first)
    assert (tmp_path / "other" / "mlflow.db").exists()
    with track(output, Tracking(), "pretrain"):  # and back
        append_metrics(output.metrics, 2, {"loss": 2.0})
    assert logged(output).info.run_id == first
    assert points(output, "loss") == [(1, 1.0), (2, 2.0)]


def test_a_run_that_was_deleted_begins_anew(output):
    with track(output, Tracking(), "pretrain"):
        append_metrics(output.metrics, 1, {"loss": 1.0})
    first = logged(output).info.run_id
    client(output).delete_run(first)
    with track(output, Tracking(), "pretrain"):
        pass
    assert logged(output).info.run_id != first
    assert points(output, "loss") == [(1, 1.0)]


def test_the_environment_names_the_server(output, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/named.db")
    (tmp_path / "mlflow.db").rename(tmp_path / "named.db")
    with track(output, Tracking(), "pretrain"):
        pass
    assert MlflowClient(f"sqlite:///{tmp_path}/named.db").get_experiment_by_name("enpar")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "htp://me:hunter2@host"])
def test_an_impossible_uri_is_refused(output, uri):
    with (
        pytest.raises(UserError, match=r"^tracking\.uri: .*sqlite:") as caught,
        track(output, Tracking(uri=uri), "pretrain"),
    ):
        pytest.fail("the block must not run")
    assert "hunter2" not in str(caught.value)


PROGRAM = """
import logging, sys
from pathlib import Path
from enpar.config import Tracking
from enpar.metrics import append_metrics
from enpar.output import Output
from enpar.tracking import track
logging.basicConfig(level=logging.WARNING, format="%(message)s")
logging.getLogger("enpar").setLevel(logging.INFO)
output = Output(Path(sys.argv[1]), "finetune", {"seed": 1})
output.claim()
with track(output, Tracking(**eval(sys.argv[2])), "finetune") as run:
    append_metrics(output.metrics, 1, {"finetune/loss": 2.5})
    run.finish({"f1": 0.5})
print("mlflow" in sys.modules)
"""


def program(path, **tracking):
    arguments = [sys.executable, "-c", PROGRAM, str(path), repr(tracking)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_commands_begin_a_database_at_once_and_say_nothing_but_progress(tmp_path):
    paths = [tmp_path / "one", tmp_path / "two"]
    commands = [program(path) for path in paths]
    assert [command.communicate(timeout=300) for command in commands] == [("True\n", "step 1  loss 2.5\n")] * 2
    for path in paths:
        output = Output(path, "finetune", {})
        assert logged(output).info.status == "FINISHED"
        assert points(output, "finetune/loss") == [(1, 2.5)]


def test_a_run_without_tracking_never_imports_mlflow(tmp_path):
    command = program(tmp_path / "run", enabled=False)
    assert command.communicate(timeout=300) == ("False\n", "step 1  loss 2.5\n")
    assert not (tmp_path / "mlflow.db").exists()


# Servers that are no help


@contextmanager
def silent():
    """Accepts connections (the kernel does) and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextmanager
def refusing():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    yield port


@contextmanager
def answering(handle):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        do_GET = do_POST = do_PUT = handle  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def broken():
    return answering(lambda handler: handler.send_error(500))


def hanging_up():
    return answering(lambda handler: handler.connection.close())


def nonsense():
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<html>welcome</html>")

    return answering(answer)


@pytest.mark.parametrize("server", [silent, refusing, broken, hanging_up, nonsense])
def test_a_useless_server_costs_two_lines_at_most(server, output, caplog, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(module, "_RETRY", 0.05)  # it fails often, and is still said once
    with server() as port:
        tracking = Tracking(uri=f"http://me:hunter2@127.0.0.1:{port}")
        with track(output, tracking, "pretrain") as run:
            for step in range(1, 4):
                append_metrics(output.metrics, step, {"loss": step})
            run.finish({"steps": 3})
    assert [row["step"] for row in read_metrics(output.metrics)] == [1, 2, 3]
    *failed, left = warnings(caplog)
    assert len(failed) <= 1  # none where the run is over first
    for warning in [*failed, left]:
        assert f"http://127.0.0.1:{port}" in warning
        assert str(output.metrics) in warning
        assert "\n" not in warning
    assert "The same command, given again, sends what is missing" in left
    assert "hunter2" not in caplog.text + (output.path / RUN_FILE).read_text()
    assert run_of(output, tracking.uri) == ""
    out, err = capfd.readouterr()
    assert "hunter2" not in out + err
    assert "Traceback" not in out + err


def test_the_end_does_not_wait_for_a_server_that_never_answers(output, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    with silent() as port, track(output, Tracking(uri=f"http://127.0.0.1:{port}"), "pretrain"):
        append_metrics(output.metrics, 1, {"loss": 1.0})
    assert "no answer in time" in warnings(caplog)[-1]


def test_what_failed_is_sent_when_the_server_is_back(output, caplog, monkeypatch):
    monkeypatch.setattr(module, "_RETRY", 0.0)
    failed = threading.Event()
    send = module.MlflowRun._send_rows

    def fails_once(self, rows):
        if rows and not failed.is_set():
            failed.set()
            raise OSError("sqlite:////x://me:hunter2@there went away")
        send(self, rows)

    monkeypatch.setattr(module.MlflowRun, "_send_rows", fails_once)
    with track(output, Tracking(), "pretrain"):
        append_metrics(output.metrics, 1, {"loss": 1.0})
        assert failed.wait(120)
        append_metrics(output.metrics, 2, {"loss": 2.0})
    assert points(output, "loss") == [(1, 1.0), (2, 2.0)]
    assert logged(output).info.status == "FINISHED"
    assert len(warnings(caplog)) == 1
    assert "hunter2" not in caplog.text


def test_a_database_that_cannot_be_written_costs_one_line(output, caplog, tmp_path):
    (tmp_path / "file").write_text("")
    with track(output, Tracking(uri=f"sqlite:///{tmp_path}/file/mlflow.db"), "pretrain"):
        append_metrics(output.metrics, 1, {"loss": 1.0})
    assert "sends what is missing" in warnings(caplog)[-1]
    assert len(read_metrics(output.metrics)) == 1


def test_four_files_import_mlflow():
    package = Path(module.__file__).parent
    assert sorted(
        path.name
        for path in package.rglob("*.py")
        if "import mlflow" in path.read_text() or "from mlflow" in path.read_text()
    ) == ["mlflow_artifacts.py", "mlflow_forms.py", "mlflow_model.py", "mlflow_run.py"]
