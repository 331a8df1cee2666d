"""Space files: what is drawn, which jobs follow from it, and how mistakes are named."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enpar.errors import UserError
from enpar.settings import parse
from enpar.sweep.capacity import at_once
from enpar.sweep.plan import plan as plan_from
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import corners, describe, draw
from enpar.tune import _scheduler, run

SPACES = sorted((Path(__file__).parent.parent / "tune_spaces").glob("*.yaml"))
CORPUS = {"train": "train.jsonl", "dev": "dev.jsonl"}
BASE = {
    "pretrain": {"data": "sentences", "train": {"steps": 4}},
    "finetune": {"corpus": CORPUS, "train": {"epochs": 2}},
}
RATE, WARMUP, N_S = "finetune.train.learning_rate", "finetune.train.warmup", "pretrain.views.n_s"


def plan(found, drawn):
    return plan_from(found, drawn, Path.cwd())


def job(tmp_path, space, *arguments, base=BASE, **more):
    (tmp_path / "space.yaml").write_text(
        yaml.safe_dump({"base": base, "space": space, "output": "o", **more}, sort_keys=False)
    )
    return parse(TuneJob, [str(tmp_path / "space.yaml"), *arguments])


def trials(tmp_path, space, *arguments, **more):
    found = job(tmp_path, space, *arguments, **more)
    return [plan(found, drawn) for drawn in draw(found)]


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_every_space_file_is_complete_and_valid(path):
    found = parse(TuneJob, [str(path)])
    planned = [plan(found, drawn) for drawn in draw(found)]
    assert len({trial.name for trial in planned}) == len(planned) > 1
    run = planned[0].runs[0]
    assert (run.finetune.corpus.train, run.finetune.corpus.dev) == (
        Path("data/scierc/train.json").absolute(),
        Path("data/scierc/dev.json").absolute(),
    )
    ace = "base.finetune.corpus={train: data/ace05/train.jsonl, dev: data/ace05/dev.jsonl}"
    other = parse(TuneJob, [str(path), ace])
    assert plan(other, draw(other)[0]).runs[0].finetune.corpus.train == Path("data/ace05/train.jsonl").absolute()


def test_the_ablation_is_table_2():
    found = parse(TuneJob, [str(next(path for path in SPACES if path.name == "ablation.yaml"))])
    planned = {drawn["pre-training"]: plan(found, drawn).runs[0] for drawn in draw(found)}
    assert list(planned) == ["BERT", "ENPAR", "- MET", "- MEP", "- ACD", "- PP", "- CNN"]
    assert planned["BERT"].pretrain is None
    assert planned["BERT"].finetune.init == planned["ENPAR"].pretrain.encoder
    for name in ("met", "mep", "acd", "pp"):
        weights = planned[f"- {name.upper()}"].pretrain.objectives.model_dump()
        assert [key for key, weight in weights.items() if not weight] == [name]
    assert planned["- CNN"].pretrain == planned["ENPAR"].pretrain
    assert (planned["ENPAR"].finetune.load, planned["- CNN"].finetune.load) == ("all", "encoder")


@given(st.integers(0, 1000), st.integers(1, 12))
def test_draws_are_within_their_ranges_and_do_not_depend_on_their_number(seed, count):
    space = {
        RATE: {"loguniform": [1e-5, 1e-3]},
        WARMUP: {"uniform": [0.1, 0.2]},
        N_S: {"randint": [1, 3]},
        "finetune.train.batch_size": {"choice": [8, 16]},
        "finetune.train.layer_decay": {"grid": [0.8, 0.9]},
    }
    settings = {"base": BASE, "space": space, "output": "o", "seed": seed}
    drawn = draw(TuneJob(**settings, samples=count))
    assert len(drawn) == 2 * count
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):  # the same draw at each point of the grid
        assert first | {"finetune.train.layer_decay": "0.9"} == second
        assert 1e-5 <= first[RATE] <= 1e-3 and 0.1 <= first[WARMUP] <= 0.2 and first[N_S] in (1, 2, 3)
        assert first["finetune.train.batch_size"] in ("8", "16")
    assert draw(TuneJob(**settings, samples=count + 1))[: 2 * count] == drawn


def test_randint_reaches_both_ends(tmp_path):
    drawn = draw(job(tmp_path, {N_S: {"randint": [1, 3]}}, samples=50))
    assert sorted(one[N_S] for one in drawn) == [1, 2, 3]  # and each setting is tried once


def test_corners_have_every_option_and_both_ends(tmp_path):
    space = {N_S: {"randint": [1, 3]}, RATE: {"loguniform": [1e-5, 1e-3]}, "corpus": {"choice": {"a": {}, "b": {}}}}
    found = corners(job(tmp_path, space, searcher="optuna"))
    first = draw(job(tmp_path, space, searcher="optuna"))[0]
    assert found[0] == first
    assert all(sum(one[key] != first[key] for key in space) <= 1 for one in found)
    for key, ends in {N_S: {1, 3}, RATE: {1e-5, 1e-3}, "corpus": {"a", "b"}}.items():
        assert ends <= {one[key] for one in found}


def test_a_search_that_learns_is_refused_for_what_it_may_draw_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for space, message in (
        ({"finetune.train.batch_size": {"choice": [8, 0]}}, "space.finetune.train.batch_size: .*, got 0"),
        ({"finetune.train.dropout": {"uniform": [0.0, 1.5]}}, "space.finetune.train.dropout: .*, got 1.5"),
        ({"x": {"choice": {"a": {}, "b": {"finetune.train.rate": 1}}}}, "space.x.choice.b.finetune.train.rate: no"),
    ):
        with pytest.raises(UserError, match=message):
            run(job(tmp_path, space, searcher="optuna", tracking={"enabled": False}))


def test_asha_compares_trials_of_one_length(tmp_path):
    lengths = {"finetune.train.epochs": {"grid": [6, 20]}}
    with pytest.raises(UserError, match=r"scheduler: asha .* they are to have 6 or 20; take the length out of `space`"):
        _scheduler(job(tmp_path, lengths, scheduler="asha"), trials(tmp_path, lengths, scheduler="asha"))
    one = {N_S: {"grid": [1, 2]}}
    assert _scheduler(job(tmp_path, one, scheduler="asha"), trials(tmp_path, one, scheduler="asha"))


def test_a_grid_has_every_point_once(tmp_path):
    planned = trials(tmp_path, {N_S: {"grid": [1, 2]}, RATE: {"grid": ["1e-4", 1e-3]}}, searcher="grid")
    points = [(trial.runs[0].pretrain.views.n_s, trial.runs[0].finetune.train.learning_rate) for trial in planned]
    assert points == [(1, 1e-4), (1, 1e-3), (2, 1e-4), (2, 1e-3)]
    assert describe(planned[1].drawn) == "n_s=1, learning_rate=0.001"
    assert planned[1].settings == {N_S: 1, RATE: 1e-3}


def test_trials_that_agree_on_every_pretraining_setting_share_it(tmp_path):
    space = {N_S: {"grid": [1, 2]}, RATE: {"grid": [1e-4, 1e-3]}}
    runs = [run for trial in trials(tmp_path, space, seeds=[1, 2]) for run in trial.runs]
    assert [run.seed for run in runs] == [1, 2] * 4
    assert [run.finetune.seed for run in runs] == [1, 2] * 4
    checkpoints = [run.pretrain.output for run in runs]
    assert len(set(checkpoints[:4])) == len(set(checkpoints[4:])) == 1
    assert checkpoints[0] != checkpoints[4]
    assert [run.finetune.init for run in runs] == [str(path) for path in checkpoints]
    assert len({run.finetune.output for run in runs}) == 8
    (other,) = trials(tmp_path, {N_S: {"grid": [1]}}, "base.pretrain.seed=7")
    assert other.runs[0].pretrain.output != checkpoints[0]


def test_stages_are_tracked_below_their_trial_and_what_trials_share_below_the_sweep(tmp_path):
    sweep, uri = Path("o").absolute(), f"sqlite:///{Path('mlflow.db').absolute()}"

    def tracked(space, **more):
        trial = trials(tmp_path, space, seeds=[1, 2], **more)[0]
        jobs = [job for run in trial.runs for job in (run.pretrain, run.finetune) if job]
        assert {job.tracking.uri for job in jobs} == {uri}
        return [(job.tracking.name, Path(job.tracking.parent)) for job in jobs], trial.folder

    found, trial = tracked({N_S: {"grid": [1, 2]}, RATE: {"grid": [1e-4, 1e-3]}})  # two trials with n_s=1
    shared = ("pretrain n_s=1", sweep)
    assert found == [shared, ("finetune seed 1", trial), shared, ("finetune seed 2", trial)]
    found, trial = tracked({N_S: {"grid": [1, 2]}})
    own = ("pretrain", trial)
    assert found == [own, ("finetune seed 1", trial), own, ("finetune seed 2", trial)]
    found, trial = tracked({N_S: {"grid": [1, 2]}}, base={"pretrain": BASE["pretrain"]})
    assert found == [("pretrain seed 1", trial), ("pretrain seed 2", trial)]
    plain = {"start": {"grid": {"BERT": {"pretrain": None}, "ENPAR": {}, "other": {"pretrain.seed": 2}}}}
    bert, enpar, _ = trials(tmp_path, plain)
    assert bert.runs[0].finetune.tracking.parent == str(bert.folder)
    assert (enpar.runs[0].pretrain.tracking.name, enpar.runs[0].pretrain.tracking.parent) == ("pretrain", str(sweep))


@pytest.mark.parametrize(
    ("models", "wanted", "expected"), [("best", True, False), ("all", True, True), ("all", False, False)]
)
def test_trials_log_their_models_if_all_are_kept(tmp_path, models, wanted, expected):
    (trial,) = trials(tmp_path, {N_S: {"grid": [1]}}, models=models, tracking={"models": wanted})
    assert trial.runs[0].finetune.tracking.models is trial.runs[0].pretrain.tracking.models is expected


def test_seeds_are_the_pretrainings_where_nothing_is_finetuned(tmp_path):
    (trial,) = trials(tmp_path, {N_S: {"grid": [1]}}, base={"pretrain": BASE["pretrain"]}, seeds=[3, 4])
    assert [run.pretrain.seed for run in trial.runs] == [3, 4]
    assert len({run.pretrain.output for run in trial.runs}) == 2


def test_an_override_replaces_a_domain(tmp_path):
    found = job(tmp_path, {N_S: {"grid": [1, 2]}}, "space.pretrain.views.n_s.grid=[3]", "base.finetune.train.epochs=9")
    assert [drawn[N_S] for drawn in draw(found)] == ["3"]
    assert plan(found, draw(found)[0]).runs[0].finetune.train.epochs == 9


@pytest.mark.parametrize(
    ("space", "more", "message"),
    [
        ({"finetune.train.lerning_rate": {"grid": [1]}}, {}, "space.finetune.train.lerning_rate: no such setting; kno"),
        ({"finetune.trian.warmup": {"grid": [1]}}, {}, "space.finetune.trian.warmup: no such setting; known here: ove"),
        ({"fintune.train.warmup": {"grid": [1]}}, {}, "space.fintune.train.warmup: a setting begins with pretrain. o"),
        ({RATE: {"grid": [-1]}}, {}, f"space.{RATE}: should be greater than 0"),
        ({RATE: {"loguniform": [1e-3, 1e-5]}}, {}, f"space.{RATE}: loguniform goes from a positive number to a larg"),
        ({RATE: {"loguniforn": [1e-5, 1e-3]}}, {}, f"space.{RATE}.loguniforn: no such setting; known here: logunifo"),
        ({RATE: {"choice": []}}, {}, f"space.{RATE}.choice: should be a list of values, or a mapping"),
        ({"a": {"grid": {"x": {"pretrain.views.m": 1}}}}, {}, "space.a.grid.x.pretrain.views.m: no such setting"),
        ({"a": {"grid": {"x": {"pretrain": None}}}, N_S: {"grid": [1]}}, {}, f"{N_S} is set, but `pretrain: null`"),
        ({"finetune": {"grid": [None]}}, {}, "space.finetune: name a setting of finetune"),
        ({"finetune.seed": {"grid": [1]}}, {}, "space.finetune.seed: not set here but by seeds of the sweep"),
        ({"finetune.init": {"grid": ["a"]}}, {}, "space.finetune.init: fine-tuning starts from the trial's pre-train"),
        ({WARMUP: {"grid": [0]}}, {"metric": "dev/entity"}, "metric: dev/entity is not measured; dev/span/f1, "),
        (
            {N_S: {"grid": [1]}},
            {"base": {"pretrain": BASE["pretrain"]}, "metric": "heldout/loss/met + heldout/accuracy/pp"},
            "metric: a loss is to be small and an accuracy large",
        ),
        ({WARMUP: {"grid": [0]}}, {"samples": 3}, "samples: there is nothing to draw in a grid"),
        ({WARMUP: {"choice": [0]}}, {"searcher": "grid"}, f"space.{WARMUP}: searcher=grid takes a grid"),
        ({WARMUP: {"grid": [0]}}, {"searcher": "optuna"}, f"space.{WARMUP}: searcher=optuna takes no grid"),
        ({WARMUP: {"grid": [0]}}, {"seeds": [1, 1]}, "seeds: one is named twice"),
        ({}, {}, "space: Value should have at least 1 item"),
        ({WARMUP: {"grid": [0]}}, {"base": {}}, "base: give pretrain, finetune or both"),
        ({WARMUP: {"grid": [0]}}, {"base": {"finetune": {"corpus": {"train": "a"}}}}, "base.finetune.corpus.dev: must"),
        (
            {WARMUP: {"grid": [0]}},
            {"base": {"finetune": {"output": "a"}}},
            "base.finetune.output: not set here but by ",
        ),
    ],
)
def test_mistakes_are_named_by_where_they_stand(tmp_path, space, more, message):
    with pytest.raises(UserError) as error:
        trials(tmp_path, space, **more)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("scaling", "settings", "there", "expected"),
    [
        ({}, {}, {"CPU": 2}, 2),  # 0.75 CPUs of a pre-training, 1 of a fine-tuning
        ({}, {"resources": {"cpus": 2}}, {"CPU": 8}, 4),
        ({"num_workers": 2}, {}, {"CPU": 2}, 1),  # 1.5 CPUs
        ({"num_workers": 2}, {}, {"CPU": 64}, 42),
        ({"use_gpu": True}, {}, {"CPU": 64, "GPU": 4}, 4),
        ({}, {"resources": {"gpus": 0.25}}, {"CPU": 64, "GPU": 2}, 8),
        ({}, {"concurrency": 1}, {"CPU": 8}, 1),
    ],
)
def test_as_many_trials_at_once_as_fit(tmp_path, monkeypatch, scaling, settings, there, expected):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    base = {**BASE, "pretrain": {**BASE["pretrain"], "scaling": scaling}}
    found = job(tmp_path, {N_S: {"grid": [1]}}, base=base, **settings)
    assert at_once(found, [plan(found, drawn) for drawn in draw(found)], there) == expected


@pytest.mark.parametrize(
    ("settings", "there", "message"),
    [
        (
            {"concurrency": 3},
            {"CPU": 2},
            "concurrency: 3 trials of 1 CPUs each; this machine has 2 CPUs: 2 fit",
        ),
        ({"resources": {"cpus": 4}}, {"CPU": 2}, "a trial asks for 4 CPUs"),
        ({"resources": {"gpus": 1}}, {"CPU": 2}, "a trial asks for 1 CPUs and 1 GPUs"),
    ],
)
def test_what_this_machine_does_not_have_is_said(tmp_path, monkeypatch, settings, there, message):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = job(tmp_path, {N_S: {"grid": [1]}}, **settings)
    with pytest.raises(UserError, match=message):
        at_once(found, [plan(found, drawn) for drawn in draw(found)], there)
