"""The end of the claim: tables of the scores with a paired test; F1 by labelled sentences and by epoch as a figure."""

import json
import sys
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from enpar.corpora import load
from enpar.metrics import read_metrics
from enpar.significance import compare, sentence_counts

SCORES = ("span", "entity", "relation", "relation_exact")
FIGURE_SCORES = {"entity": "Entities", "relation": "Relations", "relation_exact": "Relations, exact"}
NAMES = {"plain": "plain encoder", "enpar": "ENPAR", "enpar-without-cnn": "ENPAR − CNN"}
COLOURS = {"plain": "#888888", "enpar": "#0b6e99"}
RESAMPLES = 10_000


def runs(out: Path, share: str, name: str) -> list[dict[str, Any]]:
    """The result of each seed."""
    manifest = json.loads((out / share / name / "manifest.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = manifest["result"]["runs"]
    return found


def cell(f1s: list[float]) -> str:
    """Mean ± standard deviation, in per cent."""
    return f"{100 * fmean(f1s):.1f} ± {100 * stdev(f1s):.1f}"


def table(out: Path, split: str) -> list[str]:
    """F1 of each score with all labelled sentences, and ENPAR's difference with its interval and p."""
    seeds = len(runs(out, "1", "plain"))
    lines = [
        f"\nF1 on {split}, mean ± standard deviation of {seeds} seeds",
        f"| | {' | '.join(NAMES.values())} | ENPAR − plain | 95 % interval | p |",
        "|---|" + "---:|" * (len(NAMES) + 3),
    ]
    tested = difference(out, split, "1")
    for score in SCORES:
        f1s = {name: [run[split][score]["f1"] for run in runs(out, "1", name)] for name in NAMES}
        low, high = tested[score]["interval"]
        cells = [cell(values) for values in f1s.values()]
        cells += [f"{100 * (fmean(f1s['enpar']) - fmean(f1s['plain'])):+.1f}"]
        cells += [f"[{100 * low:+.1f}, {100 * high:+.1f}]", f"{tested[score]['p']:.4f}"]
        lines.append(f"| {score} | " + " | ".join(cells) + " |")
    return lines


@cache  # all labels are in two tables
def difference(out: Path, split: str, share: str) -> dict[str, Any]:
    """Interval and p of ENPAR − plain, all seeds together: the sample of the test is the sentences."""
    gold = load(None, out / "scierc" / f"{split}.json")
    counts = {}
    for name in COLOURS:
        files = [Path(run["model"]) / f"predictions-{split}.jsonl" for run in runs(out, share, name)]
        counts[name] = sum(sentence_counts(gold, load("jsonl", file)) for file in files)
    return compare(counts["plain"], counts["enpar"], RESAMPLES, 1)


def shares(out: Path) -> list[str]:
    """The shares of the labelled sentences that were tried, from small to large."""
    return sorted((path.parent.name for path in out.glob("*/plain")), key=float)


def curve(out: Path) -> list[str]:
    """F1 on test by the share of the labelled sentences."""
    lines = [
        "\nF1 on test by share of the labelled sentences: entity / relation / relation_exact, mean of the seeds",
        "| share | seeds | plain encoder | ENPAR | ENPAR − plain | p |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for share in shares(out):
        found = {name: runs(out, share, name) for name in COLOURS}
        means = {name: [fmean(r["test"][s]["f1"] for r in all_) for s in FIGURE_SCORES] for name, all_ in found.items()}
        differences = [ours - plain for plain, ours in zip(means["plain"], means["enpar"], strict=True)]
        tested = difference(out, "test", share)
        cells = [" / ".join(f"{100 * value:.1f}" for value in means[name]) for name in COLOURS]
        cells += [" / ".join(f"{100 * value:+.1f}" for value in differences)]
        cells += [" / ".join(f"{tested[score]['p']:.4f}" for score in FIGURE_SCORES)]
        lines.append(f"| {100 * float(share):.0f} % | {len(found['plain'])} | " + " | ".join(cells) + " |")
    return lines


def by_epoch(model: Path, score: str) -> list[float]:
    """F1 on dev after each epoch."""
    key = f"dev/{score}/f1"
    return [100 * row[key] for row in read_metrics(model / "metrics.jsonl") if key in row]


def draw(out: Path) -> Path:
    """Test F1 by labelled sentences above, dev F1 by epoch below, for three scores; the seeds' spread as bars."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, len(FIGURE_SCORES))
    places = range(len(shares(out)))
    for axes, below, (score, title) in zip(upper, lower, FIGURE_SCORES.items(), strict=True):
        for name, colour in COLOURS.items():
            found = [[100 * run["test"][score]["f1"] for run in runs(out, share, name)] for share in shares(out)]
            spread = [stdev(f1s) for f1s in found]
            means = [fmean(f1s) for f1s in found]
            axes.errorbar(places, means, spread, color=colour, marker="o", capsize=3, label=NAMES[name])
            epochs = np.array([by_epoch(Path(run["model"]), score) for run in runs(out, "1", name)])
            numbers = np.arange(1, epochs.shape[1] + 1)
            below.errorbar(numbers, epochs.mean(axis=0), epochs.std(axis=0, ddof=1), color=colour, capsize=3)
        axes.set_title(title)
        axes.set_xticks(places, [f"{100 * float(share):.0f} %" for share in shares(out)])
        axes.set_xlabel("labelled sentences (F1 on test)")
        below.set_xlabel("epoch, all labelled sentences (F1 on dev)")
        for one in (axes, below):
            one.grid(axis="y", alpha=0.2)
            one.spines[["top", "right"]].set_visible(False)
    upper[0].legend(frameon=False)
    figure.savefig(out / "claim.svg", metadata={"Date": None})
    return out / "claim.svg"


def main() -> None:
    """Print the tables, and keep them and the figure in the claim's folder."""
    out = Path(sys.argv[1])
    text = "\n".join([*table(out, "test"), *table(out, "dev"), *curve(out)]) + "\n"
    (out / "claim.md").write_text(text.lstrip(), encoding="utf-8")
    print(f"{text}\nFigure: {draw(out).resolve()}")


if __name__ == "__main__":
    main()
