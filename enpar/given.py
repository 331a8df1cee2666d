"""Entities that come with a text: they stay as they are, and only what relates them is to be found.

A JSON object with `entities` gives them, in one of two forms:

- `text`, and of each entity `type`, `char_start` and `char_end` (end exclusive, in characters of the text);
- `tokens`, and of each entity `type`, `start` and `end` (end exclusive, in tokens): a Sentence, whose tokens are taken
  as they are, with spaces between them for its text. Where it has `text` and `char_start` as well, as in the lines that
  `enpar extract` writes, it says itself what its text is and where that begins.

Objects with `tokens` alone are Sentences, too, whose entities are to be found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from enpar.errors import UserError
from enpar.records import Unfit, text_of
from enpar.sentence import Sentence, from_json, records

Span = tuple[int, int]
"""Start and end (exclusive)."""
_REASON = "bad entities"


class Mention(NamedTuple):
    """An entity in characters of its document's text, end exclusive."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of a text.

    Args:
        mentions: its entities; None where they are to be found.
        sentence: the text as a Sentence, with the mentions as its entities; None where it is to be split.
        tokens: the Sentence's tokens, in characters of the text.
        start: where the text begins, for those who count characters.
    """

    mentions: tuple[Mention, ...] | None
    sentence: Sentence | None = None
    tokens: tuple[Span, ...] = ()
    start: int = 0


def read_item(item: dict[str, Any]) -> tuple[str, Given | None]:
    """The text of a JSON object, and what is known of it.

    Raises:
        Unfit: the text or an entity is missing or malformed, or the tokens are not in the text.
    """
    given = item.get("entities") is not None
    if isinstance(item.get("tokens"), list) and (given or not isinstance(item.get("text"), str)):
        return _sentence(item, given)
    text, _ = text_of(item)
    return text, Given(_mentions(item, text)) if given else None


def _mentions(item: dict[str, Any], text: str) -> tuple[Mention, ...]:
    fields = {"type": str, "char_start": int, "char_end": int}
    found = (Mention(one["char_start"], one["char_end"], one["type"]) for one in _checked(item, fields))
    return tuple(_visible(i, mention, text) for i, mention in enumerate(found))


def _checked(item: dict[str, Any], fields: dict[str, type]) -> list[dict[str, Any]]:
    try:
        return list(records(item, "entities", fields, "the object"))
    except UserError as error:
        raise Unfit(_REASON, str(error)) from None


def _visible(number: int, mention: Mention, text: str) -> Mention:
    """The mention, if it is one.

    Raises:
        Unfit: it lies outside the text, or there is nothing to be seen of it.
    """
    start, end, _ = mention
    if not 0 <= start < end <= len(text):
        detail = f"characters {start} to {end} of a text that has {len(text)}"
        raise Unfit(_REASON, f"entities[{number}]: {detail}")
    if not text[start:end].strip():
        raise Unfit(_REASON, f"entities[{number}]: nothing but white space at characters {start} to {end}")
    return mention


# ---- Sentences ------------------------------------------------------------------------------------------------------


def _sentence(item: dict[str, Any], given: bool) -> tuple[str, Given]:
    try:
        # What is related already is not looked at.
        sentence = from_json({**item, "entities": item["entities"] if given else [], "relations": []}, "the object")
    except UserError as error:
        raise Unfit("bad sentence", str(error)) from None
    text, tokens, start = _place(item, sentence.tokens)
    mentions = _placed(item, sentence, tokens, text, start) if given else None
    return text, Given(mentions, sentence, tokens, start)


def _place(item: dict[str, Any], tokens: Sequence[str]) -> tuple[str, tuple[Span, ...], int]:
    """The text of tokens, where they are in it, and where it begins."""
    if item.get("text") is None:
        ends = list(accumulate((len(token) + 1 for token in tokens), initial=0))
        return " ".join(tokens), tuple((end, end + len(token)) for end, token in zip(ends, tokens, strict=False)), 0
    text, _ = text_of(item)
    start = item.get("char_start", 0)
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise Unfit("bad sentence", f"char_start is {start!r}; it says where the text begins, in characters from 0")
    return text, tuple(_found(tokens, text)), start


def _found(tokens: Sequence[str], text: str) -> list[Span]:
    spans: list[Span] = []
    place = 0
    for number, token in enumerate(tokens):
        while not text.startswith(token, place) and place < len(text) and text[place].isspace():
            place += 1
        if not text.startswith(token, place):
            raise Unfit("bad sentence", f"tokens[{number}], {token[:40]!r}, is not in the text at character {place}")
        spans.append((place, place + len(token)))
        place += len(token)
    return spans


def _placed(
    item: dict[str, Any], sentence: Sentence, tokens: Sequence[Span], text: str, start: int
) -> tuple[Mention, ...]:
    """The entities in characters: as they say themselves, if the text is theirs, or else those of their tokens.

    Raises:
        Unfit: an entity has no characters, or others than its tokens.
    """
    mentions = []
    own = item.get("text") is not None
    for number, (record, entity) in enumerate(zip(item["entities"], sentence.entities, strict=True)):
        first, last = tokens[entity.start][0], tokens[entity.end - 1][1]
        begin, end = first, last
        if own and isinstance(record.get("char_start"), int) and isinstance(record.get("char_end"), int):
            begin, end = record["char_start"] - start, record["char_end"] - start
        mention = _visible(number, Mention(begin, end, entity.type), text)
        if end <= first or last <= begin:
            raise Unfit(_REASON, f"entities[{number}]: its tokens are at characters {first} to {last} of the text")
        mentions.append(mention)
    return tuple(mentions)
