"""`enpar bench` on small data: not how large its figures are, but what they mean."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from encoders import tiny_encoder
from transformers import BertConfig, BertModel

from enpar import corpora
from enpar.cli import main
from enpar.sentence import to_table
from enpar.training.engine import TorchEngine
from enpar.training.meter import PARTS, EncoderFlops, Meter

SENTENCES = corpora.load("jsonl", corpora.sample_corpus() / "train.jsonl")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "sentences").mkdir()
    pq.write_table(to_table(SENTENCES), folder / "sentences" / "part-00000.parquet")
    (folder / "sentences" / "_SUCCESS").touch()
    tiny_encoder(folder / "encoder", {token for sentence in SENTENCES for token in sentence.tokens})
    (folder / "texts.txt").write_text("\n".join(" ".join(s.tokens) for s in SENTENCES[:40]), encoding="utf-8")
    return folder


def bench(*arguments: str) -> dict:
    command = [sys.executable, "-m", "enpar", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_annotate(place: Path):
    result = bench("stage=annotate", f"input={place / 'texts.txt'}", "num_workers=1")
    assert (result["stage"], result["documents"]) == ("annotate", 1)
    assert result["tokens"] >= sum(len(s.tokens) for s in SENTENCES[:40]) * 0.9  # spaCy's own tokens
    assert result["ratio"] == pytest.approx(
        result["tokens_per_second"] / result["reference_tokens_per_second"], abs=1e-4
    )


def test_views(place: Path):
    result = bench("stage=views", f"data={place / 'sentences'}", f"encoder={place / 'encoder'}", "seconds=0.1")
    assert set(result) == {"stage", "views_per_second", "instances_per_second", "sentences", "epochs"}
    # A sentence has at most 10 views and 11 instances on them: 1 + 1 + 5 + 4.
    assert 1 < result["instances_per_second"] / result["views_per_second"] <= 1.2


def check_pretrain(result: dict):
    assert set(result["time"]) == set(PARTS)
    assert sum(result["time"].values()) == pytest.approx(1, abs=1e-3)
    assert result["instances_per_second"] > result["sequences_per_second"] > 0
    assert result["peak_memory_bytes"] > 2**27


def of_pretrain(place: Path) -> list[str]:
    data = [f"data={place / 'sentences'}", f"encoder={place / 'encoder'}"]
    return ["stage=pretrain", *data, "updates=5", "train.batch_size=40", "scaling.num_workers=1"]


def test_pretrain(place: Path):
    result = bench(*of_pretrain(place))
    check_pretrain(result)
    ours = result["instances_per_second"]
    assert result["ratio"] == pytest.approx(ours / result["reference_sequences_per_second"], rel=1e-2)
    assert result["bare_ratio"] == pytest.approx(ours / result["bare_instances_per_second"], rel=1e-2)


def test_pretrain_without_ray_and_all_that_the_loop_does_not_need(place: Path):
    program = (
        "import sys\n"
        "for name in ('ray', 'deepspeed', 'mlflow', 'spacy'): sys.modules[name] = None\n"
        "from enpar.cli import main\n"
        "sys.exit(main(['bench', *sys.argv[1:]]))"
    )
    command = [sys.executable, "-c", program, *of_pretrain(place), "ray=false", "references=false"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    check_pretrain(json.loads(done.stdout.splitlines()[-1]))


def test_a_job_of_pretrain_is_taken_and_an_encoder_without_weights(place: Path, capsys: pytest.CaptureFixture[str]):
    job = Path(__file__).parents[1] / "jobs" / "pretrain_laptop.yaml"
    bare = place / "bare"
    bare.mkdir()
    for file in (place / "encoder").iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    arguments = [f"data={place / 'sentences'}", f"encoder={bare}", "ray=false", "references=false", "updates=5"]
    assert main(["bench", "stage=pretrain", str(job), *arguments]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["updates"] == 5
    assert not (bare / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "stage: must be given"),
        (["stage=serving"], "stage: "),
        (["stage=views", "data=/nowhere"], "/nowhere"),
        (["stage=views", "input=x"], "input: no such setting"),
        (["stage=pretrain", "updates=1"], "updates: "),
        (["stage=annotate", "input=/nowhere.txt"], "/nowhere.txt"),
    ],
)
def test_mistakes_end_with_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def test_flops_of_an_encoder_by_hand():
    config = BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=20,
    )  # fmt: skip
    flops = EncoderFlops(BertModel(config, add_pooling_layer=False))
    a_layer = 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 2 * 8
    of_5, of_3 = (6 * 2 * a_layer * n + 12 * 2 * 8 * n * n for n in (5, 3))
    assert flops.of(np.array([5, 3])) == of_5 + of_3
    assert flops.of(np.zeros(0, dtype=np.int64)) == 0


def test_a_meter_without_updates_has_no_rates():
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine = TorchEngine(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0), 1.0)
    flops = EncoderFlops(BertModel(BertConfig(num_hidden_layers=1, hidden_size=12, vocab_size=9)))
    result = Meter(torch.device("cpu"), flops, 1).result(engine)
    assert result["instances_per_second"] is None
    assert result["padding_fraction"] is None
