"""The four figures of report.html (the paper's Figures 7 to 9), drawn by matplotlib as SVG, with their numbers."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from enpar.breakdown import FIGURES
from enpar.report.drawing import COLOURS, drawing
from enpar.scores import Score


def figures(content: Mapping[str, Any]) -> str:
    """Each figure with a table of its numbers under it."""
    models = content["models"]
    legend = "".join(f'<span class="m{i % 6}">{escape(name)}</span> ' for i, name in enumerate(models))
    scores = [s for found in models.values() for groups in found["breakdowns"].values() for s in groups.values()]
    top = 20 * max(1, math.ceil(5 * max(score["f1"] for score in scores)))  # one scale for all four
    parts = (
        _figure(title, top, {model: found["breakdowns"][name] for model, found in models.items()})
        for name, (title, *_) in FIGURES.items()
    )
    return f'<p class="legend">{legend}</p><div class="figures">{"".join(parts)}</div>'


def _figure(title: str, top: int, models: Mapping[str, Mapping[str, Score]]) -> str:
    return (
        f"<figure><figcaption>{title}</figcaption>{_draw(title, top, models)}"
        f"<details><summary>Numbers</summary>{_numbers(models)}</details></figure>"
    )


def _numbers(models: Mapping[str, Mapping[str, Score]]) -> str:
    heads = ("Group", "Model", "F1", "Gold", "Predicted", "Correct")
    rows = "".join(
        f'<tr><th scope="row">{group}</th><td>{escape(model)}</td><td>{100 * score["f1"]:.1f}</td>'
        + "".join(f"<td>{count}</td>" for count in (score["gold"], score["predicted"], score["correct"]))
        + "</tr>"
        for group in next(iter(models.values()))
        for model, score in ((model, groups[group]) for model, groups in models.items())
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _draw(title: str, top: int, models: Mapping[str, Mapping[str, Score]]) -> str:
    """Bars of F1 for every group and model; inline SVG."""
    groups = next(iter(models.values()))
    width = 0.8 / len(models)
    with drawing(title) as drawn:
        axes = drawn.axes
        for i, scores in enumerate(models.values()):
            places = [j + (i - (len(models) - 1) / 2) * width for j in range(len(groups))]
            heights = [100 * score["f1"] for score in scores.values()]
            axes.bar(places, heights, 0.92 * width, color=COLOURS[i % 6])
        axes.set_xticks(range(len(groups)), [f"{group}\n{score['gold']:,}" for group, score in groups.items()])
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, top)
    return drawn.svg
