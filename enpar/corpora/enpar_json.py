"""The JSON lines of the released ENPAR and UniRE code, in which their users have ACE05: a sentence a line.

`sentText` has the tokens with a space between; `entityMentions` have `emId`, `offset` [start, end exclusive] in tokens
and `label`; `relationMentions` name two mentions by `em1Id` and `em2Id`, and have a `label`. The mentions' texts and
`wordpieceSentText` and `wordpieceTokensIndex` repeat what is known, and are passed over.
"""

from collections.abc import Iterator
from pathlib import Path

from enpar.corpora.reading import Rejects, json_lines, records, string
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence

LOOKS = 'a line {"sentText", "entityMentions" with "offset", "relationMentions" with "em1Id"} a sentence'


def fits(item: dict[str, object]) -> bool:
    """Whether an item of a file is of this form."""
    mentions = item.get("entityMentions")
    return "sentText" in item and (
        "wordpieceSentText" in item
        or (isinstance(mentions, list) and any(isinstance(m, dict) and "offset" in m for m in mentions))
    )


def read(path: Path, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of a file; `doc_id` is `articleId`, `sent_id` is `sentId` where that is a number.

    Raises:
        UserError: the file cannot be read, or a line is malformed; the message names file, line and item.
    """
    for where, item in json_lines(path, rejects, "sentences"):
        with rejects.item("sentences"):
            yield _sentence(item, where)


def _sentence(item: object, where: str) -> Sentence:
    if not isinstance(item, dict):
        raise UserError(f"{where}: expected an object with sentText, entityMentions and relationMentions")
    tokens = string(item, "sentText", where).strip().split(" ")
    entities: dict[str, Entity] = {}
    for place, mention in records(item, "entityMentions", where):
        if (name := string(mention, "emId", place)) in entities:
            raise UserError(f"{place}: emId {name} is given twice")
        entities[name] = Entity(*_offset(mention, len(tokens), place), string(mention, "label", place))
    numbers = {name: i for i, name in enumerate(entities)}
    relations = []
    for place, relation in records(item, "relationMentions", where):
        names = [string(relation, field, place) for field in ("em1Id", "em2Id")]
        if unknown := [name for name in names if name not in numbers]:
            raise UserError(f"{place}: {unknown[0]} is no emId of the sentence's entityMentions")
        relations.append(Relation(string(relation, "label", place), numbers[names[0]], numbers[names[1]]))
    return Sentence(tuple(tokens), tuple(entities.values()), tuple(relations), *origin(item))


def origin(item: dict[str, object]) -> tuple[str, int]:
    """Document and number of a sentence: `articleId`, and `sentId` where that is a number."""
    document, number = ("" if item.get(field) is None else str(item[field]) for field in ("articleId", "sentId"))
    # The Arrow form has 32 bits for it.
    return document, int(number) if number.isdecimal() and number.isascii() and len(number) < 10 else 0


def _offset(mention: dict[str, object], length: int, where: str) -> tuple[int, int]:
    offset = mention.get("offset")
    if not isinstance(offset, list) or [type(value) for value in offset] != [int, int]:
        raise UserError(f"{where}: offset is {offset!r}; expected [start, end] in tokens")
    start, end = offset
    if not 0 <= start < end <= length:
        raise UserError(f"{where}: offset [{start}, {end}) lies outside the sentence, which has {length} tokens")
    return start, end
