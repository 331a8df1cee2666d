"""`enpar tune`: many settings tried on Ray Tune, some stopped early, and the best one kept. Nothing else imports
ray.tune.

What Ray Tune keeps of a search is thrown away: a sweep that was broken off is begun again, and the trials that are
over repeat at once what they had reported.
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from enpar import cluster
from enpar.errors import RunError, UserError
from enpar.output import Output
from enpar.storage import alone
from enpar.sweep.capacity import at_once, find_room, terms_of
from enpar.sweep.ledger import Ledger
from enpar.sweep.plan import Run, Trial, check_inputs, plan
from enpar.sweep.records import Record, new_record, read_record
from enpar.sweep.runs import ENDING, Runs
from enpar.sweep.settings import Domain, TuneJob
from enpar.sweep.space import corners, draw, samples
from enpar.sweep.summary import summarise
from enpar.sweep.trial import Terms, run_trial
from enpar.tracking import Run as Tracked
from enpar.tracking import catch_up, check_tracking, finished, track

log = logging.getLogger("enpar")
_STATE = ".tune"  # what Ray Tune writes; gone when the sweep is done
_DRIVER = {"memory": 2**28}  # a trial itself only waits: no share of a CPU, which its stages need whole
_FAILURES = 3  # lost nodes that a trial survives
_LETTING_GO = "60"  # seconds that a stopped trial has to end its stages, before its process gets the next trial
_WORST = {"max": 0.0, "min": 1e9}  # the score of a trial that failed
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own files say all of it
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end the sweep as if it were complete
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a banner, however quiet it is told to be
    "RAY_worker_maximum_startup_concurrency": "8",  # a trial has more processes than CPUs; Ray would warn of that
}


def run(job: TuneJob) -> dict[str, Any]:
    """Try all settings, or go on with a sweep that was broken off.

    Raises:
        UserError: the space, a setting, an input or the output is at fault; nothing has been started then.
        RunError: every trial failed.
    """
    output = Output(job.output, "tune", job.model_dump(mode="json", exclude={"concurrency"}))
    if (result := finished(output, job.tracking, job.overwrite)) is not None:
        return result
    check_tracking(job.tracking, job.output)
    learns = job.searcher == "optuna"
    trials = [plan(job, drawn, Path.cwd()) for drawn in (corners(job) if learns else draw(job))]
    check_inputs(trials)
    scheduler = _scheduler(job, trials)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cluster.connect(dashboard=True)
    slots = at_once(job, trials, ray.cluster_resources())
    find_room(trials)
    output.claim(job.overwrite)
    total = samples(job) if learns else len(trials)
    log.info("%d trials over %s, seeds %s; %d at once", total, ", ".join(job.space), _listed(job.seeds), slots)
    with _tracked(job, output) as (tracked, runs):
        ledger = Ledger(job, output, total, slots, runs)
        _search(job, trials, scheduler, ledger, slots)
        if ledger.best is None:
            raise RunError(f"no trial got to its end; the last one: {ledger.ordered()[-1].reason}")
        result, files = summarise(job, ledger)
        tracked.finish(result, files)
    output.finish(result)
    return result


@contextmanager
def _tracked(job: TuneJob, output: Output) -> Iterator[tuple[Tracked, Runs]]:
    """The sweep in MLflow, and what makes its trials' runs; in the end all that is below it has ended, too."""
    try:
        with track(output, job.tracking, "tune", show=False) as tracked, closing(Runs(tracked)) as runs:
            yield tracked, runs
    except KeyboardInterrupt:
        ray.shutdown()  # and with it the stages
        raise
    finally:
        if tracked.complete and not catch_up(output.path, job.tracking, ENDING, quiet=True):
            log.warning("MLflow has not got all of the trials; the same command, given again, sends what is missing")


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _search(job: TuneJob, trials: Sequence[Trial], scheduler: TrialScheduler, ledger: Ledger, slots: int) -> None:
    terms = terms_of(job, ray.cluster_resources())
    storage = (job.output / _STATE).absolute()
    shutil.rmtree(storage, ignore_errors=True)
    root, learns = Path.cwd(), job.searcher == "optuna"

    def planned(config: dict[str, Any]) -> Trial:
        return plan(job, config, root) if learns else trials[config["number"]]

    def trial(config: dict[str, Any]) -> None:
        _trial(planned(config), terms)

    tuner = tune.Tuner(
        tune.with_resources(trial, _DRIVER),
        param_space=None if learns else {"number": tune.grid_search(list(range(len(trials))))},
        tune_config=tune.TuneConfig(
            metric="score",
            mode=job.mode,
            search_alg=_optuna(job, ledger) if learns else None,
            scheduler=scheduler,
            num_samples=samples(job) if learns else 1,
            max_concurrent_trials=slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(storage),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_FAILURES),
            callbacks=[_Watch(ledger, planned)],
        ),
    )
    with redirect_stdout(sys.stderr):  # where Ray prints what it has to say; stdout is the result's
        tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)


