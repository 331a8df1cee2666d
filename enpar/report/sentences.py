"""The sentences of report.html, as the data from which its script draws them."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from enpar.mistakes import KINDS, Mistake, entity_mistakes, relation_mistakes
from enpar.scores import Item, entity_items, relation_items
from enpar.sentence import Entity, Sentence

LIMIT = 2000
"""Sentences in the page at most; all of them are in the files of predictions."""


def data(
    gold: Sequence[Sentence], predicted: Mapping[str, Sequence[Sentence]], symmetric: Collection[str]
) -> dict[str, Any]:
    """What the page draws.

    Args:
        gold: the labelled sentences.
        predicted: predictions by model, each aligned with `gold`.
        symmetric: labels of the relations that are drawn without a direction.

    Returns:
        models, kinds, entity_types and relation_types as lists of names; total, the number of sentences; symmetric;
        and sentences, each with its name, tokens, and answers: gold's, and one of each model. An answer has entities
        (start, end, type), relations (label, head, tail: indices into entities) and, a model's, mistakes (kind,
        whether of a relation, index in gold or null, index in the answer or null).
    """
    rows = [_sentence(i, *row) for i, row in enumerate(zip(gold, *predicted.values(), strict=True))]
    kept = rows
    if len(rows) > LIMIT:  # those with a mistake are worth more than those without
        first = sorted(range(len(rows)), key=lambda i: (not _wrong(rows[i]), i))[:LIMIT]
        kept = [rows[i] for i in sorted(first)]
    everything = [*gold, *(sentence for sentences in predicted.values() for sentence in sentences)]
    return {
        "models": list(predicted),
        "kinds": list(KINDS),
        "entity_types": sorted({entity.type for sentence in everything for entity in sentence.entities}),
        "relation_types": sorted({relation.type for sentence in everything for relation in sentence.relations}),
        "symmetric": sorted(symmetric),
        "total": len(rows),
        "sentences": kept,
    }


def embed(value: dict[str, Any]) -> str:
    """JSON that can stand in a script element: without a character that HTML might take for markup."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _sentence(index: int, gold: Sentence, *predicted: Sentence) -> dict[str, Any]:
    name = f"{gold.doc_id} · {gold.sent_id}" if gold.doc_id else str(index + 1)
    return {
        "name": name,
        "tokens": gold.tokens,
        "answers": [_answer(gold), *(_answer(sentence) | _mistakes(gold, sentence) for sentence in predicted)],
    }


def _answer(sentence: Sentence) -> dict[str, Any]:
    entities = _entities(sentence)
    places = {item: i for i, item in enumerate(entities)}
    return {
        "entities": [(start, end, kind) for kind, start, end in entities],
        "relations": [
            (label, places[_item(head)], places[_item(tail)]) for label, head, tail in sorted(relation_items(sentence))
        ],
    }


def _mistakes(gold: Sentence, predicted: Sentence) -> dict[str, Any]:
    found = [
        _places(mistake, False, _entities(gold), _entities(predicted)) for mistake in entity_mistakes(gold, predicted)
    ]
    wanted, guessed = sorted(relation_items(gold)), sorted(relation_items(predicted))
    found += [_places(mistake, True, wanted, guessed) for mistake in relation_mistakes(gold, predicted)]
    return {"mistakes": found}


def _places(mistake: Mistake, relation: bool, gold: Sequence[Item], predicted: Sequence[Item]) -> tuple[Any, ...]:
    kind, wanted, found = mistake
    return (
        kind,
        int(relation),
        None if wanted is None else gold.index(wanted),
        None if found is None else predicted.index(found),
    )


def _entities(sentence: Sentence) -> list[Item]:
    """In the order of the text."""
    return sorted(entity_items(sentence), key=lambda item: (item[1], item[2], item[0]))


def _item(entity: Entity) -> Item:
    return entity.type, entity.start, entity.end


def _wrong(row: Mapping[str, Any]) -> bool:
    return any(answer["mistakes"] for answer in row["answers"][1:])
