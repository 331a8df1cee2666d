"""The tables of report.html, from what report.json holds."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from enpar.mistakes import KINDS
from enpar.scores import Score
from enpar.significance import LEVEL

NAMES = {
    "span": "Entity spans",
    "entity": "Entities",
    "relation": "Relations",
    "relation_exact": "Relations, exact",
}
_RIGHT_IF = {
    "span": "the boundaries are right",
    "entity": "boundaries and type are right",
    "relation": "label, direction and both boundaries are right",
    "relation_exact": "both types are right as well",
}


def scores(content: Mapping[str, Any]) -> str:
    """A card for each of the four scores, and a table with all counts."""
    models, comparisons = content["models"], content["comparisons"]
    cards = "".join(_card(name, models, comparisons) for name in NAMES)
    level = f"{100 * LEVEL:.0f} %"
    note = f"F1 in %, micro-averaged over all sentences, with {level} bootstrap intervals over sentences."
    if comparisons:
        note += (
            f" Δ is the difference of the second model to the first, with its {level} interval (paired bootstrap); p is"
            " how likely one as large is between equal models (approximate randomisation over sentences, two-sided, "
            "not corrected for the number of tests)."
        )
    rows = {NAMES[name]: [found["scores"][name] for found in models.values()] for name in NAMES}
    return f'<div class="cards">{cards}</div><p class="note">{note}</p>{_side_by_side("Score", rows, models)}'


def types(content: Mapping[str, Any]) -> str:
    """Entities and exact relations by type, the models side by side."""
    models = content["models"]
    parts = []
    for name in ("entity", "relation_exact"):
        typed = [found["by_type"][name] for found in models.values()]
        labels = sorted({label for scores in typed for label in scores})
        rows = {label: [scores.get(label) for scores in typed] for label in labels}
        parts.append(f"<h3>{NAMES[name]}</h3>{_side_by_side('Type', rows, models)}")
    return "".join(parts)


def mistakes(content: Mapping[str, Any]) -> str:
    """How many mistakes of each kind each model makes, with what the kinds mean."""
    models = content["models"]
    rows = [_row([kind, *_mistake_counts(models, kind)]) for kind in KINDS]
    rows.append(_row(["all", *map(sum, zip(*(_mistake_counts(models, kind) for kind in KINDS), strict=True))]))
    head = _model_heads(models, 2, before=1) + _heads("Kind", *("Entities", "Relations") * len(models))
    note = (
        "A wrong prediction and the gold item it stands for are one mistake, so that each is counted once. Where "
        "several kinds fit, entity type goes before direction, relation type and boundary."
    )
    meanings = "".join(f"<dt>{kind}</dt><dd>{meaning}</dd>" for kind, meaning in KINDS.items())
    return f'<p class="note">{note}</p>{_table(head, rows)}<dl>{meanings}</dl>'


def confusions(content: Mapping[str, Any]) -> str:
    """A confusion matrix of relation labels for each model."""
    note = (
        "Rows are gold, columns predicted, for ordered pairs of entities whose boundaries are right; none is no "
        "relation. A relation found in the wrong direction is one missed and one that is not in gold."
    )
    matrices = "".join(_confusion(name, found["confusion"]) for name, found in content["models"].items())
    return f'<p class="note">{note}</p><div class="matrices">{matrices}</div>'


# ---- parts --------------------------------------------------------------------------------------------------------

_COLUMNS = ("F1", "Precision", "Recall", "Predicted", "Correct")


def _card(name: str, models: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]]) -> str:
    lines = "".join(
        _headline(i, model if len(models) > 1 else "", found["scores"][name], found["intervals"][name])
        for i, (model, found) in enumerate(models.items())
    )
    deltas = "".join(_delta(one["first"], one["second"], one["scores"][name], len(models)) for one in comparisons)
    return f"<article><h3>{NAMES[name]}</h3><small>{_RIGHT_IF[name]}</small>{lines}{deltas}</article>"


def _headline(index: int, model: str, score: Score, interval: Sequence[float]) -> str:
    low, high = interval
    place = f"--from:{_percent(low)}%;--to:{_percent(high)}%;--at:{_percent(score['f1'])}%"
    return (
        f'<div class="model m{index % 6}"><b>{_percent(score["f1"])}</b> '
        f"<span>{_percent(low)} – {_percent(high)}</span> <em>{escape(model)}</em>"
        f'<div class="range" style="{place}"></div></div>'
    )


def _delta(first: str, second: str, found: Mapping[str, Any], models: int) -> str:
    low, high = found["interval"]
    p = "p < 0.001" if found["p"] < 0.001 else f"p = {found['p']:.3f}"
    pair = f" {escape(second)} − {escape(first)}" if models > 2 else ""
    sure = "sure" if low > 0 or high < 0 else "unsure"
    return (
        f'<p class="delta {sure}">Δ{pair} <b>{_signed(found["difference"])}</b> '
        f"[{_signed(low)}, {_signed(high)}], {p.replace('<', '&lt;')}</p>"
    )


def _side_by_side(first: str, rows: Mapping[str, Sequence[Score | None]], models: Iterable[str]) -> str:
    """A table with a row for each name, gold's count, and the scores of each model; None where it has no such item."""
    names = list(models)
    head = _model_heads(names, len(_COLUMNS), before=2) + _heads(first, "Gold", *_COLUMNS * len(names))
    return _table(head, [_scores_row(name, scores) for name, scores in rows.items()])