def _trial(trial: Trial, terms: Terms) -> None:
    """What the process of a trial does."""
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", _LETTING_GO)  # Ray's is 2; it does not get here by itself

    def report(evaluations: int, score: float) -> None:
        tune.report({"evaluations": evaluations, "score": score})

    with alone(trial.folder / ".lock"):  # a search that learns may draw the same again while this one runs
        record = read_record(trial.folder)
        if record is None or not record.over:
            record = new_record(trial, 0)
            run_trial(trial, terms, record, report)
        else:
            for evaluations, score in record.reports:
                report(evaluations, score)
    worst = _WORST["max" if terms.larger else "min"]
    final = worst if record.state == "failed" or record.score is None else record.score
    tune.report({"evaluations": len(record.reports), "score": final, "record": json.dumps(asdict(record))})


class _Watch(tune.Callback):  # type: ignore[misc]
    """Tells the ledger what Ray Tune does."""

    def __init__(self, ledger: Ledger, planned: Callable[[dict[str, Any]], Trial]) -> None:
        self._ledger, self._planned = ledger, planned
        self._trials: dict[str, Trial] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes a copy of it to a file, which is not read

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        self._trials[trial.trial_id] = self._planned(trial.config)
        place = trial.config.get("number")
        self._ledger.begin(self._trials[trial.trial_id], None if place is None else place + 1)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:  # noqa: ANN401
        if "record" not in result:
            self._ledger.heard(self._trials[trial.trial_id], result["evaluations"], result["score"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        said = (trial.last_result or {}).get("record")
        self._ledger.end(self._trials[trial.trial_id], Record(**json.loads(said)) if said else None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        if trial.trial_id not in self._trials:  # its process never came up
            self.on_trial_start(iteration, trials, trial)
        lines = [line for line in str(trial.get_error() or "its process was lost").splitlines() if line.strip()]
        self._ledger.end(self._trials[trial.trial_id], None, lines[-1].strip())

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ANN401
        self._ledger.beat()


def _scheduler(job: TuneJob, trials: Sequence[Trial]) -> TrialScheduler:
    """What stops trials.

    Raises:
        UserError: they are not to be compared on their way.
    """
    if job.scheduler == "none":
        return FIFOScheduler()
    lengths = {_evaluations(trial.runs[0]) for trial in trials}
    if len(lengths) > 1:
        raise UserError(
            f"scheduler: asha compares trials after as many evaluations, but they are to have "
            f"{' or '.join(map(str, sorted(lengths)))}; take the length out of `space`, or set scheduler=none"
        )
    return AsyncHyperBandScheduler(
        time_attr="evaluations",
        max_t=max(job.asha.grace, max(lengths) - 1),  # a trial that has got to its end is not stopped there
        grace_period=job.asha.grace,
        reduction_factor=job.asha.reduction,
        stop_last_trials=False,
    )


def _evaluations(run: Run) -> int:
    """How often a run is evaluated, at most; any number where that depends on its data."""
    if run.finetune:
        return run.finetune.train.epochs
    if run.pretrain and run.pretrain.train.steps:
        return run.pretrain.train.steps // run.pretrain.train.evaluate_every
    return 10**6


def _optuna(job: TuneJob, ledger: Ledger) -> Searcher:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    if not log.isEnabledFor(logging.DEBUG):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = [record.drawn for record in ledger.ordered()]
    # What was tried before a break is tried first, which costs nothing; other draws than at the first start follow.
    sampler = optuna.samplers.TPESampler(seed=job.seed + len(known))
    space = {key: _distribution(domain) for key, domain in job.space.items()}
    return OptunaSearch(space, metric="score", mode=job.mode, points_to_evaluate=known, sampler=sampler)


def _distribution(domain: Domain) -> Any:  # noqa: ANN401 - optuna's, imported when it is needed
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.options:
        return CategoricalDistribution(list(domain.options))
    if domain.randint:
        return IntDistribution(*domain.randint)
    low, high = domain.loguniform or domain.uniform or (0.0, 1.0)
    return FloatDistribution(low, high, log=domain.loguniform is not None)
