"""What a sweep comes to: the result, best.yaml, and the report as Markdown and as a page."""

import logging
from pathlib import Path
from typing import Any

import yaml

from enpar.storage import atomic
from enpar.sweep.ledger import Ledger, score_of
from enpar.sweep.page import page
from enpar.sweep.plan import plan
from enpar.sweep.records import Record
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import describe
from enpar.sweep.table import markdown, table

log = logging.getLogger("enpar")


def summarise(job: TuneJob, ledger: Ledger) -> tuple[dict[str, Any], list[Path]]:
    """Write the report and best.yaml; returns the result, and the files with the folder of the best model."""
    records, best = _in_order(job, ledger), ledger.best
    assert best
    text = f"{_heading(job, best)}\n\n{markdown(table(job, records))}\n"
    files = {"report.md": text, "report.html": page(job, records, best), "best.yaml": _best(job, best)}
    for name, content in files.items():
        with atomic(job.output / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    log.info("\n%s\nreport: %s", text, job.output / "report.html")
    result = {
        "best": {"config": best.settings, "metrics": {"score": best.score, "spread": best.spread, **best.metrics()}},
        "trials": [_row(record) for record in ledger.ordered()],
        "best_config_path": str(job.output / "best.yaml"),
        "report": str(job.output / "report.html"),
        "states": {state: [one.state for one in records].count(state) for state in ("done", "stopped", "failed")},
    }
    return result, [*(job.output / name for name in files), _model(job, best)]


def _in_order(job: TuneJob, ledger: Ledger) -> list[Record]:
    """A grid as it was written, else the best first and those that did not get to their end last."""
    if all(domain.grid for domain in job.space.values()):
        return list(ledger.ordered())
    sign = -1 if job.mode == "max" else 1
    return sorted(ledger.ordered(), key=lambda one: (one.state != "done", one.score is None, sign * (one.score or 0.0)))


def _heading(job: TuneJob, best: Record) -> str:
    return (
        f"Best: {describe(best.drawn)}, with {score_of(best)} ({' + '.join(job.metrics)}"
        f"{f', mean ± standard deviation of {len(job.seeds)} seeds' if len(job.seeds) > 1 else ''})."
    )


def _best(job: TuneJob, best: Record) -> str:
    """The job file of the best setting's last stage."""
    run = plan(job, best.drawn, Path.cwd()).runs[0]
    stage, chosen = ("finetune", run.finetune) if run.finetune else ("pretrain", run.pretrain)
    assert chosen
    file, folder = job.output / "best.yaml", (job.output / "best").absolute()
    settings = chosen.model_dump(mode="json", exclude={"tracking", "overwrite", "threads"}) | {"output": str(folder)}
    head = f"# {describe(best.drawn)}: {score_of(best)} ({' + '.join(job.metrics)})\n#   enpar {stage} {file}\n"
    if run.finetune:  # sums are rounded in another order by more threads
        head += f"# Its scores of seed {run.seed} to the last digit: threads={job.resources.cpus}, as it had.\n"
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _model(job: TuneJob, best: Record) -> Path:
    """Of the best setting's seeds the best one's."""
    sign = -1 if job.mode == "min" else 1
    return Path(max(best.runs, key=lambda run: sign * run["score"])["output"])


def _row(record: Record) -> dict[str, Any]:
    return {
        "trial": record.number,
        "config": record.settings,
        "state": record.state,
        "score": record.score,
        "spread": record.spread,
        "metrics": record.metrics(),
        "evaluations": len(record.reports),
        "seconds": record.seconds,
        **({"reason": record.reason} if record.reason else {}),
    }
