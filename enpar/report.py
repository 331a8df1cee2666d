"""report.html: the scores, and the sentences with what is missed and spurious. One file, no network, no script."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from enpar.output import atomic
from enpar.scores import Item, Score, entity_items, relation_items
from enpar.sentence import Entity, Sentence

LIMIT = 200
"""Sentences shown at most; all of them are in predictions.jsonl."""

_NAMES = {
    "span": "Entity spans",
    "entity": "Entities (span and type)",
    "relation": "Relations (label and spans)",
    "relation_exact": "Relations, exact (and types)",
}

_STYLE = """
:root { color-scheme: light dark; --mark: 85%; --bad: #b00020; --line: #8886; }
@media (prefers-color-scheme: dark) { :root { --mark: 28%; --bad: #ff8a95; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 60rem; overflow-wrap: anywhere; }
div.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
article { border-top: 1px solid var(--line); padding: .5rem 0; }
article p { margin: .3rem 0; line-height: 2; }
article ul { margin: .3rem 0; padding-left: 1.2rem; }
mark { color: inherit; background: hsl(var(--h) 70% var(--mark)); padding: .1rem .3rem; border-radius: .3rem; }
small { opacity: .75; }
mark small { font-size: .7em; }
.missed b, .spurious b { color: var(--bad); }
"""


def write_report(
    path: Path,
    title: str,
    gold: Sequence[Sentence],
    predicted: Sequence[Sentence],
    scores: Mapping[str, Score],
    by_type: Mapping[str, Mapping[str, Score]],
) -> None:
    """Write a page that opens in any browser, on a phone too.

    Args:
        path: the HTML file.
        title: heading of the page, such as model and corpus.
        gold: the labelled sentences.
        predicted: the predictions, aligned with `gold`.
        scores: of `scores.score`.
        by_type: of `scores.by_type`.
    """
    body = [
        f"<h1>{escape(title)}</h1>",
        _table("Score", [(_NAMES.get(name, name), score) for name, score in scores.items()]),
        "<p><small>Micro-averaged over all sentences; every gold item counts. The direction counts for every relation, "
        "symmetric ones included.</small></p>",
        *(_type_table(name, rows) for name, rows in by_type.items()),
        *_sentences(gold, predicted),
    ]
    with atomic(path) as temporary:
        temporary.write_text(_page(title, body), encoding="utf-8")


def _page(title: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


# ---- tables -------------------------------------------------------------------------------------------------------


def _type_table(name: str, rows: Mapping[str, Score]) -> str:
    return f"<h2>{escape(_NAMES.get(name, name))}, by type</h2>" + _table("Type", rows.items())


def _table(first: str, rows: Iterable[tuple[str, Score]]) -> str:
    heads = (first, "Precision", "Recall", "F1", "Gold", "Predicted", "Correct")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(_row(name, score) for name, score in rows)}</table></div>'
    )


def _row(name: str, score: Score) -> str:
    fractions = (f"{100 * value:.1f}" for value in (score["precision"], score["recall"], score["f1"]))
    counts = (str(value) for value in (score["gold"], score["predicted"], score["correct"]))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (escape(name), *fractions, *counts)) + "</tr>"


# ---- sentences ----------------------------------------------------------------------------------------------------


def _sentences(gold: Sequence[Sentence], predicted: Sequence[Sentence]) -> list[str]:
    pairs = list(zip(gold, predicted, strict=True))
    wrong = [not _same(*pair) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: (not wrong[i], i))[:LIMIT]
    hues = _hues(pairs)
    shown = str(LIMIT) if len(pairs) > LIMIT else "All"
    return [
        "<h2>Sentences</h2>",
        f"<p>{sum(wrong)} of {len(pairs)} sentences have an error. {shown} are shown, those with errors first"
        + ("; the others are in predictions.jsonl.</p>" if len(pairs) > LIMIT else ".</p>"),
        *(_article(i, *pairs[i], hues) for i in order),
    ]


def _same(gold: Sentence, predicted: Sentence) -> bool:
    return entity_items(gold) == entity_items(predicted) and relation_items(gold) == relation_items(predicted)


def _hues(pairs: Iterable[tuple[Sentence, Sentence]]) -> dict[str, int]:
    """Choose a hue for each entity type; the golden angle keeps neighbours apart, however many there are."""
    types = sorted({e.type for pair in pairs for sentence in pair for e in sentence.entities})
    return {name: int(i * 137.5) % 360 for i, name in enumerate(types)}


def _article(index: int, gold: Sentence, predicted: Sentence, hues: Mapping[str, int]) -> str:
    origin = f"{gold.doc_id} · {gold.sent_id}" if gold.doc_id else str(index)
    if entity_items(gold) == entity_items(predicted):
        texts = f"<p>{_text(gold, hues)}</p>"
    else:
        texts = (
            f"<p><small>gold</small> {_text(gold, hues)}</p><p><small>predicted</small> {_text(predicted, hues)}</p>"
        )
    items = [*_entity_errors(gold, predicted), *_relation_lines(gold, predicted)]
    listing = f"<ul>{''.join(items)}</ul>" if items else ""
    return f"<article><small>{escape(origin)}</small>{texts}{listing}</article>"


def _text(sentence: Sentence, hues: Mapping[str, int]) -> str:
    """Mark the entities among the tokens; of two that overlap, the longer (`_entity_errors` lists either, if wrong)."""
    parts, position = [], 0
    for entity in _disjoint(sentence.entities):
        parts += [escape(token) for token in sentence.tokens[position : entity.start]]
        words = escape(_words(sentence, entity))
        parts.append(f'<mark style="--h:{hues[entity.type]}">{words} <small>{escape(entity.type)}</small></mark>')
        position = entity.end
    return " ".join([*parts, *(escape(token) for token in sentence.tokens[position:])])


def _disjoint(entities: Iterable[Entity]) -> list[Entity]:
    chosen: list[Entity] = []
    for entity in sorted(entities, key=lambda e: (e.start - e.end, e)):
        if all(entity.end <= other.start or other.end <= entity.start for other in chosen):
            chosen.append(entity)
    return sorted(chosen)


def _entity_errors(gold: Sentence, predicted: Sentence) -> list[str]:
    def show(item: Item) -> str:
        kind, start, end = item
        return f"{_words(gold, Entity(start, end, kind))} ({kind})"

    return [
        _line(verdict, show(item))
        for verdict, item in _verdicts(entity_items(gold), entity_items(predicted))
        if verdict
    ]


def _relation_lines(gold: Sentence, predicted: Sentence) -> list[str]:
    """Every relation, gold and predicted; a relation whose argument has another type is missed and spurious."""

    def show(item: Item) -> str:
        label, head, tail = item
        return f"{_words(gold, head)} ({head.type}) — {label} → {_words(gold, tail)} ({tail.type})"

    return [_line(verdict, show(item)) for verdict, item in _verdicts(relation_items(gold), relation_items(predicted))]


def _verdicts(gold: set[Item], predicted: set[Item]) -> list[tuple[str, Item]]:
    """Each item with `missed`, `spurious` or, for a correct one, nothing."""
    named = {"missed": gold - predicted, "spurious": predicted - gold, "": gold & predicted}
    return [(verdict, item) for verdict, items in named.items() for item in sorted(items)]


def _line(verdict: str, text: str) -> str:
    mark = f"<b>{verdict}</b> " if verdict else "✓ "
    return f'<li class="{verdict or "correct"}">{mark}{escape(text)}</li>'


def _words(sentence: Sentence, entity: Entity) -> str:
    return " ".join(sentence.tokens[entity.start : entity.end])
