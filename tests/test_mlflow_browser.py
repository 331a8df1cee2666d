"""MLflow's pages over what enpar logs, in a real browser; `make test-browser` runs this, `make test` does not."""

import json
import logging
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import chromium
from mlflow import MlflowClient
from mlflow_server import server, until
from test_report import GOLD, ONE, TWO, content

from enpar.metrics import append_metrics
from enpar.output import Output
from enpar.report import write_report
from enpar.sweep.plan import plan
from enpar.sweep.records import new_record
from enpar.sweep.runs import Runs
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import draw
from enpar.tracking import track
from enpar.tracking_record import Record

pytestmark = pytest.mark.browser
TRAINING = "workflowType=machine_learning"
PARENT = "mlflow.parentRunId"
TRIALS, STAGE = ("trial 1: n_s=1", "trial 2: n_s=2"), "pretrain seed 1"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with server(tmp_path_factory.mktemp("server")) as found:
        yield found.uri


@pytest.fixture(scope="module")
def runs(running, tmp_path_factory):
    """A sweep of two trials with a stage each, and its report: the runs' ids, and what was said of the stages."""
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("enpar")
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    models = {"one": ONE, "two": TWO}
    job = TuneJob(
        base={"pretrain": {"data": "sentences", "train": {"steps": 30}}},
        space={"pretrain.views.n_s": {"grid": [1, 2]}},
        output=folder,
        tracking={"uri": running},
    )
    with track(sweep := claimed(job, "tune"), job.tracking, "tune") as outer:
        with closing(Runs(outer)) as trials:
            for number, drawn in enumerate(draw(job), 1):
                trial = plan(job, drawn, Path.cwd())
                trials.begin(trial, record := new_record(trial, number))
                until(lambda folder=trial.folder: Record.of(folder).sent(running).run, "the trial has no run")
                pretraining = trial.runs[0].pretrain
                with track(stage := claimed(pretraining, "pretrain"), pretraining.tracking, "pretrain"):
                    for step in range(1, 31):
                        losses = {f"pretrain/loss/{name}": number / step for name in ("met", "mep", "acd", "pp")}
                        append_metrics(stage.metrics, step, losses)
                record.reports = [(1, number / 10)]
                record.state = "done" if number == 1 else "stopped"
                trials.heard(trial, record)
                trials.end(trial, record)
        write_report(sweep.path / "report.html", content(GOLD, models), GOLD, models)
        outer.finish({"trials": 2}, [sweep.path / "report.html"])
    client = MlflowClient(running)
    found = client.search_runs([client.get_experiment_by_name("enpar").experiment_id])
    log.removeHandler(listener)
    ids = {run.info.run_name: run.info.run_id for run in found}
    stages = {run.data.tags[PARENT]: run.info.run_id for run in found if run.info.run_name == STAGE}
    return SimpleNamespace(ids=ids, stages=[stages[ids[name]] for name in TRIALS], said=said)


def claimed(job, stage):
    output = Output(job.output, stage, job.model_dump(mode="json"))
    output.claim()
    return output


@pytest.fixture
def page(running, runs, tmp_path):
    with chromium(tmp_path, (running, "data:", "blob:")) as page:
        page.size(1600, 1000)
        yield page
        page.evaluate("0")
        assert [text for text in page.complaints if "asks the network" in text] == []


def links(page):
    return page.evaluate("[...document.querySelectorAll('a')].map((a) => a.textContent.trim())")


def unfold(page, name):
    link = f"[...document.querySelectorAll('a')].find((a) => a.textContent.trim() === {json.dumps(name)})"
    page.evaluate(f"{link}.closest('[role=gridcell]').querySelector('button').click()")


def listed(page, *names):
    for name in names:
        page.wait(f"[...document.querySelectorAll('a')].some((a) => a.textContent.trim() === {json.dumps(name)})")


def test_the_experiment_is_listed(page, running):
    page.open(f"{running}/#/experiments?{TRAINING}")
    listed(page, "enpar")


def test_a_sweep_unfolds_into_its_trials_and_their_stages(page, running):
    page.open(f"{running}/#/experiments/1/runs?{TRAINING}")
    listed(page, "tune sweep")
    assert TRIALS[0] not in links(page)
    unfold(page, "tune sweep")
    listed(page, *TRIALS)
    assert STAGE not in links(page)
    unfold(page, TRIALS[1])
    listed(page, STAGE)
    assert links(page).count(STAGE) == 1


def test_the_page_that_a_run_names(page, runs):
    (line,) = [line for line in runs.said if line.endswith(f"{runs.stages[1]}?{TRAINING}")]
    page.open(line.removeprefix("MLflow: "))
    listed(page, TRIALS[1])  # what it belongs to


def test_a_trial_shows_its_sweep_its_stages_and_how_it_ended(page, running, runs):
    page.open(f"{running}/#/experiments/1/runs/{runs.ids[TRIALS[1]]}?{TRAINING}")
    listed(page, "tune sweep", STAGE)
    page.wait("document.body.innerText.includes('stopped')")


def test_trials_side_by_side(page, running, runs):
    compared = json.dumps([runs.ids[name] for name in TRIALS])
    page.open(f"{running}/#/compare-runs?runs={compared}&experiments=[%221%22]")
    page.wait("document.body.innerText.includes('Comparing 2 Runs from 1 Experiment')")
    page.wait("document.body.innerText.includes('trial/score')")
    assert page.evaluate("document.body.innerText.includes('pretrain.views.n_s')")


def test_two_stages_side_by_side(page, running, runs):
    compared = json.dumps(runs.stages)
    page.open(f"{running}/#/compare-runs?runs={compared}&experiments=[%221%22]")
    page.wait("document.body.innerText.includes('Comparing 2 Runs from 1 Experiment')")
    page.wait("document.querySelectorAll('.js-plotly-plot').length")
    assert page.evaluate("document.body.innerText.includes('views.n_s')")


def test_losses_are_drawn_by_step(page, running, runs):
    page.open(f"{running}/#/experiments/1/runs/{runs.stages[0]}/model-metrics")
    page.wait("document.querySelectorAll('.js-plotly-plot').length === 4")
    assert page.evaluate("document.body.innerText.includes('pretrain/loss')")


def test_the_report_works_among_the_artifacts(page, running, runs):
    page.open(f"{running}/#/experiments/1/runs/{runs.ids['tune sweep']}/artifacts/report.html")
    page.wait("document.querySelectorAll('iframe').length === 1")
    with page.inside():
        page.wait("document.querySelectorAll('#list article').length")
        assert page.evaluate("document.querySelectorAll('#list article').length") == len(GOLD)
        page.evaluate("document.querySelector(\"button[data-kind='direction']\").click()")
        page.wait("document.querySelectorAll('#list article').length === 1")
