"""Texts, sentences and checkpoints in an object store: the same as on this machine, also where it breaks off."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from pretraining import heldout_losses, in_this_process, nearly, total_losses, write_place
from s3_server import CREDENTIALS, Server, s3_server

from enpar import annotate, pretrain
from enpar.cli import main
from enpar.config import AnnotateJob, PretrainJob
from enpar.errors import UserError
from enpar.metrics import read_metrics
from enpar.sentence import read_sentences
from enpar.storage import Location

TEXTS = [
    "Marie Curie met Pierre Curie at the Sorbonne in Paris in 1894.",
    "Angela Merkel met Barack Obama in Berlin on Monday.",
    "It rained.",
    "Brazil beat Germany in Yokohama on 30 June 2002.",
    "Steve Jobs founded Apple with Steve Wozniak in Cupertino.",
    "Toyota, of Japan, and Ford, of Michigan, met in 1999.",
]
STEPS = 8


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with s3_server() as running:
            yield running


@pytest.fixture(autouse=True)
def _kind(server: Server) -> Iterator[None]:
    """Nothing is refused, after a test as before it."""
    server.changed.clear()
    yield
    server.refuses = lambda method, path: False


def put(server: Server, path: str, content: bytes | Path) -> str:
    """Store a file or folder; its URI."""
    if isinstance(content, Path):
        Location(server.uri(path)).upload(content)
    else:
        with server.files(path).open_output_stream(path) as file:
            file.write(content)
    return server.uri(path)


def names(folder: str | Path) -> list[str]:
    return [file.name for file in Location.of(folder).files(recursive=True)]


# ---- annotate -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JSONL, plain and packed text; a line is malformed, and a hidden file is none."""
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("texts")
    lines = [json.dumps({"text": text, "id": f"d{i}"}).encode() for i, text in enumerate(TEXTS)]
    (folder / "a.jsonl").write_bytes(b"\n".join([*lines[:2], b"{", *lines[2:]]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    (folder / "c d#.txt").write_text(TEXTS[0])
    (folder / ".hidden.txt").write_text(TEXTS[0])
    (folder / "more").mkdir()
    pq.write_table(pa.table({"text": TEXTS}), folder / "more" / "e.parquet")
    return folder


def annotating(input: str | Path, output: str | Path, **more: Any) -> AnnotateJob:
    settings = {"documents_per_part": 4, "num_workers": 1, "tracking": {"enabled": False}, **more}
    return AnnotateJob(input=str(input), output=output, **settings)


def content(folder: str | Path) -> dict[str, Any]:
    """All that a finished output holds, but for the settings and the time it took."""
    location = Location.of(folder)
    result = json.loads((location / "manifest.json").read_text())["result"]
    rejected = (location / "rejected.jsonl").read_text()
    return {**result, "seconds": 0, "names": names(folder), "rejects": rejected, "all": list(read_sentences(location))}


def test_annotate_reads_and_writes_as_on_this_machine(
    ray_session: None, server: Server, texts: Path, tmp_path: Path
) -> None:
    annotate.run(annotating(texts, tmp_path / "out"))
    input, output = put(server, "texts/in", texts), server.uri("texts/out")
    server.refuses = lambda method, path: method == "POST" and "/part-00002.parquet" in path
    with pytest.raises(UserError, match=r"part-00002.*ACCESS_DENIED"):
        annotate.run(annotating(input, output))
    assert "/texts/out/part-00001.parquet" in server.changed
    assert not (Location(output) / "_SUCCESS").kind()

    server.refuses = lambda method, path: False
    server.changed.clear()
    result = annotate.run(annotating(input, output))  # goes on
    assert content(output) == content(tmp_path / "out")
    assert result["documents"] == 3 * len(TEXTS) + 2
    assert not any("part-00001" in key for key in server.changed)  # was done
    assert server.changed[-1] == "/texts/out/_SUCCESS"

    server.changed.clear()
    assert annotate.run(annotating(input, output)) == result  # left alone
    assert not server.changed
    with pytest.raises(UserError, match=r"min_entities: 3 → 2.*overwrite=true"):
        annotate.run(annotating(input, output, min_entities=2))
    with pytest.raises(UserError, match=r"and the input .* overlap"):
        annotate.run(annotating(input, server.uri("texts/in/out")))


# ---- pretrain -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("pretrain"))


def pretraining(place: Path, data: str | Path, output: str | Path, **more: Any) -> PretrainJob:
    train = {"steps": STEPS, "batch_size": 40, "precision": "fp32", "heldout": 20, "checkpoint_every": 2}
    scaling = {"num_workers": 1, "threads": 1, "max_failures": 0}
    settings = {"tracking": {"enabled": False}, "encoder": str(place / "encoder"), **more}
    return PretrainJob(data=data, output=output, train=train, scaling=scaling, **settings)


def test_pretrain_reads_and_writes_as_on_this_machine(
    ray_session: None, server: Server, place: Path, tmp_path: Path, database: Path
) -> None:
    here = in_this_process(pretraining(place, place / "sentences", tmp_path / "out"))
    data, output = put(server, "texts/sentences", place / "sentences"), server.uri("texts/enpar")
    job = pretraining(place, data, output, tracking={"uri": f"sqlite:///{database}"})
    with TemporaryDirectory() as scratch:  # of a short name, as Ray's sockets need it
        kill_before_the_last_checkpoint(server, job, Path(scratch))
    broken = rows_of(output, tmp_path)
    assert [step for step, _ in total_losses(broken)] == list(range(1, STEPS - 1))
    assert not (Location(output) / "_SUCCESS").kind()

    there = pretrain.run(job)  # goes on from a checkpoint
    assert there["checkpoint"] == output
    rows = rows_of(output, tmp_path)
    assert total_losses(rows) == nearly(total_losses(here), 1e-4)
    assert there["heldout"]["last"]["loss"] == pytest.approx(heldout_losses(here), rel=1e-4)
    assert rows[:2] == broken[:2] and rows[-1]["time"] != broken[-1]["time"]
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert set(names(output)) == {*model, "metrics.jsonl", "manifest.json", "_SUCCESS", ".mlflow_run"}

    client = MlflowClient(f"sqlite:///{database}")
    (run,) = client.search_runs([client.get_experiment_by_name("enpar").experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "pretrain/loss/total")
    assert {point.step for point in history} == set(range(1, STEPS + 1))
    artifacts = client.list_artifacts(run.info.run_id, "checkpoint")
    assert "model.safetensors" in [Path(artifact.path).name for artifact in artifacts]

    server.changed.clear()
    assert pretrain.run(job) == there
    assert not server.changed


def kill_before_the_last_checkpoint(server: Server, job: PretrainJob, scratch: Path) -> None:
    """Run a job as a command, and kill it when it copies its numbers for the last time."""
    settings = scratch / "job.yaml"
    settings.write_text(job.model_dump_json())
    environment = {**os.environ, "RAY_ADDRESS": "local", "TMPDIR": str(scratch)}
    command = subprocess.Popen([sys.executable, "-m", "enpar", "pretrain", str(settings)], env=environment)
    family: list[psutil.Process] = []
    copies = 0

    def kills(method: str, path: str) -> bool:
        nonlocal copies
        copies += path.endswith("metrics.jsonl?uploads")
        if copies >= STEPS // 2 and not family:
            children = psutil.Process(command.pid).children(recursive=True)
            family.extend(child for child in children if "Train" in child.name() or "_Writer" in child.name())
            command.kill()
        return bool(family)

    server.refuses = kills
    assert command.wait(timeout=600) == -signal.SIGKILL
    assert family and not psutil.wait_procs(family, timeout=60)[1]  # they go with it
    server.refuses = lambda method, path: False


def rows_of(output: str, folder: Path) -> list[dict[str, Any]]:
    (Location(output) / "metrics.jsonl").download(folder / "metrics.jsonl")
    return read_metrics(folder / "metrics.jsonl")


# ---- What is refused, and what is shown -----------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that ends with 2 at once."""
    began = time.monotonic()
    assert main([*arguments, "tracking.enabled=false"] if arguments[0] != "views" else arguments) == 2
    assert time.monotonic() - began < 60
    said = capsys.readouterr()
    assert not said.out
    (line,) = said.err.splitlines()
    return line


TINY = ["train.steps=1", "train.batch_size=40", "train.heldout=20", "scaling.num_workers=1"]


def test_what_is_not_there_or_not_allowed_is_one_line(
    server: Server, place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = put(server, "texts/one/a.txt", b"It rained.")
    data = put(server, "texts/sentences", place / "sentences")
    nowhere = text.replace(server.endpoint, "127.0.0.1:9")
    out, encoder = f"output={server.uri('texts/refused')}", f"encoder={place / 'encoder'}"
    no_bucket = server.uri("no-such-bucket/x")

    assert "no such file or folder" in refused(capsys, "annotate", f"input={server.uri('texts/none')}", out)
    assert "no such file or folder" in refused(capsys, "annotate", f"input={no_bucket}", out)
    assert "NO_SUCH_BUCKET" in refused(capsys, "annotate", f"input={text}", f"output={no_bucket}", "num_workers=1")
    said = refused(capsys, "annotate", f"input={nowhere}", out)
    assert said.startswith(f"enpar: {nowhere}: ") and "NETWORK_CONNECTION" in said and "AWS_ENDPOINT_URL" in said
    unfinished = put(server, "texts/unfinished/part-0.parquet", b"")
    assert "no such folder" in refused(capsys, "pretrain", f"data={no_bucket}", out, encoder, *TINY)
    folder = unfinished.replace("/part-0.parquet", "")
    assert "no _SUCCESS" in refused(capsys, "pretrain", f"data={folder}", out, encoder, *TINY)
    with server.strict():
        for said in (
            refused(capsys, "annotate", f"input={text}", f"output={tmp_path / 'out'}"),
            refused(capsys, "pretrain", f"data={data}", f"output={tmp_path / 'out'}", encoder, *TINY),
        ):
            assert "ACCESS_DENIED" in said and "AWS_ACCESS_KEY_ID" in said
    assert not Location(server.uri("texts/refused")).kind() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["s3://me:hunter2@texts/out", "s3://texts/out?secret_key=hunter2"])
def test_credentials_in_a_uri_are_neither_taken_nor_shown(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    for setting in ("input", "output"):
        said = refused(capsys, "annotate", "input=a", "output=b", f"{setting}={where}")
        assert "hunter2" not in said and said.startswith(f"enpar: {setting}: ") and "AWS_SECRET_ACCESS_KEY" in said


def test_what_takes_only_paths_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "fetch", "name=wiki-leads", "output=s3://texts/out")
    assert said.startswith("enpar: output: a path of this machine is needed here, and s3://texts/out is a URI")


def test_the_endpoint_may_be_in_the_environment(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(server, "texts/shown", place / "sentences")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server.endpoint}")
    shown = []
    for data in ("s3://texts/shown", f"file://{place}/sentences"):
        assert main(["views", f"data={data}", f"encoder={place / 'encoder'}", "limit=3"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != ""
