"""The same fine-tuning with several seeds, side by side: means and standard deviations of the scores."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from statistics import fmean, stdev
from threading import Thread
from typing import Any

from enpar.config import FinetuneJob
from enpar.tracking_uri import tracking_uri

log = logging.getLogger("enpar")
Result = dict[str, Any]
_SPLITS = ("dev", "test")


def run_seeds(job: FinetuneJob, finetune: Callable[[FinetuneJob], Result]) -> Result:
    """Fine-tune with each of the job's seeds, each in a process and a folder of its own; what is finished stays.

    Returns:
        As of one seed, with the means of its scores and the model that is best on the dev split, and beside it `sd`,
        the standard deviations of each F1, and `runs`.
    """
    jobs = _jobs(job)
    at_once = _at_once(jobs[0].threads or 1)
    log.info("finetune: %d seeds, %d at a time, %s thread(s) each", len(jobs), at_once, jobs[0].threads)
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn"), initializer=_leave_with_parent) as pool:
        waiting = [pool.submit(_finetune, finetune, one, log.getEffectiveLevel()) for one in jobs]
        try:
            results = [one.result() for one in waiting]
        finally:
            pool.shutdown(cancel_futures=True)
    return summary([one.seed for one in jobs], results)


def _jobs(job: FinetuneJob) -> list[FinetuneJob]:
    seeds = job.seeds or ()
    threads = job.threads or max(1, (os.cpu_count() or 1) // len(seeds))
    common: dict[str, Any] = {"seeds": None, "threads": threads, "overwrite": False}
    if job.tracking.enabled:  # together, and not beside each seed's folder
        common["tracking"] = job.tracking.model_copy(update={"uri": tracking_uri(job.tracking, job.output)})
    return [job.model_copy(update={**common, "seed": seed, "output": job.output / f"seed-{seed}"}) for seed in seeds]


def _at_once(threads: int) -> int:
    import torch

    return 1 if torch.cuda.is_available() else max(1, (os.cpu_count() or 1) // threads)


def _leave_with_parent() -> None:
    """End this process of the pool with the command, which may be killed without a chance to tell its pool."""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _finetune(finetune: Callable[[FinetuneJob], Result], job: FinetuneJob, level: int) -> Result:
    """Runs in a process of the pool."""
    logging.basicConfig(level=logging.WARNING, format=f"seed {job.seed}  %(message)s", stream=sys.stderr, force=True)
    log.setLevel(level)
    return finetune(job)


def summary(seeds: Sequence[int], results: Sequence[Result]) -> Result:
    """One result of those of all seeds."""
    best = max(results, key=lambda result: result["dev"]["entity"]["f1"] + result["dev"]["relation_exact"]["f1"])
    scored = [split for split in _SPLITS if best[split]]
    kept = ("model", "best_epoch", "epochs", "gold", *_SPLITS)
    gold = {name: counts for name, counts in best["gold"].items() if all(r["gold"][name] == counts for r in results)}
    return {
        "model": best["model"],
        "epochs": max(result["epochs"] for result in results),
        **{split: mean_scores([result[split] for result in results]) if split in scored else None for split in _SPLITS},
        "sd": {split: _deviations([result[split] for result in results]) for split in scored},
        "runs": [{"seed": s, **{key: r[key] for key in kept}} for s, r in zip(seeds, results, strict=True)],
        "gold": gold,  # each seed draws its own share of train, where that is not all of it
        "corpus": best["corpus"],
    }


def mean_scores(scores: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean of each number of each score; what is to be found is the same for all, and stays a whole number."""
    first = scores[0]
    means = {name: {key: fmean(one[name][key] for one in scores) for key in first[name]} for name in first}
    return {name: {**mean, "gold": first[name]["gold"]} for name, mean in means.items()}


def _deviations(scores: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """The sample standard deviation of each score's F1."""
    return {name: stdev(one[name]["f1"] for one in scores) for name in scores[0]}
