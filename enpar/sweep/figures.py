"""The plots of a sweep: the score by each setting, and how losses and scores went."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from enpar.metrics import read_metrics
from enpar.report.drawing import COLOURS, drawing
from enpar.sweep.records import Record
from enpar.sweep.settings import Domain, TuneJob
from enpar.sweep.space import describe, shorten

Curves = Mapping[str, Sequence[tuple[float, float]]]
_SMOOTH = 50  # points of a curve at most: means over as many parts of the run
_NAMED = 12  # curves that are told apart by name at most


def scores(job: TuneJob, records: Sequence[Record]) -> list[tuple[str, str]]:
    """(title, SVG) for each key of the space."""
    shown = [record for record in records if record.score is not None]
    return [
        (f"Score by {short}", _score(f"Score by {short}", key, job.space[key], shown))
        for key, short in shorten(job.space).items()
    ]


def _score(title: str, key: str, domain: Domain, records: Sequence[Record]) -> str:
    names = list(domain.options or {})
    with drawing(title) as drawn:
        axes = drawn.axes
        for record in records:
            place = names.index(record.drawn[key]) if names else record.drawn[key]
            score = record.score or 0.0
            values = [run["score"] for run in record.runs] or [score]
            face = COLOURS[0] if record.state == "done" else "none"
            if len(values) > 1:
                axes.plot([place] * 2, [min(values), max(values)], color=COLOURS[0], linewidth=1)
            axes.plot([place], [score], "o", markersize=6, color=COLOURS[0], markerfacecolor=face)
        if names:
            steep = sum(map(len, names)) > 45
            axes.set_xticks(range(len(names)), names, rotation=30 if steep else 0, ha="right" if steep else "center")
            axes.set_xlim(-0.5, len(names) - 0.5)
        elif domain.loguniform:
            axes.set_xscale("log")
    return drawn.svg


def pretraining(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(title, SVG) of the total loss of each pre-training by updates; none where nothing was pre-trained."""
    curves: dict[str, Sequence[tuple[float, float]]] = {}
    for folder, titles in _pretrainings(records).items():
        rows = read_metrics(Path(folder) / "metrics.jsonl")
        points = [(row["step"], row["pretrain/loss/total"]) for row in rows if "pretrain/loss/total" in row]
        if not points:  # left out, or broken off
            continue
        curves[titles[0] + (f" (and {len(titles) - 1} more)" if len(titles) > 1 else "")] = _smooth(points)
    title = "Pre-training loss by updates"
    return [(title, _lines(title, curves))] if curves else []


def _pretrainings(records: Sequence[Record]) -> dict[str, list[str]]:
    """The settings by the folder of the pre-training that they share."""
    found: dict[str, list[str]] = {}
    for record in records:
        for folder in record.pretrained:
            found.setdefault(folder, []).append(describe(record.drawn))
    return found


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    parts = np.array_split(np.array(points).reshape(-1, 2), max(1, min(len(points), _SMOOTH)))
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts if len(part)]


def evaluations(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(title, SVG) of the best score so far by evaluations, of each trial's first seed."""
    title = "Best score so far by evaluations (first seed)"
    curves = {describe(record.drawn): record.reports for record in records if record.reports}
    return [(title, _lines(title, curves))] if curves else []


def _lines(title: str, curves: Curves) -> str:
    from matplotlib.ticker import MaxNLocator

    with drawing(title, height=4) as drawn:
        drawn.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for i, (name, points) in enumerate(curves.items()):
            style = ("-", "--", ":", "-.")[i // 6 % 4]
            x, y = zip(*points, strict=True)
            drawn.axes.plot(x, y, style, color=COLOURS[i % 6], linewidth=1.4, marker=".", label=name)
        if len(curves) <= _NAMED:
            drawn.axes.legend(frameon=False, fontsize=8)
    return drawn.svg
