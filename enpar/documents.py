"""Raw text: the documents of an input, how they are cut into chunks of work, and how a chunk is read.

A document is an identifier and a text. It comes from a `.txt` file (the whole file), from a line of `.jsonl` or
`.jsonl.gz` (an object with the string `text`, and perhaps `id` or `doc_id`), or from a row of `.parquet` (a string
column `text`, and perhaps `id` or `doc_id`). Blank lines in JSONL are no documents: they are numbered, not counted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from enpar.errors import UserError
from enpar.files import find, kind_of, open_bytes, readable
from enpar.records import ID_KEYS, ReadItem, Record, Unfit, parse_json, parse_row, parse_text, text_of
from enpar.storage import Location

if TYPE_CHECKING:
    from enpar.given import Given

_Parse = Callable[[], Record]  # or raises Unfit
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
    """A text and its identifier.

    Args:
        doc_id: the identifier.
        text: the text.
        file: where it was read.
        line: its line or row there, counted from 1.
        start: characters that stand before the text in its file: a byte order mark, or what `given` says.
        given: what is known of it already.
    """

    doc_id: str
    text: str
    file: str
    line: int
    start: int = 0
    given: "Given | None" = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that cannot be used; `reason` is one of a few, to be counted, and `detail` is for people."""

    file: str
    line: int
    reason: str
    detail: str


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
            with Location(path).open() as source, pq.ParquetFile(source) as file:
                _columns(file.schema_arrow, path)
                yield from ((row, 0) for row in range(1, file.metadata.num_rows + 1))
        else:
            offset = 0
            with open_bytes(path) as file:
                for line, raw in enumerate(file, 1):
                    if raw.strip():
                        yield line, offset
                    offset += len(raw)


# ---- Reading ------------------------------------------------------------------------------------------------------


def apart(output: Location, input: str, chunks: Sequence[Chunk]) -> None:
    """See that input and output do not hold each other: the next run would read what this one wrote.

    Raises:
        UserError: one lies in the other.
    """
    files = dict.fromkeys(Location(piece.path) for chunk in chunks for piece in chunk.slices)
    inside = next((file for file in files if file.within(output)), None)
    if inside or output.within(Location.of(input)):
        raise UserError(f"output: {output} and the input {inside or input} overlap; name a folder apart from it")


class Reader:
    """Reads one chunk after another.

    It keeps the last file open: `.gz` and parquet cannot be entered in the middle, so that reading each chunk anew
    would take time quadratic in the size of the file.

    Args:
        max_characters: longer documents are rejected.
        read_item: reads a JSON object: its text, and what is known of it already; or raises `Unfit`.
    """

    def __init__(self, max_characters: int, read_item: ReadItem = text_of) -> None:
        self._max_characters, self._read_item = max_characters, read_item
        self._lines_of: tuple[str, IO[bytes] | None] = ("", None)
        self._rows_of: tuple[str, int, Iterator[_Row]] = ("", 0, iter(()))

    def read(self, chunk: Chunk) -> Iterator[Document | Rejected]:
        """Every document of a chunk once, in order, or why it is rejected.

        The reasons are "empty" (nothing but white space), "not UTF-8", "not JSON", "no text" (no object, or no string
        `text` in it), "too long", and those of `read_item`.

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
            return ((line, partial(parse_row, *row)) for line, row in self._rows(piece))
        if kind == ".txt":
            return iter([(1, partial(_read_text, piece))])
        return ((line, partial(parse_json, raw, self._read_item)) for line, raw in self._lines(piece))

    def _document(self, piece: Slice, line: int, parse: _Parse) -> Document | Rejected:
        try:
            doc_id, text, start, given = parse()
            if not text.strip():
                raise Unfit("empty", f"{len(text)} characters, none of them visible")
            if len(text) > self._max_characters:
                raise Unfit("too long", f"{len(text)} characters; max_characters is {self._max_characters}")
        except Unfit as unfit:
            return Rejected(piece.name, line, *unfit.args)
        return Document(doc_id or f"{piece.name}:{line}", text, piece.name, line, start, given)

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
    return "text", next((name for name in ID_KEYS if name in strings), None)


def _is_string(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _scan(path: str, first: int) -> Iterator[_Row]:
    """Identifier and text of the rows from `first` on, as Arrow scalars: one is malformed, not a whole batch."""
    with Location(path).open() as source, pq.ParquetFile(source) as file:
        text, name = _columns(file.schema_arrow, path)
        groups, skip = list(range(file.num_row_groups)), first - 1
        while groups and skip >= file.metadata.row_group(groups[0]).num_rows:
            skip -= file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(1024, row_groups=groups, columns=[c for c in (text, name) if c]):
            for row in range(min(skip, len(batch)), len(batch)):
                yield (batch[name][row] if name else None), batch[text][row]
            skip = max(0, skip - len(batch))


def _read_text(piece: Slice) -> Record:
    with readable(piece.path), Location(piece.path).open() as file:
        return parse_text(piece.name, file.read())
