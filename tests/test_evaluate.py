import json
import shutil
from pathlib import Path

import pytest
import torch
from encoders import tiny_encoder

from enpar.config import EvaluateJob, TestCorpus
from enpar.corpora import load, read_splits, sample_corpus
from enpar.errors import UserError
from enpar.evaluate import _named, run
from enpar.extraction import load as load_model
from enpar.extraction import start
from enpar.model.joint import Labels
from enpar.scores import score
from enpar.sentence import write_jsonl
from enpar.settings import parse
from enpar.symmetric import normalise

LABELS = Labels(("ORGANIZATION", "PERSON", "PLACE"), ("founded", "works_for"))
GIVEN = ["corpus.test=t", "output=o"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two models that know nothing but find a lot, and a test split."""
    folder = tmp_path_factory.mktemp("evaluate")
    gold = load("jsonl", sample_corpus() / "test.jsonl")[:24]
    write_jsonl(folder / "test.jsonl", gold)
    tiny_encoder(folder / "encoder", [token for s in gold for token in s.tokens])
    for seed, name in enumerate(("one/model", "two/model")):
        torch.manual_seed(seed)
        extraction = start(str(folder / "encoder"), True, LABELS, 0.0, "fp32")
        with torch.no_grad():  # rather something than nothing
            extraction.model.entity_classifier.bias[0] = extraction.model.relation_classifier.bias[0] = -5
        (folder / name).mkdir(parents=True)
        extraction.save(folder / name, {"precision": "fp32"}, "card")
    return folder


def job(place, output, *more):
    given = [f"corpus.test={place / 'test.jsonl'}", f"output={output}", "tracking.enabled=false", "resamples=100"]
    return parse(EvaluateJob, [*given, *more])


def predictions(place, name):
    gold = load("jsonl", place / "test.jsonl")
    return gold, [prediction.sentence for prediction in load_model(place / name).predict(gold)]


def test_one_model(place, tmp_path):
    result = run(job(place, tmp_path / "o", f"model={place / 'one/model'}"))
    gold, predicted = predictions(place, "one/model")
    assert score(gold, predicted)["relation_exact"]["predicted"] > 0
    assert result == {
        "report": str(tmp_path / "o/report.html"),
        "scores": score(gold, predicted),
        "symmetric": "directed",
        "corpus": {"test": read_splits({"test": place / "test.jsonl"}, TestCorpus(test="t"))["test"].figures()},
    }
    assert load("jsonl", tmp_path / "o/predictions.jsonl") == predicted
    report = json.loads((tmp_path / "o/report.json").read_text())
    assert report["scores"] == report["models"]["model"]["scores"] == result["scores"]
    assert report["comparisons"] == []
    assert report["models"]["model"]["model"]["path"] == str(place / "one/model")


def test_several_models_are_named_apart_and_compared(place, tmp_path):
    result = run(job(place, tmp_path / "o", f"model={place / 'one/model'},{place / 'two/model'}"))
    assert list(result["models"]) == ["one-model", "two-model"]
    for name, scores in result["models"].items():
        gold, predicted = predictions(place, name.replace("-", "/"))
        assert scores == score(gold, predicted)
        assert load("jsonl", tmp_path / f"o/predictions-{name}.jsonl") == predicted
    assert result["scores"] == result["models"]["one-model"]
    (found,) = result["comparisons"]
    assert (found["first"], found["second"]) == ("one-model", "two-model")
    for name, values in found["scores"].items():
        first, second = (scores[name]["f1"] for scores in result["models"].values())
        assert values["difference"] == second - first
        assert values["interval"][0] <= values["interval"][1] and 1 / 101 <= values["p"] <= 1
    assert run(job(place, tmp_path / "o", f"model={place / 'one/model'},{place / 'two/model'}")) == result  # left alone
    rows = [json.loads(line) for line in (tmp_path / "o/metrics.jsonl").read_text().splitlines()]
    assert rows[0]["test/two-model/entity/f1"] == result["models"]["two-model"]["entity"]["f1"]


def test_symmetric_relations_are_normalised_for_the_scores_alone(place, tmp_path):
    way = ["symmetric=normalised", "symmetric_relations=works_for,founded"]
    result = run(job(place, tmp_path / "o", f"model={place / 'one/model'}", *way))
    gold, predicted = predictions(place, "one/model")
    labels = {"works_for", "founded"}
    assert result["scores"] == score(normalise(gold, labels), normalise(predicted, labels))
    assert load("jsonl", tmp_path / "o/predictions.jsonl") == predicted
    report = json.loads((tmp_path / "o/report.json").read_text())
    assert (report["symmetric"], report["symmetric_relations"]) == ("normalised", ["founded", "works_for"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model={one},{one}/"], "one folder is given twice"),
        (["model={one},{one}x"], "no config.json and model.safetensors there"),
        (["model={one}", "symmetric_relations=[works_for, COMPARE]"], "no relation is called 'COMPARE'; there are: bo"),
    ],
)
def test_the_users_mistakes(place, tmp_path, changes, message):
    changes = [change.format(one=place / "one/model") for change in changes]
    with pytest.raises(UserError, match=message):
        run(job(place, tmp_path / "o", *changes))
    assert not (tmp_path / "o").exists()


def test_a_folder_of_several_seeds_says_which_models_it_holds(place, tmp_path):
    for seed in (2, 3):
        shutil.copytree(place / "one/model", tmp_path / f"models/seed-{seed}")
    with pytest.raises(UserError, match=r"models: the models of several seeds; name one of them, such as .*/seed-2 "):
        run(job(place, tmp_path / "o", f"model={tmp_path / 'models'}"))
    assert run(job(place, tmp_path / "o", f"model={tmp_path / 'models/seed-3'}"))["scores"]


def test_models_are_named_by_as_much_of_their_paths_as_it_takes():
    paths = [Path("/model"), Path("/mnt/model"), Path("/mnt/other")]
    assert list(_named(paths)) == ["model", "mnt-model", "mnt-other"]
    assert list(_named(paths[1:])) == ["model", "other"]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("a", ["a"]),
        ("a,b/c", ["a", "b/c"]),
        ("a, b", ["a", "b"]),
        ("[a, 'b,c']", ["a", "b,c"]),
        ("2026", ["2026"]),
        ("[2026, 1.5]", ["2026", "1.5"]),
    ],
)
def test_models_are_given_in_many_ways(text, paths):
    assert parse(EvaluateJob, [*GIVEN, f"model={text}"]).model == tuple(map(Path, paths))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ([], "model: must be given"),
        (["model=[]"], "model: "),
        (["model={a: 1}"], "model"),
        (["model=m", "symmetric=both"], "'directed' or 'normalised'"),
        (["model=m", "resamples=99"], "resamples: "),
    ],
)
def test_impossible_settings(changes, part):
    with pytest.raises(UserError, match=part):
        parse(EvaluateJob, [*GIVEN, *changes])
