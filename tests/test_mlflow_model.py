"""The fine-tuned model that a run logs, loaded back by MLflow."""

import json

import pandas
import pytest
from encoders import tiny_encoder
from mlflow import MlflowClient, pyfunc
from test_extract import HARD, model  # noqa: F401 - a fixture

from enpar import finetune, metrics
from enpar.config import FinetuneJob, Tracking
from enpar.corpora import load, sample_corpus
from enpar.errors import UserError
from enpar.extractor import Extractor
from enpar.mlflow_model import TextModel
from enpar.output import Output
from enpar.sentence import write_jsonl
from enpar.settings import parse
from enpar.tracking import track
from enpar.tracking_record import Record


@pytest.fixture(autouse=True)
def _quick(monkeypatch, database):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(metrics, "_POLL", 0.02)


def logged(output, monkeypatch):
    """Client and id of the run of an output folder, whose database MLflow uses from now on."""
    uri = f"sqlite:///{output.parent}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(), Record.of(output).sent(uri).run


def below(client, run, folder=None):
    """All artifacts of a run."""
    for item in client.list_artifacts(run, folder):
        yield from below(client, run, item.path) if item.is_dir else [item.path]


def test_it_predicts_what_the_extractor_does(model, tmp_path, monkeypatch):  # noqa: F811
    output = Output(tmp_path / "run", "finetune", {})
    output.claim()
    with track(output, Tracking(), "finetune") as run:
        run.finish({}, [model])
    client, name = logged(output.path, monkeypatch)
    files = {path for path in below(client, name) if path.startswith("model/")}
    assert {f"model/{file.name}" for file in model.iterdir()} < files
    assert not [path for path in files if path.endswith((".pkl", ".pickle", ".py", ".bin", ".pt"))]
    loaded = pyfunc.load_model(f"runs:/{name}/model")
    texts = [*list(HARD.values())[:5], "", "Ana left."]
    answers = loaded.predict(pandas.DataFrame({"text": texts}, index=range(7, 7 + len(texts))))
    assert list(answers.index) == list(range(7, 7 + len(texts)))
    rows = json.loads(json.dumps(answers.to_dict("records")))
    extract = Extractor(model)
    for text, row in zip(texts, rows, strict=True):
        sentences = extract(text)
        assert spans(row["entities"]) == spans(e for sentence in sentences for e in sentence["entities"])
        expected = [
            (relation["type"], *(offsets(sentence["entities"][relation[end]]) for end in ("head", "tail")))
            for sentence in sentences
            for relation in sentence["relations"]
        ]
        found = [
            (r["type"], offsets(row["entities"][r["head"]]), offsets(row["entities"][r["tail"]]))
            for r in row["relations"]
        ]
        assert found == expected
        assert all(text[e["char_start"] : e["char_end"]] == e["text"] for e in row["entities"])
    assert sum(len(row["relations"]) for row in rows) > 1
    together = [score for sentence in extract(texts) for score in scores(sentence)]
    assert sorted(score for row in rows for score in scores(row)) == sorted(together)
    with pytest.raises(UserError, match="row 1: text is "):
        TextModel(model).predict(pandas.DataFrame({"text": ["a", None]}))


def spans(entities):
    return [(entity["type"], *offsets(entity), entity["text"]) for entity in entities]


def related(found):
    """The relations, with where their entities are in the text."""
    places = [offsets(entity) for entity in found["entities"]]
    return [(relation["type"], places[relation["head"]], places[relation["tail"]]) for relation in found["relations"]]


def offsets(entity):
    return entity["char_start"], entity["char_end"]


def scores(sentence):
    return [item["score"] for item in (*sentence["entities"], *sentence["relations"])]


def test_what_a_fine_tuning_logs(tmp_path, monkeypatch):
    splits = {name: load("jsonl", sample_corpus() / f"{name}.jsonl")[:12] for name in ("train", "dev", "test")}
    tiny_encoder(tmp_path / "encoder", [token for split in splits.values() for s in split for token in s.tokens])
    for name, sentences in splits.items():
        write_jsonl(tmp_path / f"{name}.jsonl", sentences)
    corpus = [f"corpus.{name}={tmp_path / name}.jsonl" for name in splits]
    settings = [f"init={tmp_path / 'encoder'}", f"output={tmp_path / 'out'}", *corpus, "train.epochs=1", "threads=1"]
    result = finetune.run(parse(FinetuneJob, [*settings, "seed=7"]))
    client, name = logged(tmp_path / "out", monkeypatch)
    run = client.get_run(name)
    assert run.info.run_name == "finetune out"
    assert run.data.params["seed"] == "7"
    read = {tag.value: json.loads(entry.dataset.profile) for entry in run.inputs.dataset_inputs for tag in entry.tags}
    assert {name: profile["num_rows"] for name, profile in read.items()} == dict.fromkeys(splits, 12)
    assert {f"{split}/relation_exact/f1" for split in ("dev", "test")} < run.data.metrics.keys()
    assert run.data.metrics["finetune/result/dev/entity/f1"] == result["dev"]["entity"]["f1"]
    assert {"result.json", "model/MLmodel", "model/model.safetensors", "model/README.md"} < set(below(client, name))
    loaded = pyfunc.load_model(f"runs:/{name}/model")
    assert loaded.predict(loaded.input_example).columns.tolist() == ["entities", "relations"]
