"""Figures as inline SVG that takes the colours of its page, light or dark, drawn by matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib knows no colours of the page: these stand for them in what it writes.
INK = "#010101"
COLOURS = [f"#0101{10 + i}" for i in range(6)]


class Drawing:
    """A figure that is being drawn; its SVG afterwards."""

    def __init__(self, axes: "Axes") -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def drawing(title: str, width: float = 6, height: float = 3) -> Iterator[Drawing]:
    """Draw on the axes within the block; take the SVG after it. Sizes in inches."""
    # Here and not above: it takes a second, and a command that fails at its settings needs none of it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": title, "text.color": INK, "font.size": 11}
    style |= {f"{axis}tick.color": INK for axis in "xy"} | {"axes.edgecolor": INK, "axes.labelcolor": INK}
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        drawn = Drawing(figure.add_subplot())
        yield drawn
        drawn.axes.spines[["top", "right"]].set_visible(False)
        drawn.axes.grid(axis="y", color=INK, alpha=0.15)
        drawn.axes.set_axisbelow(True)
        file = StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawn.svg = _themed(file.getvalue(), title)


def _themed(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    for i, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--m{i})")
    return svg.replace(INK, "currentColor")
