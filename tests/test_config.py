from pathlib import Path

import pytest

from enpar.bench.settings import BenchJob
from enpar.config import FetchJob, FinetuneJob, PretrainJob, ViewsJob
from enpar.errors import UserError
from enpar.settings import describe, parse
from enpar.sweep.settings import TuneJob
from enpar.verbs import VERBS

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.yaml"))
SPLITS = ["corpus.train=a", "corpus.dev=b"]
PRETRAIN = ["data=d", "output=o", "train.steps=3"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_job_file_is_complete_and_valid(path):
    verb = path.stem.split("_")[0]
    assert verb in VERBS, f"{path.name} begins with no verb; verbs are {', '.join(VERBS)}"
    parse(VERBS[verb], [str(path)])


@pytest.mark.parametrize(
    ("kind", "arguments", "parts"),
    [
        (PretrainJob, [*PRETRAIN, "train.stps=3"], ["train.stps: no such setting", "steps", "batch_size"]),
        (PretrainJob, [*PRETRAIN, "sead=3"], ["sead: no such setting", "seed"]),
        (PretrainJob, [*PRETRAIN, "train.steps=many"], ["train.steps: ", "integer", "'many'"]),
        (PretrainJob, [*PRETRAIN, "train.steps=0"], ["train.steps: ", "greater than or equal to 1", "got 0"]),
        (PretrainJob, [*PRETRAIN, "train.warmup=1.5"], ["train.warmup: ", "less than or equal to 1"]),
        (PretrainJob, [*PRETRAIN, "train.learning_rate=.nan"], ["train.learning_rate: ", "finite"]),
        (PretrainJob, [*PRETRAIN, "train.precision=fp8"], ["train.precision: ", "'auto', 'bf16' or 'fp32'", "'fp8'"]),
        (PretrainJob, [*PRETRAIN, "train=3"], ["train: ", "got 3"]),
        (PretrainJob, [*PRETRAIN, "train.epochs=2"], ["give train.steps or train.epochs"]),
        (PretrainJob, ["data=d", "output=o", "train.batch_size=3"], ["give train.steps or train.epochs"]),
        (PretrainJob, ["data=d", "output=o"], ["train: give train.steps or train.epochs"]),
        (PretrainJob, [*PRETRAIN, "views.n_p=121"], ["views.n_p: ", "120"]),
        (PretrainJob, [*PRETRAIN, "views.mask=0.6", "views.replace=0.6"], ["views: ", "mask + replace"]),
        (PretrainJob, [*PRETRAIN, *(f"objectives.{o}=0" for o in ("met", "mep", "acd", "pp"))], ["weight 0"]),
        (PretrainJob, ["train.steps=3"], ["data: must be given", "output: must be given"]),
        (FetchJob, ["name=nowhere", "output=o"], ["name: ", "'wiki-leads', 'sample-corpus'", "'ace05'", "'nowhere'"]),
        (FinetuneJob, ["output=o", "corpus.train=a"], ["corpus.dev: must be given"]),
        (FinetuneJob, ["output=o", "corpus.format=xml"], ["corpus.format: ", "'spert'"]),
        (FinetuneJob, [*SPLITS, "output=o", "corpus.on_error=ignore"], ["corpus.on_error: ", "'raise' or 'skip'"]),
        (FinetuneJob, [*SPLITS, "output=o", "corpus.fraction=0"], ["corpus.fraction: ", "greater than 0"]),
        (FinetuneJob, [*SPLITS, "output=o", "corpus.fraction=1.1"], ["corpus.fraction: ", "less than or equal to 1"]),
    ],
)
def test_what_is_refused_is_named_by_its_dotted_path(kind, arguments, parts):
    with pytest.raises(UserError) as error:
        parse(kind, arguments)
    assert all(part in str(error.value) for part in parts), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["3", "-1", "x", "true", "1.5", "[1]"])
def test_deepspeed_gives_one_clear_message(value):
    with pytest.raises(UserError) as error:
        parse(PretrainJob, [*PRETRAIN, f"deepspeed={value}"])
    assert str(error.value).startswith("deepspeed: should be a ZeRO stage (0, 1 or 2) or a mapping")
    assert str(error.value).count("deepspeed") == 1


def test_deepspeed_takes_a_stage_or_a_configuration():
    assert parse(PretrainJob, PRETRAIN).deepspeed is None
    assert parse(PretrainJob, [*PRETRAIN, "deepspeed=2"]).deepspeed == 2
    nested = parse(PretrainJob, [*PRETRAIN, "deepspeed.zero_optimization.stage=2"]).deepspeed
    assert nested == {"zero_optimization": {"stage": 2}}


