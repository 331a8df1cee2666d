"""A document of the ACE 2005 release (LDC2006T06): its text (.sgm) and annotation (.apf.xml), read into Sentences.

Offsets count the characters of the .sgm with every tag taken out and newlines kept; `&amp;` counts as the five
characters that it is in the file, and becomes `&` in the tokens. A mention's span is its head. What the format leaves
open is settled much as in the preprocessing of Miwa & Bansal (LSTM-ER), which published ACE05 scores rest on:

- Mentions that share type, start and end are one, and so are relations that share type and arguments.
- Every tag ends a paragraph, and so does a line before a blank or indented one, or before a speaker such as `Q:`; the
  other line ends of a paragraph are hard wraps and become spaces. Each line of a headline, speaker, poster, date of
  a post or subject is a sentence of its own.
- Tokens and sentences are those of spaCy's English rules. LSTM-ER has CoreNLP's, so sentences and tokens differ in
  places; entities and relations do not depend on them: a head that begins or ends inside a token splits it, and a
  sentence break inside a mention, or from one argument of a relation to the other, is undone.
- Lines outside the body (DOCID, DOCTYPE, DATETIME, ENDTIME) are left out and counted, unless a mention lies there.
  LSTM-ER keeps them as sentences without entities ("NEWS STORY"): more sentences, the same gold.
"""

import html
import re
import xml.etree.ElementTree as ET
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from enpar.corpora.reading import read_text
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence

ENTITY_TYPES = frozenset({"FAC", "GPE", "LOC", "ORG", "PER", "VEH", "WEA"})
RELATION_TYPES = frozenset({"ART", "GEN-AFF", "ORG-AFF", "PART-WHOLE", "PER-SOC", "PHYS"})

_MENTION = "entity_mention"
_TAG = re.compile(r"<(?!>)(/?)(\w*)[^>]*>")
_BODY = {"BODY", "TEXT"}
_LINES = {"HEADLINE", "SPEAKER", "POSTER", "POSTDATE", "SUBJECT"}
_PARAGRAPH_END = re.compile(r"\n(?=\s|\S:)")
_PIECE = re.compile(r"\s+|&(?:amp|lt|gt|quot);|.", re.IGNORECASE)


class _Mention(NamedTuple):
    """Characters `start` to `end` (exclusive) of the text, and an entity type."""

    start: int
    end: int
    type: str


class _Link(NamedTuple):
    type: str
    head: _Mention
    tail: _Mention


class _Unit(NamedTuple):
    """Characters `start` to `end` (exclusive) of the text that belong together: a paragraph, or a line."""

    start: int
    end: int
    is_line: bool
    in_body: bool


class _Token(NamedTuple):
    start: int
    text: str
    opens: bool
    """Whether a sentence begins with it."""


def read(sgm: Path, apf: Path, nlp: Any, dropped: Counter[str], check: bool = True) -> list[Sentence]:  # noqa: ANN401
    """Read the sentences of a document; `doc_id` is the name of its .sgm without the ending.

    Args:
        nlp: a spaCy pipeline that splits into tokens and sentences.
        dropped: receives the number of dropped items, by reason.
        check: refuse a mention whose text is not what stands at its offsets; else drop and count it.

    Raises:
        UserError: a file cannot be read, is not of ACE's form, or a mention is not where it should be.
    """
    text, units = _text(read_text(sgm), sgm)
    root = _annotation(apf)
    for kind in ("timex2", "value"):
        dropped[kind] += sum(1 for _ in root.iter(f"{kind}_mention"))
    named = list(_mentions(root, text, apf, dropped, check))
    mentions, links = {mention for _, mention in named}, list(_links(root, dict(named), dropped))
    kept = [unit for unit in units if unit.in_body or any(m.start < unit.end and unit.start < m.end for m in mentions)]
    dropped["header_line"] += len(units) - len(kept)
    cuts = {offset for mention in mentions for offset in (mention.start, mention.end)}
    tokens = [token for unit in kept for token in _tokens(text, unit, nlp, cuts)]
    return _sentences(tokens, mentions, links, sgm.stem)


# ---- text ---------------------------------------------------------------------------------------------------------


def _text(sgm: str, path: Path) -> tuple[str, list[_Unit]]:
    """Take the tags out: the text that offsets count in, and its paragraphs and lines that are not blank."""
    text, units, within, at = "", list[_Unit](), list[str](), 0
    for tag in _TAG.finditer(sgm):
        stretch = sgm[at : tag.start()]
        units += _units(stretch, len(text), within)
        text, at, name = text + stretch, tag.end(), tag[2].upper()
        if not tag[1] and not tag[0].endswith("/>"):
            within.append(name)
        elif name in within:  # what was left open inside ends with it
            within = within[: within.index(name)]
    units += _units(sgm[at:], len(text), within)
    if not any(unit.in_body for unit in units):
        raise UserError(f"{path}: nothing stands in <BODY> or <TEXT>; expected a document of the ACE 2005 release")
    return text + sgm[at:], units


