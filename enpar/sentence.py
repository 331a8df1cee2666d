"""Sentence, Entity, Relation: the one type that flows through enpar, with its JSONL and Arrow forms."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from enpar.errors import UserError
from enpar.storage import Location

SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("sent_id", pa.int32()),
        ("tokens", pa.list_(pa.string())),
        ("entities", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string())]))),
        ("relations", pa.list_(pa.struct([("type", pa.string()), ("head", pa.int32()), ("tail", pa.int32())]))),
    ]
)


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A mention: tokens `start` to `end` (exclusive) of its sentence, and an entity type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True, order=True)
class Relation:
    """A typed, directed relation between two entities; `head` and `tail` index the sentence's entities."""

    type: str
    head: int
    tail: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """Tokens with the entities and relations among them; (`doc_id`, `sent_id`) says where it comes from."""

    tokens: tuple[str, ...]
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    doc_id: str = ""
    sent_id: int = 0

    def problem(self) -> str | None:
        """What is wrong with this sentence, naming the item; None for a well-formed one."""
        for i, entity in enumerate(self.entities):
            if not 0 <= entity.start < entity.end <= len(self.tokens):
                return (
                    f"entity {i} ({entity.type}) covers tokens [{entity.start}, {entity.end}), "
                    f"but the sentence has {len(self.tokens)} tokens"
                )
        for i, relation in enumerate(self.relations):
            for role, index in (("head", relation.head), ("tail", relation.tail)):
                if not 0 <= index < len(self.entities):
                    return (
                        f"relation {i} ({relation.type}) has {role} {index}, "
                        f"but the sentence has {len(self.entities)} entities (counted from 0)"
                    )
        return None


# ---- JSONL: the field names of SpERT and the Hugging Face corpora -------------------------------------------------

_NUMBERED = re.compile(r"(.*)#([1-9][0-9]{0,8})", re.DOTALL)


def to_json(sentence: Sentence) -> dict[str, Any]:
    """The JSONL form; `orig_id` is `doc_id`, with `#sent_id` behind it from a document's second sentence on."""
    return {
        "tokens": list(sentence.tokens),
        "entities": [{"type": e.type, "start": e.start, "end": e.end} for e in sentence.entities],
        "relations": [{"type": r.type, "head": r.head, "tail": r.tail} for r in sentence.relations],
        "orig_id": sentence.doc_id + (f"#{sentence.sent_id}" if sentence.sent_id else ""),
    }


def from_json(item: object, where: str) -> Sentence:
    """A checked Sentence from its JSON form.

    Args:
        item: what `json.loads` gave.
        where: the place to name in an error, such as `train.jsonl:7`.

    Raises:
        UserError: a field is missing or malformed, an entity lies outside the sentence, or a relation points nowhere.
    """
    if not isinstance(item, dict):
        raise UserError(f"{where}: expected an object with tokens, entities and relations, found {type(item).__name__}")
    orig_id = "" if item.get("orig_id") is None else str(item["orig_id"])
    if not _encodable(orig_id):
        raise UserError(f"{where}: orig_id: {_HALF}")
    match = _NUMBERED.fullmatch(orig_id)
    sentence = Sentence(
        tokens=tuple(_tokens(item, where)),
        entities=tuple(Entity(**fields) for fields in records(item, "entities", _ENTITY, where)),
        relations=tuple(Relation(**fields) for fields in records(item, "relations", _RELATION, where)),
        doc_id=match[1] if match else orig_id,
        sent_id=int(match[2]) if match else 0,
    )
    if problem := sentence.problem():
        raise UserError(f"{where}: {problem}")
    return sentence


_HALF = "half a surrogate pair; it is no character"
_ENTITY: dict[str, type] = {"type": str, "start": int, "end": int}
_RELATION: dict[str, type] = {"type": str, "head": int, "tail": int}


def _tokens(item: dict[str, Any], where: str) -> list[str]:
    tokens = item.get("tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{where}: tokens: expected a list of strings with at least one")
    if (broken := next((i for i, token in enumerate(tokens) if not _encodable(token)), None)) is not None:
        raise UserError(f"{where}: tokens[{broken}]: {_HALF}")
    return tokens