def test_later_settings_win_over_earlier_ones(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("data: d\noutput: o\ntrain: {steps: 3, batch_size: 7}\nseed: 5\n")
    second.write_text("train: {steps: 4}\n")
    assert parse(PretrainJob, [str(first)]).train.steps == 3
    job = parse(PretrainJob, [str(first), str(second), "seed=6"])
    assert (job.train.steps, job.train.batch_size, job.seed) == (4, 7, 6)
    assert parse(PretrainJob, [str(first), "train.steps=9", str(second)]).train.steps == 4


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-04"])
def test_numbers_may_be_written_as_people_write_them(text, tmp_path):
    (tmp_path / "job.yaml").write_text(f"train: {{learning_rate: {text}}}\n")
    for argument in (f"train.learning_rate={text}", str(tmp_path / "job.yaml")):
        assert parse(PretrainJob, [*PRETRAIN, argument]).train.learning_rate == 1e-4


def test_values_that_look_like_numbers_may_be_names():
    assert parse(ViewsJob, ["data=d", "encoder=7"]).encoder == "7"
    assert parse(ViewsJob, ["data=d", "limit=null"]).limit is None


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "No such file"), ("a: [1\n", "not YAML"), ("- 1\n", "expected a mapping"), (b"\xff\xfe\xfa", "not YAML")],
)
def test_a_file_that_is_no_job_is_named(content, part, tmp_path):
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=part) as error:
        parse(ViewsJob, [str(path)])
    assert str(path) in str(error.value)


def test_an_empty_file_sets_nothing(tmp_path):
    (tmp_path / "job.yaml").write_text("# nothing yet\n")
    assert parse(ViewsJob, [str(tmp_path / "job.yaml"), "data=d"]) == parse(ViewsJob, ["data=d"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_is_described(verb):
    rows = list(describe(VERBS[verb]))
    assert rows
    assert [key for key, _, description in rows if not description] == []


def test_defaults_are_shown_as_they_are_typed():
    shown = {stage: {key: default for key, default, _ in describe(kind)} for stage, kind in BenchJob.variants.items()}
    assert shown["finetune"]["corpus.train"] == "runs/demo/corpus/train.jsonl"
    assert shown["extract"]["corpus.test"] == "runs/demo/corpus/test.jsonl"
    assert shown["pretrain"]["stage"] == "required"
    assert shown["pretrain"]["train.batch_size"] == "512"
    assert {key: default for key, default, _ in describe(TuneJob)}["seeds"] == "[1]"


@pytest.mark.parametrize("name", ["2026", "2026_01", "010", "2026-01-01", "1e3", "1.0", "no", "on"])
def test_a_name_stays_what_was_typed(name):
    assert str(parse(FinetuneJob, [*SPLITS, f"output={name}"]).output) == name


@pytest.mark.parametrize(("text", "value"), [("no", False), ("off", False), ("on", True), ("True", True)])
def test_yes_and_no_are_understood(text, value):
    assert parse(FinetuneJob, [*SPLITS, "output=o", f"tracking.enabled={text}"]).tracking.enabled is value


@pytest.mark.parametrize("seed", ["-1", "99999999999"])
def test_a_seed_has_bounds(seed):
    with pytest.raises(UserError, match=r"^seed: "):
        parse(FinetuneJob, [*SPLITS, "output=a", f"seed={seed}"])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("{zero_optimization: {stage: 3}}", "zero_optimization.stage must be 0, 1 or 2"),
        ("{gradient_clipping: 2}", "gradient_clipping is not set here but by train.clip"),
        ("{fp16: {enabled: true}}", "fp16 is not set here but by train.precision"),
    ],
)
def test_a_deepspeed_mapping_leaves_to_enpar_what_is_enpars(mapping, message):
    with pytest.raises(UserError, match=message):
        parse(PretrainJob, ["data=a", "output=b", "train.steps=1", f"deepspeed={mapping}"])


def test_no_more_workers_than_there_are_can_be_the_fewest():
    with pytest.raises(UserError, match=r"scaling: min_workers: 3 are more than num_workers \(2\)"):
        parse(PretrainJob, [*PRETRAIN, "scaling.num_workers=2", "scaling.min_workers=3"])
    assert parse(PretrainJob, [*PRETRAIN, "scaling.min_workers=3"]).scaling.min_workers == 3
