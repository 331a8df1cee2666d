"""Raw text: the documents of an input, how they are cut into chunks of work, and how a chunk is read.

A document is an identifier and a text. It comes from a `.txt` file (the whole file), from a line of `.jsonl` or
`.jsonl.gz` (an object with the string `text`, and perhaps `id` or `doc_id`), or from a row of `.parquet` (a string
column `text`, and perhaps `id` or `doc_id`). Blank lines in JSONL are no documents: they are numbered, not counted.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from enpar.errors import UserError
from enpar.files import find, kind_of, open_bytes, readable

_ID_COLUMNS = ("id", "doc_id")
_SURROGATE = re.compile("[\ud800-\udfff]")
_Parse = Callable[[], tuple[str | None, str]]  # gives identifier and text of a record, or raises _Unfit
_Row = tuple[pa.Scalar | None, pa.Scalar]


@dataclass(frozen=True, slots=True)
class Slice:
    """`count` successive documents of a file, from line (or row) `first` on, counted from 1.

    `offset` is that line's place in bytes, for `.gz` in the unpacked stream; it is 0 for parquet.
    """

    path: str
    name: str
    first: int
    count: int
    offset: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A unit of work: slices of one or more files."""

    id: int
    slices: tuple[Slice, ...]

    @property
    def documents(self) -> int:
        """How many documents are to be read."""
        return sum(piece.count for piece in self.slices)