def _scores_row(name: str, scores: Sequence[Score | None]) -> str:
    cells: list[object] = [next(score["gold"] for score in scores if score)]
    for score in scores:
        cells += ["–"] * len(_COLUMNS) if score is None else _cells(score)
    return _row([name, *cells])


def _mistake_counts(models: Mapping[str, Any], kind: str) -> list[int]:
    return [found["mistakes"][name][kind] for found in models.values() for name in ("entity", "relation_exact")]


def _confusion(model: str, found: Mapping[str, Any]) -> str:
    names = [*found["labels"], "none"]
    head = (
        '<tr><th scope="col">Gold</th>' + "".join(f'<th scope="col"><i>{escape(n)}</i></th>' for n in names) + "</tr>"
    )
    rows = []
    for i, (name, counts) in enumerate(zip(names, found["counts"], strict=True)):
        total = sum(counts) or 1
        cells = "".join(_cell(count, count / total, i == j) for j, count in enumerate(counts))
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    note = (
        f"Elsewhere, with a wrong boundary: {found['gold_elsewhere']} relations of gold and "
        f"{found['predicted_elsewhere']} predicted ones."
    )
    table = f'<div class="scroll"><table class="confusion">{head}{"".join(rows)}</table></div>'
    return f"<div><h3>{escape(model)}</h3>{table}<p><small>{note}</small></p></div>"


def _cell(count: int, share: float, right: bool) -> str:
    mark = ' class="right"' if right else ""
    return f'<td{mark} style="--share:{100 * share:.0f}%">{count or ""}</td>'


def _table(head: str, rows: Iterable[str]) -> str:
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _heads(*names: str) -> str:
    return "<tr>" + "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr>"


def _model_heads(models: Iterable[str], columns: int, before: int) -> str:
    """A row of model names over their columns; nothing where there is one model only."""
    names = list(models)
    if len(names) == 1:
        return ""
    cells = "".join(
        f'<th scope="colgroup" colspan="{columns}" class="m{i % 6}">{escape(name)}</th>' for i, name in enumerate(names)
    )
    return f'<tr><td colspan="{before}"></td>{cells}</tr>'


def _row(cells: Sequence[object]) -> str:
    first, *others = (escape(str(cell)) for cell in cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def _cells(score: Score) -> list[object]:
    fractions = [_percent(fraction) for fraction in (score["f1"], score["precision"], score["recall"])]
    return [*fractions, score["predicted"], score["correct"]]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")
