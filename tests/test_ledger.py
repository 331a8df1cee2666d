"""What is said of a sweep while it lasts."""

import logging
from pathlib import Path

import pytest

from enpar.output import Output
from enpar.sweep import ledger as module
from enpar.sweep.ledger import Ledger
from enpar.sweep.plan import Trial, plan
from enpar.sweep.records import Record, new_record, write_record
from enpar.sweep.runs import Runs
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import draw
from enpar.tracking import Run


@pytest.fixture
def job(tmp_path: Path) -> TuneJob:
    corpus = {"train": "train.jsonl", "dev": "dev.jsonl"}
    space = {"finetune.train.warmup": {"grid": [i / 10 for i in range(6)]}}
    return TuneJob(base={"finetune": {"corpus": corpus}}, space=space, output=tmp_path / "sweep", searcher="grid")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def over(trial: Trial, number: int, state: str, seconds: float) -> Record:
    record = new_record(trial, number)
    record.state, record.seconds = state, seconds
    write_record(trial.folder, record)
    return record


def begun(job: TuneJob, total: int, at_once: int) -> Ledger:
    output = Output(job.output, "tune", {})
    output.path.mkdir(exist_ok=True)
    return Ledger(job, output, total, at_once, Runs(Run(None)))


def said(ledger: Ledger, clock: list[float], seconds: float, caplog: pytest.LogCaptureFixture) -> str:
    """What is said so many seconds later."""
    clock[0] += seconds
    with caplog.at_level(logging.INFO, "enpar"):
        ledger.beat()
    return caplog.messages[-1]


def test_the_time_that_is_left_rests_on_what_trials_took_also_before_a_break(
    job: TuneJob, clock: list[float], caplog: pytest.LogCaptureFixture
):
    trials = [plan(job, drawn, Path.cwd()) for drawn in draw(job)]
    for number, (state, seconds) in enumerate([("done", 120.0), ("stopped", 80.0), ("failed", 0.1)], 1):
        over(trials[number - 1], number, state, seconds)
    ledger = begun(job, 6, 2)
    for trial in trials[:2]:  # they repeat what they had reported, at once
        ledger.begin(trial, None)
        ledger.heard(trial, 1, 0.5)
        ledger.end(trial, None)
    assert not ledger._output.metrics.exists()
    ledger.begin(trials[3], 4)
    clock[0] += 40
    ledger.begin(trials[4], 5)
    line = said(ledger, clock, 30, caplog)
    assert line.startswith("3 of 6 trials over (1 stopped, 1 failed); 2 running; ")
    assert line.endswith("; about 100 s left")  # 30, 70 and 100 seconds, two at once


def test_a_setting_that_is_drawn_again_while_it_runs_is_one_trial(job: TuneJob, clock: list[float]):
    trial = plan(job, draw(job)[0], Path.cwd())
    ledger = begun(job, 2, 2)
    outcome = new_record(trial, 0)
    outcome.state = "done"
    ledger.begin(trial, None)
    clock[0] += 10
    ledger.begin(trial, None)
    clock[0] += 5
    ledger.end(trial, outcome)
    clock[0] += 1
    ledger.end(trial, outcome)
    (record,) = ledger.ordered()
    assert (record.state, record.seconds, record.number) == ("done", 15.0, 1)


def test_the_last_trial_is_waited_for_alone(job: TuneJob, clock: list[float], caplog: pytest.LogCaptureFixture):
    trials = [plan(job, drawn, Path.cwd()) for drawn in draw(job)]
    over(trials[0], 1, "done", 100.0)
    ledger = begun(job, 2, 2)
    ledger.begin(trials[1], 2)
    assert said(ledger, clock, 70, caplog).endswith("1 running; best – (trial 1: warmup=0); about 30 s left")
    # It takes longer: nobody knows how long.
    assert said(ledger, clock, 70, caplog).endswith("1 running; best – (trial 1: warmup=0)")


def test_trials_that_take_longer_than_those_before_count_by_what_they_took_so_far(
    job: TuneJob, clock: list[float], caplog: pytest.LogCaptureFixture
):
    trials = [plan(job, drawn, Path.cwd()) for drawn in draw(job)]
    over(trials[0], 1, "done", 60.0)
    ledger = begun(job, 6, 2)
    for number, trial in enumerate(trials[1:3], 2):
        ledger.begin(trial, number)
    # (60 + 300 + 300) / 3 = 220 seconds each; three are yet to begin, two at once.
    assert said(ledger, clock, 300, caplog).endswith("; about 6 min left")
