"""A folder of brat's standoff files: NAME.ann annotates NAME.txt (https://brat.nlplab.org/standoff.html).

- `T` lines are entities. Pieces of one with nothing but white space between them are joined; an entity with other text
  between its pieces is no span of tokens, and is left out, with its relations. Of entities that share type and span,
  all are the first.
- `R` lines are relations, from Arg1 to Arg2. An `E` line gives a relation, called by the role, from the event's trigger
  to each of its arguments, where an argument that is an event is that event's trigger.
- `*` lines (equivalences) are relations of any number of entities without a direction, and are left out. `A`, `M`, `N`
  and `#` lines say more about an annotation, and are passed over.
- Offsets count the characters of the file; its line ends are kept as they are.
- Tokens and sentences are spaCy's (English rules). A token is cut where an entity begins or ends in it, and white space
  is no token. An empty line ends a sentence as well. A sentence does not end within an entity, or between the two
  entities of a relation.
- Where malformed items are left out, that is a line, or a document whose text cannot be read.
"""

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from enpar.corpora.offsets import Span, cut, locate
from enpar.corpora.reading import Rejects, lines
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence

LOOKS = "a folder with NAME.ann beside each NAME.txt"
_TEXT_BOUND = re.compile(r"(\S+) (\d+ \d+(?:;\d+ \d+)*)")
_KINDS = "TREAMN#*"


class _Line(NamedTuple):
    """An annotation: what stands before the first tab, between the tabs, and behind the second."""

    where: str
    id: str
    content: str
    text: str


class _Mention(NamedTuple):
    """An entity in characters."""

    start: int
    end: int
    type: str


class _Argument(NamedTuple):
    """A relation between two annotations, by their ids."""

    line: _Line
    type: str
    head: str
    tail: str


class _Link(NamedTuple):
    """A relation between two mentions, by their numbers."""

    type: str
    head: int
    tail: int


_Ids = dict[str, int | None]  # the mention that an id stands for; None for one that is left out


def fits(folder: Path) -> bool:
    """Whether there are annotations in a folder or below it."""
    return next(folder.rglob("*.ann"), None) is not None


