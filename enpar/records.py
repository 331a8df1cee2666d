"""A document as it stands in its file: the text, and whatever comes with it, of a file, a line or a row."""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

if TYPE_CHECKING:
    from enpar.given import Given

ID_KEYS = ("id", "doc_id")
_MARK = "\ufeff"  # a byte order mark is no part of a text
_SURROGATE = re.compile("[\ud800-\udfff]")
ReadItem = Callable[[dict[str, Any]], "tuple[str, Given | None]"]
"""Reads a JSON object: its text, and what is known of it already; or raises `Unfit`."""


class Unfit(Exception):  # noqa: N818  # not an error of the program
    """Carries reason and detail of a document that is to be rejected."""


class Record(NamedTuple):
    """A document without its place; the identifier may be missing. See `Document`."""

    doc_id: str | None
    text: str
    start: int = 0
    given: "Given | None" = None


def text_of(item: dict[str, Any]) -> tuple[str, None]:
    """The text of a JSON object, and nothing else.

    Raises:
        Unfit: it has none.
    """
    if not isinstance(item.get("text"), str):
        raise Unfit("no text", f"text is a {type(item['text']).__name__}" if "text" in item else "no key text")
    return encodable(item["text"]), None


def encodable(text: str) -> str:
    """The text; JSON may escape half of a surrogate pair, which is no character and cannot be written again.

    Raises:
        Unfit: there is such a half.
    """
    if half := _SURROGATE.search(text):
        raise Unfit("not UTF-8", f"an unpaired surrogate, \\u{ord(half[0]):04x}, at character {half.start() + 1}")
    return text


def parse_text(name: str, raw: bytes) -> Record:
    """A whole file of text; a byte order mark before it is counted, not kept.

    Raises:
        Unfit: it is not UTF-8.
    """
    text = _decode(raw)
    return Record(name, text.removeprefix(_MARK), int(text.startswith(_MARK)))


def parse_json(raw: bytes, read_item: ReadItem) -> Record:
    """A line of JSONL.

    Raises:
        Unfit: it is no such line, or as `read_item`.
    """
    try:
        item = json.loads(_decode(raw).removeprefix(_MARK))
    except json.JSONDecodeError as error:
        raise Unfit("not JSON", f"{error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, or brackets nested too deeply
        raise Unfit("not JSON", str(error)) from None
    if not isinstance(item, dict):
        raise Unfit("no text", f"the line is a {type(item).__name__}, not an object")
    text, given = read_item(item)
    doc_id = next((item[key] for key in ID_KEYS if isinstance(item.get(key), str)), "")
    return Record(encodable(doc_id) or None, text, given.start if given else 0, given)


def parse_row(*row: pa.Scalar | None) -> Record:
    """Identifier and text of a row of parquet.

    Raises:
        Unfit: the text is missing, or one of both is not UTF-8.
    """
    try:
        doc_id, text = (None if scalar is None else scalar.as_py() for scalar in row)
    except UnicodeDecodeError as error:
        raise Unfit("not UTF-8", f"{error.reason} at byte {error.start + 1}") from None
    if text is None:
        raise Unfit("no text", "text is null")
    return Record(doc_id, text)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unfit("not UTF-8", f"{error.reason} at byte {error.start + 1}") from None
