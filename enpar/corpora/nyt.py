"""NYT as ARNOR (version 2.0.0) and CoType have it: JSON lines in which relations name their mentions by text.

`sentText`, `entityMentions` of `text` and `label`, `relationMentions` of `em1Text`, `em2Text`, `label` and perhaps
`is_noise`. Tokens are what white space separates. What the format leaves open is settled so:

- The k-th mention of a text is its k-th occurrence as whole tokens; occurrences inside a longer mention's come last.
  Further mentions than occurrences are the same mention again, and left out as duplicates if their label is the same.
- A text that is nowhere made of whole tokens is sought inside them, and they are split there.
- A relation is between those two mentions of its texts that are nearest to each other; of equally near ones, the first.
  A relation given twice is one.
- The label `None` is no relation, nor is one with `is_noise`: people have found it not to be expressed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from enpar.corpora.enpar_json import origin
from enpar.corpora.offsets import Span, cut, locate
from enpar.corpora.reading import Rejects, json_lines, records, string
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence

LOOKS = 'a line {"sentText", "entityMentions" with "text", "relationMentions" with "em1Text"} a sentence'


def fits(item: dict[str, object]) -> bool:
    """Whether an item of a file is of this form, or of ENPAR's without anything that tells them apart."""
    return "sentText" in item and "entityMentions" in item


def read(path: Path, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of a file; `doc_id` is `articleId`, `sent_id` is `sentId` where that is a number.

    Raises:
        UserError: the file cannot be read, or a line is malformed; the message names file, line and item.
    """
    for where, item in json_lines(path, rejects, "sentences"):
        with rejects.item("sentences"):
            yield _sentence(item, where, rejects)


def _sentence(item: object, where: str, rejects: Rejects) -> Sentence:
    if not isinstance(item, dict):
        raise UserError(f"{where}: expected an object with sentText, entityMentions and relationMentions")
    text = _words(string(item, "sentText", where))
    mentions = [
        (place, _words(string(mention, "text", place)), string(mention, "label", place))
        for place, mention in records(item, "entityMentions", where)
    ]
    spans = _spans(text, mentions)
    tokens = cut([match.span() for match in re.finditer(r"\S+", text)], spans)
    entities: dict[Entity, int] = {}
    named: defaultdict[str, list[int]] = defaultdict(list)
    for (place, name, label), span in zip(mentions, spans, strict=True):
        if (entity := Entity(*locate(tokens, span), label)) in entities:
            rejects.reject("entities", "duplicate", f"{place}: {name} ({label})")
        named[name].append(entities.setdefault(entity, len(entities)))
    relations = _relations(item, where, named, list(entities), rejects)
    words = tuple(text[start:end] for start, end in tokens)
    return Sentence(words, tuple(entities), relations, *origin(item))


def _words(text: str) -> str:
    return " ".join(text.split())


def _spans(text: str, mentions: Sequence[tuple[str, str, str]]) -> list[Span]:
    """Where in the text each mention is, in characters."""
    places: dict[str, list[Span]] = {}
    taken: list[Span] = []
    for name, where in sorted({name: where for where, name, _ in reversed(mentions)}.items(), key=lambda m: -len(m[0])):
        found = _occurrences(text, name, where)
        places[name] = sorted(found, key=lambda span: any(a <= span[0] and span[1] <= b for a, b in taken))
        taken += found
    seen: defaultdict[str, int] = defaultdict(int)
    spans = []
    for _, name, _ in mentions:
        spans.append(places[name][min(seen[name], len(places[name]) - 1)])
        seen[name] += 1
    return spans


def _occurrences(text: str, name: str, where: str) -> list[Span]:
    """Where a text occurs as whole tokens, or else anywhere."""
    for pattern in (rf"(?<!\S){re.escape(name)}(?!\S)", re.escape(name)):
        if found := [match.span() for match in re.finditer(pattern, text)]:
            return found
    raise UserError(f"{where}: {name!r} does not occur in sentText")


def _relations(
    item: dict[str, object], where: str, named: dict[str, list[int]], entities: Sequence[Entity], rejects: Rejects
) -> tuple[Relation, ...]:
    relations: dict[Relation, None] = {}
    for place, relation in records(item, "relationMentions", where):
        label = string(relation, "label", place)
        if label.casefold() == "none" or relation.get("is_noise") is True:
            continue
        names = [_words(string(relation, field, place)) for field in ("em1Text", "em2Text")]
        if unknown := [name for name in names if not named.get(name)]:
            raise UserError(f"{place}: {unknown[0]!r} is no text of the sentence's entityMentions")
        found = Relation(label, *_nearest(named[names[0]], named[names[1]], entities))
        if found in relations:
            rejects.reject("relations", "duplicate", f"{place}: {names[0]} {label} {names[1]}")
        relations[found] = None
    return tuple(relations)


def _nearest(heads: Sequence[int], tails: Sequence[int], entities: Sequence[Entity]) -> tuple[int, int]:
    """The two mentions that are nearest to each other, and not one and the same if that can be."""

    def order(pair: tuple[int, int]) -> tuple[bool, int, int, int]:
        head, tail = (entities[i] for i in pair)
        gap = max(head.start - tail.end, tail.start - head.end)
        return pair[0] == pair[1], gap, head.start, tail.start

    return min(product(heads, tails), key=order)
