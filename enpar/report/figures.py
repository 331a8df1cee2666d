"""The four figures of report.html (the paper's Figures 7 to 9), drawn by matplotlib as SVG, with their numbers."""

import math
from collections.abc import Mapping
from html import escape
from io import StringIO
from typing import Any

from enpar.breakdown import FIGURES
from enpar.scores import Score

# matplotlib knows no colours of the page, light or dark: these stand for them in what it writes.
_INK = "#010101"
_COLOURS = [f"#0101{10 + i}" for i in range(6)]


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
    # Here and not above: it takes a second, and a command that fails at its settings needs none of it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    groups = next(iter(models.values()))
    width = 0.8 / len(models)
    style = {"svg.fonttype": "none", "svg.hashsalt": title, "text.color": _INK, "font.size": 11}
    style |= {f"{axis}tick.color": _INK for axis in "xy"} | {"axes.edgecolor": _INK}
    with rc_context(style):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot()
        for i, scores in enumerate(models.values()):
            places = [j + (i - (len(models) - 1) / 2) * width for j in range(len(groups))]
            heights = [100 * score["f1"] for score in scores.values()]
            axes.bar(places, heights, 0.92 * width, color=_COLOURS[i % 6])
        axes.set_xticks(range(len(groups)), [f"{group}\n{score['gold']:,}" for group, score in groups.items()])
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, top)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=_INK, alpha=0.15)
        axes.set_axisbelow(True)
        file = StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    for i, colour in enumerate(_COLOURS):
        svg = svg.replace(colour, f"var(--m{i})")
    return svg.replace(_INK, "currentColor")
