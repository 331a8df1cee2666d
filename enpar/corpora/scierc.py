"""SciERC's processed release: one JSON document a line, with document-level token offsets, ends inclusive.

`sentences` has a list of tokens a sentence; `ner` and `relations` have a list a sentence of `[start, end, label]` and
of `[start1, end1, start2, end2, label]`. What the format leaves open is settled so:

- An identical (start, end, label) given twice for a sentence is one entity.
- Relations name spans, not entities. Of entities that share a span under other labels, the first is meant.
- Nothing else is dropped: overlapping entities stay, as dropping gold inflates recall.
- Where malformed items are left out, that is a sentence, or a document if its lists do not belong together.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from enpar.corpora.reading import Rejects, json_lines
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence

_ENTITY = "[start, end, label]"
_RELATION = "[start1, end1, start2, end2, label]"


LOOKS = 'a line {"doc_key", "sentences", "ner", "relations"} a document'


def fits(item: dict[str, object]) -> bool:
    """Whether an item of a file is of this form."""
    return "doc_key" in item and all(_nested(item.get(field)) for field in ("sentences", "ner", "relations"))


def read(path: Path, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of a file of SciERC documents; `doc_id` is `doc_key`, `sent_id` the index in the document.

    Raises:
        UserError: the file cannot be read, or an item is malformed; the message names file, line and item.
    """
    for where, item in json_lines(path, rejects, "documents"):
        with rejects.item("documents"):
            yield from document(item, where, rejects)


def document(item: object, where: str, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of one document.

    Raises:
        UserError: it is malformed.
    """
    if not isinstance(item, dict) or not isinstance(item.get("doc_key"), str):
        raise UserError(f"{where}: expected a document with doc_key (a string), sentences, ner and relations")
    texts, ner, relations = (_lists(item, field, where) for field in ("sentences", "ner", "relations"))
    for field, found in (("ner", ner), ("relations", relations)):
        if len(found) != len(texts):
            raise UserError(f"{where}: {field} has {len(found)} lists, but there are {len(texts)} sentences")
    offset = 0
    for index, tokens in enumerate(texts):
        with rejects.item("sentences"):
            if not tokens or not all(isinstance(token, str) for token in tokens):
                raise UserError(f"{where}: sentences[{index}]: expected a list of strings with at least one")
            place = f"of sentence {index}"
            entities = _entities(ner[index], offset, len(tokens), where, place, rejects)
            links = tuple(_relations(relations[index], entities, offset, where, place))
            yield Sentence(tuple(tokens), tuple(entities), links, item["doc_key"], index)
        offset += len(tokens)


def _lists(item: dict[str, Any], field: str, where: str) -> list[list[Any]]:
    value = item.get(field)
    if not _nested(value):
        raise UserError(f"{where}: {field}: expected a list with one list for each sentence")
    return cast(list[list[Any]], value)


def _nested(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, list) for part in value)


def _entities(records: list[Any], offset: int, length: int, where: str, place: str, rejects: Rejects) -> list[Entity]:
    """Read the entities of a sentence whose first token is the document's token `offset`, each once, in order."""
    entities: dict[Entity, None] = {}
    for i, record in enumerate(records):
        start, end, label = _fields(record, _ENTITY, f"{where}: ner[{i}] {place}")
        if not offset <= start <= end < offset + length:
            raise UserError(
                f"{where}: ner[{i}] {place}: [{start}, {end}] lies outside the sentence, "
                f"which has tokens {offset} to {offset + length - 1} of the document"
            )
        if (entity := Entity(start - offset, end - offset + 1, label)) in entities:
            rejects.reject("entities", "duplicate", f"{where}: ner[{i}] {place}: {record}")
        entities[entity] = None
    return list(entities)


def _relations(records: list[Any], entities: list[Entity], offset: int, where: str, place: str) -> Iterator[Relation]:
    # Reversed, so that the first of two entities with one span is the one that stays.
    by_span = {(e.start + offset, e.end + offset - 1): i for i, e in reversed(list(enumerate(entities)))}
    for i, record in enumerate(records):
        *ends, label = _fields(record, _RELATION, f"{where}: relations[{i}] {place}")
        head, tail = (ends[0], ends[1]), (ends[2], ends[3])
        for span in (head, tail):
            if span not in by_span:
                raise UserError(f"{where}: relations[{i}] {place}: {list(span)} is no entity of the sentence (see ner)")
        yield Relation(label, by_span[head], by_span[tail])


def _fields(record: object, form: str, where: str) -> list[Any]:
    """Check the fields of a record: integers, and a label at the end."""
    size = form.count(",") + 1
    if not isinstance(record, list) or len(record) != size or not _typed(record):
        raise UserError(f"{where}: {record!r}; expected {form}: {size - 1} integers and a string")
    return record


def _typed(record: list[Any]) -> bool:
    return isinstance(record[-1], str) and all(type(value) is int for value in record[:-1])