@dataclass(frozen=True, slots=True)
class Document:
    """A text and its identifier; `file` and `line` say where it was read."""

    doc_id: str
    text: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that cannot be used; `reason` is one of a few, to be counted, and `detail` is for people."""

    file: str
    line: int
    reason: str
    detail: str


class _Unfit(Exception):  # noqa: N818  # not an error of the program
    """Carries reason and detail of a document that is to be rejected."""


# ---- Planning -----------------------------------------------------------------------------------------------------


def plan(input: str, documents_per_chunk: int) -> list[Chunk]:
    """Cut an input into chunks of equally many documents (fewer in the last), whatever its files' sizes.

    JSONL is read through once for that, to find where lines begin; of parquet only the footers are read.

    Raises:
        UserError: as `find`; or a file is corrupt, or lacks the column `text`, or there is no document at all.
    """
    places = ((file, line, offset) for file in find(input) for line, offset in _places(file.path))
    chunks: list[Chunk] = []
    while batch := list(islice(places, documents_per_chunk)):
        slices = []
        for file, group in groupby(batch, key=lambda place: place[0]):
            (_, first, offset), *rest = group
            slices.append(Slice(file.path, file.name, first, 1 + len(rest), offset))
        chunks.append(Chunk(len(chunks), tuple(slices)))
    if not chunks:
        raise UserError(f"input: {input}: no documents; its files hold no line and no row")
    return chunks


def _places(path: str) -> Iterator[tuple[int, int]]:
    """Line (or row) and byte offset of every document of a file."""
    kind = kind_of(path)
    with readable(path):
        if kind == ".txt":
            yield 1, 0
        elif kind == ".parquet":
            _columns(pq.read_schema(path), path)
            yield from ((row, 0) for row in range(1, pq.read_metadata(path).num_rows + 1))
        else:
            offset = 0
            with open_bytes(path) as file:
                for line, raw in enumerate(file, 1):
                    if raw.strip():
                        yield line, offset
                    offset += len(raw)


# ---- Reading ------------------------------------------------------------------------------------------------------


def apart(output: Path, input: str, chunks: Sequence[Chunk]) -> None:
    """See that input and output do not hold each other: the next run would read what this one wrote.

    Raises:
        UserError: one lies in the other.
    """
    files = (Path(piece.path).resolve() for chunk in chunks for piece in chunk.slices)
    inside = next((file for file in files if file.is_relative_to(output.resolve())), None)
    if inside or output.resolve().is_relative_to(Path(input).resolve()):
        raise UserError(f"output: {output} and the input {inside or input} overlap; name a folder apart from it")


class Reader:
    """Reads one chunk after another.

    It keeps the last file open: `.gz` and parquet cannot be entered in the middle, so that reading each chunk anew
    would take time quadratic in the size of the file.
    """

    def __init__(self, max_characters: int) -> None:
        self._max_characters = max_characters
        self._lines_of: tuple[str, IO[bytes] | None] = ("", None)
        self._rows_of: tuple[str, int, Iterator[_Row]] = ("", 0, iter(()))

    def read(self, chunk: Chunk) -> Iterator[Document | Rejected]:
        """Every document of a chunk once, in order, or why it is rejected.

        The reasons are "empty" (nothing but white space), "not UTF-8", "not JSON", "no text" (no object, or no string
        `text` in it) and "too long".

        Raises:
            UserError: a file is gone, has changed since the plan was made, or is corrupt.
        """
        for piece in chunk.slices:
            count = 0
            for line, parse in self._records(piece):
                count += 1
                yield self._document(piece, line, parse)
            if count != piece.count:
                raise UserError(f"input: {piece.path}: changed while it was read; let it be finished, then begin anew")

    def _records(self, piece: Slice) -> Iterator[tuple[int, _Parse]]:
        kind = kind_of(piece.path)
        if kind == ".parquet":
            return ((line, partial(_parse_row, *row)) for line, row in self._rows(piece))
        if kind == ".txt":
            return iter([(1, partial(_parse_text, piece))])
        return ((line, partial(_parse_json, raw)) for line, raw in self._lines(piece))

    def _document(self, piece: Slice, line: int, parse: _Parse) -> Document | Rejected:
        try:
            given, text = parse()
            if not text.strip():
                raise _Unfit("empty", f"{len(text)} characters, none of them visible")
            if len(text) > self._max_characters:
                raise _Unfit("too long", f"{len(text)} characters; max_characters is {self._max_characters}")
        except _Unfit as unfit:
            return Rejected(piece.name, line, *unfit.args)
        return Document(given or f"{piece.name}:{line}", text, piece.name, line)

    def _lines(self, piece: Slice) -> Iterator[tuple[int, bytes]]:
        with readable(piece.path):
            path, file = self._lines_of
            if file is None or path != piece.path:
                if file is not None:
                    file.close()
                self._lines_of = piece.path, (file := open_bytes(piece.path))
            file.seek(piece.offset)
            filled = ((line, raw) for line, raw in enumerate(iter(file.readline, b""), piece.first) if raw.strip())
            yield from islice(filled, piece.count)

    def _rows(self, piece: Slice) -> Iterator[tuple[int, _Row]]:
        with readable(piece.path):
            path, row, rows = self._rows_of
            if path != piece.path or row > piece.first:
                row, rows = piece.first, _scan(piece.path, piece.first)
            self._rows_of = piece.path, piece.first + piece.count, rows
            yield from enumerate(islice(rows, piece.first - row, piece.first - row + piece.count), piece.first)


def _columns(schema: pa.Schema, path: str) -> tuple[str, str | None]:
    """The names of the columns of text and, where there is one, of identifiers."""
    strings = {field.name for field in schema if _is_string(field.type)}
    if "text" not in strings:
        raise UserError(f"input: {path}: no column `text` of strings; it has {', '.join(schema.names)}")
    return "text", next((name for name in _ID_COLUMNS if name in strings), None)


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _scan(path: str, first: int) -> Iterator[_Row]:
    """Identifier and text of the rows from `first` on, as Arrow scalars: one is malformed, not a whole batch."""
    with pq.ParquetFile(path) as file:
        text, name = _columns(file.schema_arrow, path)
        groups, skip = list(range(file.num_row_groups)), first - 1
        while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
            skip -= file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(1024, row_groups=groups, columns=[c for c in (text, name) if c]):
            for row in range(min(skip, len(batch)), len(batch)):
                yield (batch[name][row] if name else None), batch[text][row]
            skip = max(0, skip - len(batch))


def _parse_text(piece: Slice) -> tuple[str, str]:
    with readable(piece.path):
        return piece.name, _decode(Path(piece.path).read_bytes())


def _parse_json(raw: bytes) -> tuple[str | None, str]:
    try:
        item = json.loads(_decode(raw))
    except json.JSONDecodeError as error:
        raise _Unfit("not JSON", f"{error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, or brackets nested too deeply
        raise _Unfit("not JSON", str(error)) from None
    if not isinstance(item, dict):
        raise _Unfit("no text", f"the line is a {type(item).__name__}, not an object")
    if not isinstance(item.get("text"), str):
        raise _Unfit("no text", f"text is a {type(item['text']).__name__}" if "text" in item else "no key text")
    given = next((item[key] for key in _ID_COLUMNS if isinstance(item.get(key), str)), None)
    return _encodable(given or "") or None, _encodable(item["text"])


def _parse_row(*row: pa.Scalar | None) -> tuple[str | None, str]:
    try:
        given, text = (None if scalar is None else scalar.as_py() for scalar in row)
    except UnicodeDecodeError as error:
        raise _Unfit("not UTF-8", f"{error.reason} at byte {error.start + 1}") from None
    if text is None:
        raise _Unfit("no text", "text is null")
    return given, text


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")  # a byte order mark is no part of the text
    except UnicodeDecodeError as error:
        raise _Unfit("not UTF-8", f"{error.reason} at byte {error.start + 1}") from None


def _encodable(text: str) -> str:
    """JSON may escape half of a surrogate pair, which is no character and cannot be written again."""
    if half := _SURROGATE.search(text):
        raise _Unfit("not UTF-8", f"an unpaired surrogate, \\u{ord(half[0]):04x}, at character {half.start() + 1}")
    return text