def read(path: Path, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of all documents of a folder; `doc_id` is the file's path in it, without `.ann`.

    Raises:
        UserError: it is no folder, or a file or line in it is malformed; the message names file, line and item.
    """
    if not path.is_dir():
        problem = "a file" if path.exists() else "no such folder"
        raise UserError(f"{path}: {problem}; brat's format is {LOOKS}")
    for text in sorted(path.rglob("*.txt")):
        if not text.with_suffix(".ann").exists():
            rejects.reject("documents", "unannotated", f"{text}: no {text.stem}.ann beside it")
    for annotations in sorted(path.rglob("*.ann")):
        with rejects.item("documents"):
            name = annotations.relative_to(path).with_suffix("").as_posix()
            yield from _document(annotations, name, rejects)


def _document(path: Path, name: str, rejects: Rejects) -> Iterator[Sentence]:
    text = _decoded(path.with_suffix(".txt"))
    kinds: dict[str, list[_Line]] = {kind: [] for kind in _KINDS}
    for where, line in lines(_decoded(path), path):
        with rejects.item("annotations"):
            parsed = _parse(line, where)
            kinds[parsed.id[0]].append(parsed)
    for equivalence in kinds["*"]:
        rejects.reject("relations", "undirected", f"{equivalence.where}: {equivalence.content}")
    mentions, ids = _mentions(kinds["T"], text, rejects)
    arguments = [*_relations(kinds["R"], rejects), *_roles(kinds["E"], ids, rejects)]
    if not text.strip():
        rejects.reject("documents", "empty", f"{path.with_suffix('.txt')}: no text")
    yield from _sentences(text, name, mentions, _links(arguments, ids, rejects))


def _decoded(path: Path) -> str:
    try:
        # A byte order mark counts as a character of the text, but is none of its first token.
        return path.read_bytes().decode("utf-8").replace("\ufeff", " ")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; brat's format is {LOOKS}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None


# ---- Annotations ----------------------------------------------------------------------------------------------------


def _parse(line: str, where: str) -> _Line:
    id, _, rest = line.strip().partition("\t")
    content, _, text = rest.partition("\t")
    if id[0] not in _KINDS or not content:
        raise UserError(f"{where}: {line.strip()!r}; expected ID, tab, annotation; an ID begins with one of {_KINDS}")
    return _Line(where, id, content.strip(), text)


def _mentions(lines: Sequence[_Line], text: str, rejects: Rejects) -> tuple[list[_Mention], _Ids]:
    mentions: dict[_Mention, int] = {}
    ids: _Ids = {}
    for line in lines:
        with rejects.item("entities"):
            pieces, label = _pieces(line, text)
            start, end = pieces[0][0], pieces[-1][1]
            if any(text[a:b].strip() for (_, a), (b, _) in pairwise(pieces)):
                _name(line, None, ids)
                rejects.reject("entities", "discontinuous", f"{line.where}: {line.id}: {line.content}")
                continue
            mention = _Mention(start, end, label)
            if mention in mentions:
                rejects.reject("entities", "duplicate", f"{line.where}: {line.id}: {line.content}")
            _name(line, mentions.setdefault(mention, len(mentions)), ids)
    return list(mentions), ids


def _name(line: _Line, mention: int | None, ids: _Ids) -> None:
    if line.id in ids:
        raise UserError(f"{line.where}: {line.id} is given twice")
    ids[line.id] = mention


def _pieces(line: _Line, text: str) -> tuple[list[Span], str]:
    """The pieces of a text-bound annotation, in order and without white space at their ends, and its type."""
    if not (match := _TEXT_BOUND.fullmatch(line.content)):
        raise UserError(f"{line.where}: {line.id}: {line.content!r}; expected TYPE START END, or START END;START END …")
    pieces = sorted((int(start), int(end)) for start, end in (piece.split() for piece in match[2].split(";")))
    for start, end in pieces:
        if not (start < end <= len(text) and text[start:end].strip()):
            raise UserError(
                f"{line.where}: {line.id}: nothing at {start} to {end} of the text, which has {len(text)} characters"
            )
    found = " ".join(" ".join(text[start:end] for start, end in pieces).split())
    if line.text.strip() and found != " ".join(line.text.split()):
        raise UserError(
            f"{line.where}: {line.id}: the text has {found!r} there, the line {line.text!r}; offsets count the "
            "characters of the file, line ends as they are in it"
        )
    return [_trimmed(text, *piece) for piece in pieces], match[1]


def _trimmed(text: str, start: int, end: int) -> Span:
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())


def _relations(lines: Sequence[_Line], rejects: Rejects) -> Iterator[_Argument]:
    for line in lines:
        with rejects.item("relations"):
            label, _, rest = line.content.partition(" ")
            arguments = _arguments(line._replace(content=rest))
            if len(arguments) != 2:
                raise UserError(f"{line.where}: {line.id}: {line.content!r}; expected TYPE Arg1:ID Arg2:ID")
            # By name where the names say the order; brat lets people choose others.
            (_, head), (_, tail) = reversed(arguments) if arguments[0][0] == "Arg2" else arguments
            yield _Argument(line, label, head, tail)


def _roles(lines: Sequence[_Line], ids: _Ids, rejects: Rejects) -> list[_Argument]:
    """The arguments of events, once every event has been named as its trigger: events may precede those they name."""
    arguments = []
    for line in lines:
        with rejects.item("events"):
            (_, trigger), *roles = _arguments(line)
            _name(line, _resolve(trigger, ids, line.where), ids)
            arguments += [_Argument(line, role, line.id, name) for role, name in roles]
    return arguments


def _links(arguments: Sequence[_Argument], ids: _Ids, rejects: Rejects) -> list[_Link]:
    links: dict[_Link, None] = {}
    for line, label, *names in arguments:
        with rejects.item("relations"):
            head, tail = (_resolve(name, ids, line.where) for name in names)
            what = f"{line.where}: {line.id}: {label} {' '.join(names)}"
            if head is None or tail is None:
                rejects.reject("relations", "discontinuous", what)
                continue
            if (link := _Link(label, head, tail)) in links:
                rejects.reject("relations", "duplicate", what)
            links[link] = None
    return list(links)


def _arguments(line: _Line) -> list[tuple[str, str]]:
    """(name, id) of each NAME:ID, of which there is at least one."""
    pairs = [part.partition(":") for part in line.content.split()]
    if not pairs or not all(name and id for name, _, id in pairs):
        raise UserError(f"{line.where}: {line.id}: {line.content!r}; expected NAME:ID, with a space between several")
    return [(name, id) for name, _, id in pairs]


def _resolve(name: str, ids: _Ids, where: str) -> int | None:
    if name not in ids:
        raise UserError(f"{where}: {name} is no annotation of this file that could be read")
    return ids[name]


# ---- Sentences ------------------------------------------------------------------------------------------------------


def _sentences(text: str, name: str, mentions: Sequence[_Mention], links: Sequence[_Link]) -> Iterator[Sentence]:
    pieces, breaks = _split(text)
    tokens = cut(pieces, [(mention.start, mention.end) for mention in mentions])
    spans = [locate(tokens, (mention.start, mention.end)) for mention in mentions]
    ends = [(spans[link.head], spans[link.tail]) for link in links]
    joined = [*spans, *((min(a[0], b[0]), max(a[1], b[1])) for a, b in ends)]
    within = {token for start, end in joined for token in range(start + 1, end)}
    starts = sorted({bisect_left(tokens, (offset,)) for offset in breaks} - within - {len(tokens)})
    owner = [bisect_right(starts, start) - 1 for start, _ in spans]
    for sent_id, (start, end) in enumerate(pairwise([*starts, len(tokens)])):
        mine = [i for i, sentence in enumerate(owner) if sentence == sent_id]
        place = {mention: i for i, mention in enumerate(mine)}
        yield Sentence(
            tuple(text[a:b] for a, b in tokens[start:end]),
            tuple(Entity(spans[i][0] - start, spans[i][1] - start, mentions[i].type) for i in mine),
            tuple(Relation(link.type, place[link.head], place[link.tail]) for link in links if link.head in place),
            name,
            sent_id,
        )


def _split(text: str) -> tuple[list[Span], list[int]]:
    """Tokens in characters, and offsets at which a sentence begins; white space is no token."""
    nlp = _splitter()
    with nlp.memory_zone():  # else the vocabulary grows with every document
        doc = nlp(text)
        tokens = [(token.idx, token.idx + len(token.text)) for token in doc if not token.is_space]
        starts = [sentence.start_char for sentence in doc.sents]
    return tokens, [0, *starts, *(match.end() for match in re.finditer(r"\n\s*\n", text))]


@cache
def _splitter() -> Any:  # noqa: ANN401 - a spacy.Language
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.max_length = sys.maxsize
    return nlp
