import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from commands import until
from encoders import tiny_encoder
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from enpar import evaluate
from enpar.config import EvaluateJob, FinetuneJob
from enpar.corpora import load, sample_corpus
from enpar.errors import UserError
from enpar.extraction import Extraction, start
from enpar.extraction import load as load_model
from enpar.finetune import run, share
from enpar.metrics import read_metrics
from enpar.model.joint import Labels
from enpar.scores import score
from enpar.seeds import summary
from enpar.sentence import Sentence, write_jsonl
from enpar.settings import parse
from enpar.training.checkpoint import save_model

SCORES = {"span", "entity", "relation", "relation_exact"}
SCORE = {"precision", "recall", "f1", "gold", "predicted", "correct"}


def enpar(*arguments, **more):
    command = [sys.executable, "-m", "enpar", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an encoder and a small corpus that has a label in test which train lacks."""
    folder = tmp_path_factory.mktemp("finetune")
    splits = {name: load("jsonl", sample_corpus() / f"{name}.jsonl") for name in ("train", "dev", "test")}
    tiny_encoder(folder / "encoder", [t for sentences in splits.values() for s in sentences for t in s.tokens])
    for name, count in (("train", 48), ("dev", 12), ("test", 20)):
        write_jsonl(folder / f"{name}.jsonl", splits[name][:count])
    unseen = {"tokens": ["Quasar", "!"], "entities": [{"type": "STAR", "start": 0, "end": 1}], "relations": []}
    with (folder / "test.jsonl").open("a") as file:
        file.write(json.dumps(unseen) + "\n")
    return folder


def job(place, output, *more):
    rates = ("learning_rate", "span_learning_rate", "classifier_learning_rate")
    return parse(
        FinetuneJob,
        [
            f"init={place / 'encoder'}",
            f"output={output}",
            *(f"corpus.{split}={place / split}.jsonl" for split in ("train", "dev", "test")),
            *(f"train.{name}=3e-3" for name in rates),
            "train.epochs=4",
            "train.sampling_start=2",
            "tracking.enabled=false",
            "threads=1",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def finished(place):
    return run(job(place, place / "model")), place / "model"


def test_the_result_and_the_folder(place, finished):
    result, folder = finished
    assert {"model", "epochs", "dev", "test"} <= result.keys()
    assert result["model"] == str(folder)
    assert result["epochs"] == 4
    assert result["dev"].keys() == result["test"].keys() == SCORES
    assert all(score.keys() == SCORE for split in ("dev", "test") for score in result[split].values())
    gold = load("jsonl", place / "test.jsonl")
    assert result["gold"]["test"] == {
        "sentences": 21,
        "entities": sum(len(s.entities) for s in gold),
        "relations": sum(len(s.relations) for s in gold),
    }
    assert result["test"]["entity"]["gold"] == result["gold"]["test"]["entities"]  # what train lacks counts as well
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "_SUCCESS"} <= {
        file.name for file in folder.iterdir()
    }
    card = (folder / "README.md").read_text()
    assert all(word in card for word in ("Extractor", "Limits", "PERSON", str(place / "encoder")))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "dev/entity/f1" in row][-1]
    assert "dev/relation_exact/f1" in last and last["step"] == result["steps"]
    assert any("finetune/loss/relation" in row for row in rows)


def test_the_corpus_is_accounted_for(finished):
    result, folder = finished
    assert [result["corpus"][split]["kept"]["sentences"] for split in ("train", "dev", "test")] == [48, 12, 21]
    assert result["corpus"]["test"]["format"] == "jsonl"  # recognised, and named in the card
    assert "corpus.format=jsonl" in (folder / "README.md").read_text()
    assert not (folder / "rejected.jsonl").exists()


def test_a_share_of_the_training_split_and_what_is_left_out(place, tmp_path, caplog):
    broken = tmp_path / "train.jsonl"
    broken.write_text('{"tokens": []}\n' + (place / "train.jsonl").read_text())
    settings = [f"corpus.train={broken}", "corpus.on_error=skip", "corpus.fraction=0.25", "train.epochs=1"]
    with caplog.at_level("INFO", logger="enpar"):
        result = run(job(place, tmp_path / "o", *settings))
    assert result["corpus"]["train"]["kept"]["sentences"] == 48
    assert result["corpus"]["train"]["rejected"] == {"malformed sentences": 1}
    assert result["gold"]["train"]["sentences"] == 12
    assert "test: no training sentence has the entity types " in caplog.text and "STAR" in caplog.text
    (line,) = (tmp_path / "o" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["detail"].startswith(f"{broken}:1: tokens")
    # Evaluated, the gold that cannot be read is told as well.
    evaluated = evaluate.run(
        parse(
            EvaluateJob,
            [
                f"model={tmp_path / 'o'}",
                f"corpus.test={broken}",
                "corpus.on_error=skip",
                f"output={tmp_path / 'report'}",
                "tracking.enabled=false",
            ],
        )
    )
    assert evaluated["corpus"]["test"]["read"]["sentences"] == 49
    assert evaluated["corpus"]["test"]["kept"]["sentences"] == 48
    assert (tmp_path / "report" / "rejected.jsonl").read_text().count("\n") == 1


@given(st.integers(1, 60), st.integers(0, 99), st.lists(st.floats(0.01, 1), min_size=2, max_size=2))
def test_a_smaller_share_is_part_of_a_larger_one(size, seed, fractions):
    sentences = [Sentence((str(i),)) for i in range(size)]
    small, large = (share(sentences, fraction, seed) for fraction in sorted(fractions))
    assert len(large) == max(1, round(max(fractions) * size))
    assert [s for s in large if s in small] == small
    assert share(sentences, 1, seed) == sentences


def test_shares_differ_by_seed():
    sentences = [Sentence((str(i),)) for i in range(100)]
    shares = {tuple(share(sentences, 0.1, seed)) for seed in range(5)}
    assert len(shares) == 5


def test_a_finished_run_is_left_alone(place, finished):
    result, folder = finished
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert run(job(place, folder)) == result
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_the_same_seed_gives_the_same_scores(place, finished, tmp_path):
    result, folder = finished
    again = run(job(place, tmp_path / "again"))
    assert {name: again[name] for name in ("dev", "test")} == {name: result[name] for name in ("dev", "test")}
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_seeds_end_with_a_command_that_is_killed(place, tmp_path):
    output = tmp_path / "seeds"
    settings = job(place, output, "seeds=[1, 2]", "train.epochs=10000", "train.patience=10000")
    (tmp_path / "job.yaml").write_text(settings.model_dump_json())
    command = [sys.executable, "-m", "enpar", "finetune", str(tmp_path / "job.yaml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True) as process:
        # One after the other where there is one CPU.
        until(process, lambda: any(read_metrics(path) for path in output.glob("seed-*/metrics.jsonl")))
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def test_several_seeds_are_those_runs_side_by_side(place, finished, tmp_path, database, monkeypatch):
    one, folder = finished
    output = tmp_path / "seeds"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = run(job(place, output, "seeds=[1, 2]", "tracking.enabled=true"))
    assert (output / "seed-1/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    runs = [json.loads((output / f"seed-{seed}/manifest.json").read_text())["result"] for seed in (1, 2)]
    assert [r["test"] for r in result["runs"]] == [r["test"] for r in runs]
    assert result["runs"][0]["test"] == one["test"]
    for split in ("dev", "test"):
        f1s = [r[split]["entity"]["f1"] for r in runs]
        assert result[split]["entity"]["f1"] == pytest.approx(sum(f1s) / 2)
        assert result["sd"][split]["entity"] == pytest.approx(abs(f1s[0] - f1s[1]) / 2**0.5)
        assert result[split]["relation"]["gold"] == one[split]["relation"]["gold"]
    # Typed again after a break, what is finished stays; a third seed is another run.
    (output / "_SUCCESS").unlink()
    (output / "seed-2" / "_SUCCESS").unlink()
    before = (output / "seed-1/model.safetensors").stat().st_mtime_ns
    assert run(job(place, output, "seeds=[1, 2]")) == result
    assert (output / "seed-1/model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="seeds: "):
        run(job(place, output, "seeds=[1, 2, 3]"))
    # In MLflow the seeds belong to one run, which has their means.
    client = MlflowClient(f"sqlite:///{database}")
    logged = client.search_runs([client.get_experiment_by_name("enpar").experiment_id])
    names = {one.info.run_id: one.info.run_name for one in logged}
    parents = {one.info.run_name: names.get(one.data.tags.get("mlflow.parentRunId")) for one in logged}
    assert parents == {
        "finetune seeds": None,
        "finetune seed-1": "finetune seeds",
        "finetune seed-2": "finetune seeds",
    }
    (mean,) = [one.data.metrics for one in logged if one.info.run_name == "finetune seeds"]
    assert mean["finetune/result/dev/entity/f1"] == result["dev"]["entity"]["f1"]


def test_one_seed_cannot_be_given_twice(place, tmp_path):
    with pytest.raises(UserError, match="seeds: each one can be given once"):
        job(place, tmp_path / "o", "seeds=[1, 1]")


def test_the_best_on_dev_and_the_means_by_hand():
    def scores(f1):
        names = ("span", "entity", "relation", "relation_exact")
        numbers = {"precision": f1, "recall": f1, "f1": f1, "gold": 10, "predicted": 8, "correct": 4}
        return {name: dict(numbers) for name in names}

    common = {"best_epoch": 1, "epochs": 3, "test": None, "gold": {}, "corpus": {}}
    found = summary([4, 5, 6], [{"model": str(f1), "dev": scores(f1), **common} for f1 in (0.25, 0.75, 0.5)])
    assert found["model"] == "0.75"
    assert found["dev"]["span"] == scores(0.5)["span"]
    assert found["sd"] == {"dev": dict.fromkeys(scores(0), 0.25)}
    assert found["test"] is None
    assert [one["seed"] for one in found["runs"]] == [4, 5, 6]


def test_what_is_predicted_for_dev_and_test_is_kept(place, finished):
    result, folder = finished
    for split in ("dev", "test"):
        gold = load("jsonl", place / f"{split}.jsonl")
        assert score(gold, load("jsonl", folder / f"predictions-{split}.jsonl")) == result[split]


def test_evaluate_in_another_process_predicts_the_same(place, finished, tmp_path):
    result, folder = finished
    done = enpar(
        "evaluate", f"model={folder}", f"corpus.test={place / 'test.jsonl'}", f"output={tmp_path / 'report'}",
        "tracking.enabled=false", env={"PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    evaluated = json.loads(done.stdout.splitlines()[-1])
    assert evaluated["scores"] == result["test"]
    assert "test: 21 sentences" in done.stderr
    assert Path(evaluated["report"]).read_text().startswith("<!doctype html>")
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["scores"] == result["test"]
    assert report["by_type"]["entity"]["STAR"]["gold"] == 1
    predicted = load("jsonl", tmp_path / "report/predictions.jsonl")
    gold = load("jsonl", place / "test.jsonl")
    assert [(s.tokens, s.doc_id, s.sent_id) for s in predicted] == [(s.tokens, s.doc_id, s.sent_id) for s in gold]
    assert predicted == [p.sentence for p in load_model(folder).predict(gold)]


def test_extract_in_another_process_gives_offsets_that_slice(place, finished, tmp_path):
    text = "Lani Kealoha works for Pacific Cable.\n\nShe was born in Hilo 🌋 — so she says. "
    done = enpar("extract", f"model={finished[1]}", "input=-", "output=-", input=text, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 2
    assert '"sentences": 2' in done.stderr
    assert list(tmp_path.iterdir()) == []
    for record in records:
        assert text[record["char_start"] : record["char_end"]] == record["text"]
        assert all(text[e["char_start"] : e["char_end"]] == e["text"] for e in record["entities"])


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["corpus.train=nowhere.jsonl"], "nowhere.jsonl"),
        (["init=./nowhere"], "./nowhere: no such folder"),
        (["train.epochs=0"], "train.epochs"),
        (["corpus.format=xml"], "corpus.format"),
    ],
)
def test_the_users_mistakes_are_told_before_torch_is_loaded(place, tmp_path, changes, part):
    given = [f"corpus.{split}={place / split}.jsonl" for split in ("train", "dev")]
    program = (
        "import sys; from enpar.cli import main; c = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(c)"
    )
    arguments = ["finetune", *given, f"init={place / 'encoder'}", f"output={tmp_path / 'o'}", *changes]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert part in done.stderr.splitlines()[-1]
    assert not (tmp_path / "o").exists()


def test_a_checkpoint_gives_all_its_encoders_or_the_sentence_encoder(place, tmp_path):
    labels = Labels(("A",), ("r",))
    torch.manual_seed(7)
    before: Extraction = start(str(place / "encoder"), True, labels, 0.1, "fp32")
    for parameter in before.model.parameters():
        parameter.data += 0.01
    (tmp_path / "checkpoint").mkdir()
    settings = {"kind": "pretraining", "encoder": "some-base"}
    save_model(
        tmp_path / "checkpoint", before.model.encoder, before.model.span_encoders, before.tokenizer, settings, "card"
    )
    for everything in (True, False):
        model = start(str(tmp_path / "checkpoint"), everything, labels, 0.1, "fp32").model
        for part, same in (("encoder", True), ("entity_encoder", everything), ("pair_encoder", everything)):
            pairs = [m.get_submodule(part).parameters() for m in (model, before.model)]
            assert all(torch.equal(*pair) for pair in zip(*pairs, strict=True)) is same
    done = enpar("evaluate", f"model={tmp_path / 'checkpoint'}", f"corpus.test={place / 'test.jsonl'}", "output=o")
    assert done.returncode == 2
    assert "cannot extract yet" in done.stderr


def test_patience_ends_a_run_that_gets_no_better(place, tmp_path):
    frozen = [f"train.{name}learning_rate=1e-12" for name in ("", "span_", "classifier_")]
    result = run(job(place, tmp_path / "o", *frozen, "train.epochs=9", "train.patience=2"))
    # Nothing right yet: patience waits. Something right and nothing better: it ends.
    assert result["epochs"] == 9 if result["dev"]["entity"]["f1"] == 0 else result["best_epoch"] + 2