def _units(stretch: str, offset: int, within: list[str]) -> Iterator[_Unit]:
    in_body = not _BODY.isdisjoint(within)
    is_line = not in_body or not _LINES.isdisjoint(within)
    ends = [m.start() for m in re.finditer("\n" if is_line else _PARAGRAPH_END, stretch)]
    for start, end in pairwise([0, *ends, len(stretch)]):
        start, end = _trim(stretch, start, end)
        if start < end:
            yield _Unit(offset + start, offset + end, is_line, in_body)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave out white space at both ends."""
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return start, start + len(part.strip())


def _tokens(text: str, unit: _Unit, nlp: Any, cuts: set[int]) -> Iterator[_Token]:  # noqa: ANN401  # spacy.Language
    """Split a unit, its wraps and other white space made single spaces, into tokens that no offset of `cuts` is in."""
    pieces = list(_PIECE.finditer(text, unit.start, unit.end))
    clean = "".join(map(_character, pieces))
    for token in nlp(clean):
        end = token.idx + len(token)
        inside = [i for i in range(token.idx + 1, end) if pieces[i].start() in cuts]
        for first, last in pairwise([token.idx, *inside, end]):
            opens = first == 0 or (first == token.idx and token.is_sent_start and not unit.is_line)
            yield _Token(pieces[first].start(), clean[first:last], opens)


def _character(piece: re.Match[str]) -> str:
    if piece[0].isspace():
        return " "
    return piece[0] if len(piece[0]) == 1 else html.unescape(piece[0].lower())


def _plain(text: str) -> str:
    """The text without white space and escapes, to be compared."""
    return "".join(map(_character, _PIECE.finditer(text))).replace(" ", "")


# ---- annotation ---------------------------------------------------------------------------------------------------


def _annotation(path: Path) -> ET.Element:
    text = read_text(path)
    # A bomb of entities that stand for one another needs declarations. External DTDs are never loaded.
    if "<!ENTITY" in text:
        raise UserError(f"{path}: declares XML entities, which no .apf.xml of the release does; take the LDC's file")
    try:
        root = ET.fromstring(text)  # noqa: S314  # see above
    except ET.ParseError as error:
        raise UserError(f"{path}: not XML: {error}; take the LDC's file") from None
    if root.tag != "source_file" or root.find("document") is None:
        raise UserError(f"{path}: expected <source_file> with a <document>; take the LDC's file")
    return root


def _mentions(
    root: ET.Element, text: str, path: Path, dropped: Counter[str], check: bool
) -> Iterator[tuple[str, _Mention]]:
    """Yield (id, mention) of each mention that is kept, and of its duplicates."""
    seen = set[_Mention]()
    for kind, element in ((entity.get("TYPE"), m) for entity in root.iter("entity") for m in entity.iter(_MENTION)):
        if kind not in ENTITY_TYPES:
            dropped["other_entity_type"] += 1
            continue
        name, start, end, head = _fields(element, path)
        found = text[start:end] if start >= 0 else ""
        if not _plain(found) or _plain(found) != _plain(head):
            if check:
                problem = f"characters {start} to {end - 1} of the .sgm are {found!r}, its head is {head!r}"
                raise UserError(f"{path}: {name}: {problem}; take the LDC's files, or drop such with check=false")
            dropped["text_differs"] += 1
            continue
        mention = _Mention(*_trim(text, start, end), kind)
        dropped["duplicate_mention"] += mention in seen
        seen.add(mention)
        yield name, mention


def _fields(mention: ET.Element, path: Path) -> tuple[str, int, int, str]:
    """Return the ID of a mention, and the start, end (exclusive) and text of its head."""
    charseq = mention.find("head/charseq")
    try:
        if charseq is not None:
            start, end = int(charseq.attrib["START"]), int(charseq.attrib["END"]) + 1
            return mention.attrib["ID"], start, end, charseq.text or ""
    except (KeyError, ValueError):
        pass
    what = "an ID and <head><charseq START=… END=…> with whole numbers"
    raise UserError(f"{path}: {_MENTION} {mention.get('ID', '')}: expected {what}; take the LDC's file")


def _links(root: ET.Element, by_id: dict[str, _Mention], dropped: Counter[str]) -> Iterator[_Link]:
    seen = set[_Link]()
    for relation in root.iter("relation"):
        for element in relation.iter("relation_mention"):
            kind = relation.get("TYPE", "")
            ids = {a.get("ROLE"): a.get("REFID", "") for a in element.iter("relation_mention_argument")}
            arguments = [by_id.get(ids.get(role, "")) for role in ("Arg-1", "Arg-2")]
            if kind not in RELATION_TYPES:
                dropped["other_relation_type"] += 1
            elif arguments[0] is None or arguments[1] is None:
                dropped["argument_not_kept"] += 1
            elif (link := _Link(kind, arguments[0], arguments[1])) in seen:
                dropped["duplicate_relation"] += 1
            else:
                seen.add(link)
                yield link


# ---- sentences ----------------------------------------------------------------------------------------------------


def _sentences(
    tokens: list[_Token], mentions: Iterable[_Mention], links: Iterable[_Link], doc_id: str
) -> list[Sentence]:
    starts = [token.start for token in tokens]
    spans = {m: Entity(bisect_left(starts, m.start), bisect_left(starts, m.end), m.type) for m in mentions}
    pairs = [(link.type, spans[link.head], spans[link.tail]) for link in links]
    whole = [(e.start, e.end) for e in spans.values()]
    whole += [(min(h.start, t.start), max(h.end, t.end)) for _, h, t in pairs]
    joined = {i for start, end in whole for i in range(start + 1, end)}
    bounds = [i for i, token in enumerate(tokens) if token.opens and i not in joined]
    sentences = []
    for index, (start, end) in enumerate(pairwise([*bounds, len(tokens)])):
        entities = sorted(e for e in spans.values() if start <= e.start < end)
        number = {entity: i for i, entity in enumerate(entities)}
        relations = sorted(Relation(kind, number[h], number[t]) for kind, h, t in pairs if h in number)
        shifted = tuple(Entity(e.start - start, e.end - start, e.type) for e in entities)
        words = tuple(token.text for token in tokens[start:end])
        sentences.append(Sentence(words, shifted, tuple(relations), doc_id, index))
    return sentences
