"""report.html of a sweep: the table and the plots. One file, no network, no script."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from enpar.sweep import figures
from enpar.sweep.ledger import score_of
from enpar.sweep.records import Record
from enpar.sweep.settings import TuneJob
from enpar.sweep.space import describe
from enpar.sweep.table import html, table


def page(job: TuneJob, records: Sequence[Record], best: Record) -> str:
    """The page.

    Args:
        job: the sweep.
        records: the trials, in the order of the table.
        best: the best of them.
    """
    curves = figures.pretraining(records) + figures.evaluations(records)
    return Template((files("enpar.sweep") / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"Sweep over {', '.join(job.space)}"),
        style=(files("enpar.report") / "page.css").read_text(encoding="utf-8"),
        subtitle=escape(f"{len(records)} settings; the best: {describe(best.drawn)}, with {score_of(best)}."),
        note=escape(_note(job)),
        table=html(table(job, records)),
        scores=_figures(figures.scores(job, records)),
        curves=f'<section><h2>On the way</h2><div class="figures">{_figures(curves)}</div></section>' if curves else "",
    )


def _note(job: TuneJob) -> str:
    seeds = f", each the mean ± standard deviation over {len(job.seeds)} seeds" if len(job.seeds) > 1 else ""
    better = "larger" if job.mode == "max" else "smaller"
    return f"The score is {' + '.join(job.metrics)} ({better} is better); F1 in %{seeds}."


def _figures(drawn: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in drawn)