def _encodable(token: str) -> bool:
    return token.isascii() or not any("\ud800" <= character <= "\udfff" for character in token)


def records(item: dict[str, Any], field: str, kinds: dict[str, type], where: str) -> Iterator[dict[str, Any]]:
    """The named fields of each record of `item[field]`, checked; further fields are passed over."""
    records = item.get(field, [])
    if not isinstance(records, list):
        raise UserError(f"{where}: {field}: expected a list")
    for i, record in enumerate(records):
        for name, kind in kinds.items():
            value = record.get(name) if isinstance(record, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
                raise UserError(f"{where}: {field}[{i}]: {name} is {value!r}; each of {field} has {wanted}")
            if isinstance(value, str) and not _encodable(value):
                raise UserError(f"{where}: {field}[{i}]: {name}: {_HALF}")
        yield {name: record[name] for name in kinds}


def write_jsonl(path: Path, sentences: Iterable[Sentence]) -> None:
    """Write one sentence a line."""
    with path.open("w", encoding="utf-8") as file:
        for sentence in sentences:
            file.write(json_line(to_json(sentence)) + "\n")


def json_line(value: Any) -> str:  # noqa: ANN401 - whatever json takes
    """The value as JSON that is one line to every reader: some take NEL and the like for the end of one, too."""
    line = json.dumps(value, ensure_ascii=False)
    for character in "\x85\u2028\u2029":
        line = line.replace(character, f"\\u{ord(character):04x}")
    return line


# ---- Arrow and parquet --------------------------------------------------------------------------------------------


def to_table(sentences: Sequence[Sentence]) -> pa.Table:
    """The sentences as an Arrow table of `SCHEMA`."""
    rows = [
        {
            "doc_id": s.doc_id,
            "sent_id": s.sent_id,
            "tokens": s.tokens,
            "entities": [{"start": e.start, "end": e.end, "type": e.type} for e in s.entities],
            "relations": [{"type": r.type, "head": r.head, "tail": r.tail} for r in s.relations],
        }
        for s in sentences
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> Iterator[Sentence]:
    """The sentences of an Arrow table of `SCHEMA`."""
    for row in table.to_pylist():
        yield Sentence(
            tokens=tuple(row["tokens"]),
            entities=tuple(Entity(**entity) for entity in row["entities"]),
            relations=tuple(Relation(**relation) for relation in row["relations"]),
            doc_id=row["doc_id"],
            sent_id=row["sent_id"],
        )


def sentence_files(place: Path | Location) -> list[Location]:
    """The parquet files of a folder of sentences, in order.

    Raises:
        UserError: the folder is missing, or is not (yet) a finished folder of sentences.
    """
    folder = Location.of(place)
    if folder.kind() != "folder":
        raise UserError(f"{folder}: no such folder; `enpar annotate input=… output={folder}` makes it")
    if not (folder / "_SUCCESS").kind():
        raise UserError(f"{folder}: not a finished folder of sentences (no _SUCCESS); run its `enpar annotate` again")
    files = [file for file in folder.files() if fnmatch(file.name, "part-*.parquet")]
    for file in files:
        with _opened(file) as source:
            names = pq.read_schema(source).names
        if missing := set(SCHEMA.names) - set(names):
            raise UserError(f"{file}: not sentences: column {min(missing)} is missing")
    return files


def read_sentences(folder: Path | Location) -> Iterator[Sentence]:
    """The sentences of a finished folder, file by file."""
    for file in sentence_files(folder):
        with _opened(file) as source:
            table = pq.read_table(source, columns=SCHEMA.names)
        yield from from_table(table)


def count_sentences(files: Iterable[Location]) -> int:
    """How many sentences are in these files; only their footers are read."""
    count = 0
    for file in files:
        with _opened(file) as source:
            count += pq.read_metadata(source).num_rows
    return count


@contextmanager
def _opened(file: Location) -> Iterator[pa.NativeFile]:
    """The file, to be read; it is named if it cannot be."""
    try:
        with file.open() as source:
            yield source
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read ({reason}); run its `enpar annotate` again") from None
