"""The table of a sweep: a row a setting, the means over its seeds with their standard deviations."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import mean, stdev

from enpar.sweep.ledger import score_of
from enpar.sweep.records import Record
from enpar.sweep.settings import TuneJob, label
from enpar.sweep.space import shorten


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `named` columns are the settings."""

    heads: list[str]
    rows: list[list[str]]
    named: int


def table(job: TuneJob, records: Sequence[Record]) -> Table:
    """Settings, score, what was measured, how the trial ended, and how long it took."""
    measured = _measured(records)
    names = shorten(job.space)
    heads = ["trial", *names.values(), "score", *(_name(name) for name in measured), "evaluations", "minutes", "state"]
    rows = [
        [
            str(record.number),
            *(label(record.drawn[key]) for key in names),
            score_of(record),
            *(_cell(record, name) for name in measured),
            str(len(record.reports)),
            f"{record.seconds / 60:.1f}",
            record.state + (f": {record.reason}" if record.reason else ""),
        ]
        for record in records
    ]
    return Table(heads, rows, 1 + len(names))


def markdown(table: Table) -> str:
    """The table in Markdown."""
    rows = [table.heads, ["---"] * table.named + ["---:"] * (len(table.heads) - table.named), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def html(table: Table) -> str:
    """The table in HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.heads)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _measured(records: Sequence[Record]) -> list[str]:
    """The names of what was measured, without those that say little beside the others."""
    names = {name: None for record in records for run in record.runs for name in run["metrics"]}
    return [name for name in names if "/span/" not in name and "/accuracy/" not in name]


def _name(metric: str) -> str:
    """Such as `dev relation_exact`; F1 goes without saying."""
    return metric.removesuffix("/f1").replace("/", " ")


def _cell(record: Record, name: str) -> str:
    """F1 in per cent, a loss as it is."""
    factor, digits = (100, 1) if name.endswith("/f1") else (1, 4)
    values = [factor * run["metrics"][name] for run in record.runs]
    if not values:
        return "–"
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")
