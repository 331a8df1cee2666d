"""A trial: each seed's pre-training and fine-tuning as Ray tasks, while their numbers are followed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from enpar.config import FinetuneJob, PretrainJob
from enpar.errors import RunError, UserError
from enpar.metrics import Row, Tail
from enpar.sweep.plan import Run, Trial
from enpar.sweep.records import Record

_POLL = 0.5  # seconds between two looks at the numbers of a running stage

Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Terms:
    """What all trials of a sweep have in common.

    Args:
        metrics: the names whose sum is the score.
        larger: whether a larger score is better.
        first_alone: whether the other seeds wait for the first one's end.
        cpus: of a fine-tuning.
        gpus: of a fine-tuning.
    """

    metrics: tuple[str, ...]
    larger: bool
    first_alone: bool
    cpus: float
    gpus: float


def _pretrain(job: PretrainJob) -> dict[str, Any]:
    from enpar.sweep.shared import pretrained

    return pretrained(job)


def _finetune(job: FinetuneJob, pretrained: dict[str, Any] | None) -> dict[str, Any]:
    from enpar import finetune

    return finetune.run(job)


# A process of its own for each stage: what it holds of memory or of a GPU goes with it. DEFAULT: outside of the
# placement group of the trial, which has room for nothing but the trial itself.
_TASK = {"max_calls": 1, "scheduling_strategy": "DEFAULT"}
_pretraining = ray.remote(num_cpus=0, **_TASK)(_pretrain)
_finetuning = ray.remote(**_TASK)(_finetune)


def run_trial(trial: Trial, terms: Terms, record: Record, report: Report) -> None:
    """Run all seeds of a trial, from wherever they were broken off, and complete its record.

    Args:
        trial: the jobs.
        terms: what is common to all trials.
        record: is given state, runs and reports.
        report: is told evaluations so far and the best score so far, for the first seed.
    """

    def heard(evaluations: int, score: float) -> None:
        record.reports.append((evaluations, score))
        report(evaluations, score)

    runs = trial.runs
    waves = [runs[:1], runs[1:]] if terms.first_alone else [runs]
    try:
        for wave in filter(None, waves):
            listener = None if record.runs else _Listener(wave[0], terms, heard)
            results = _run(wave, terms, listener)
            record.runs += [_came_to(run, result, terms) for run, result in zip(wave, results, strict=True)]
        record.state = "done"
    except (UserError, RunError, ray.exceptions.RayError) as error:
        record.state, record.reason = "failed", _reason(error)


def _run(runs: Sequence[Run], terms: Terms, listener: "_Listener | None") -> list[dict[str, Any]]:
    """What the last stage of each run returns."""
    shared = {run.pretrain.output: run.pretrain for run in runs if run.pretrain}
    made = {output: _pretraining.remote(job) for output, job in shared.items()}
    finetuning = _finetuning.options(num_cpus=terms.cpus, num_gpus=terms.gpus)
    refs = []
    for run in runs:
        pretrained = made[run.pretrain.output] if run.pretrain else None
        refs.append(finetuning.remote(run.finetune, pretrained) if run.finetune else pretrained)
    try:
        waiting = list(refs)
        while waiting:
            done, waiting = ray.wait(waiting, timeout=_POLL)
            ray.get(done)  # the first failure ends the trial
            if listener:
                listener.look()
        return list(ray.get(refs))
    finally:  # stopped by the scheduler, or failed
        for ref in {*refs, *made.values()}:
            ray.cancel(ref, force=True)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__


def _came_to(run: Run, result: dict[str, Any], terms: Terms) -> dict[str, Any]:
    """What is kept of a run."""
    job = run.finetune or run.pretrain
    assert job
    if run.finetune:
        splits = {split: result[split] for split in ("dev", "test") if result[split]}
        metrics = {f"{split}/{name}/f1": one["f1"] for split, scores in splits.items() for name, one in scores.items()}
    else:
        last = result["heldout"]["last"]
        metrics = {f"heldout/{kind}/{name}": value for kind in last for name, value in last[kind].items()}
    score = sum(metrics[name] for name in terms.metrics)
    return {"seed": run.seed, "score": score, "metrics": metrics, "output": str(job.output)}


class _Listener:
    """Follows the numbers of one run's last stage, and passes each evaluation on once."""

    def __init__(self, run: Run, terms: Terms, report: Report) -> None:
        job = run.finetune or run.pretrain
        assert job
        self._tail = Tail(Path(str(job.output)) / "metrics.jsonl")
        self._terms, self._report = terms, report
        self._seen, self._evaluations = 0, 0
        self._best: float | None = None

    def look(self) -> None:
        """Report what is new."""
        for row in self._tail.read():
            if all(name in row for name in self._terms.metrics):
                self._take(row)

    def _take(self, row: Row) -> None:
        # An epoch of fine-tuning, else an update of pre-training: the one before any is none.
        place = int(row["finetune/epoch"] if "finetune/epoch" in row else row["step"])
        if place <= self._seen:  # done again, after a break
            return
        self._seen = place
        score = sum(row[name] for name in self._terms.metrics)
        if self._best is None or (score > self._best) is self._terms.larger:
            self._best = score
        self._evaluations += 1
        self._report(self._evaluations, self._best)
