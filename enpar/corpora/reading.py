"""What all formats share: the text and lines of a file, JSON with errors that say where, and items left out."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from enpar.errors import UserError

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes it
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class Rejected(NamedTuple):
    """Something of a corpus that is left out.

    Args:
        unit: what it is: documents, sentences, entities or relations.
        reason: one of a few, to be counted; `malformed` is a mistake of the file, the others are the format's right.
        detail: file, line and item, for people.
    """

    unit: str
    reason: str
    detail: str


class Rejects:
    """Takes what is left out; the one place that knows whether a malformed item ends the reading.

    Args:
        skip: leave malformed items out, in place of raising.
    """

    def __init__(self, skip: bool = False) -> None:
        self._skip = skip
        self.items: list[Rejected] = []

    @contextmanager
    def item(self, unit: str) -> Iterator[None]:
        """Reads one item; a UserError in the block is raised, or the item is left out.

        Raises:
            UserError: the item is malformed, and malformed items are not left out.
        """
        before = len(self.items)
        try:
            yield
        except UserError as error:
            if not self._skip:
                raise
            del self.items[before:]  # they went with it
            self.reject(unit, "malformed", str(error))

    def reject(self, unit: str, reason: str, detail: str) -> None:
        """Leave out what is well-formed, but no Sentence can hold."""
        self.items.append(Rejected(unit, reason, detail))


def read_text(path: Path) -> str:
    """Read the text of a corpus file.

    Raises:
        UserError: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    except FileNotFoundError:
        remedy = "check the path, or `enpar fetch name=sample-corpus output=…` writes a small labelled corpus"
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name one file of the corpus") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None


def lines(text: str, path: Path | str) -> Iterator[tuple[str, str]]:
    """Yield (`file:line`, line) of each line that is not blank; lines end at a newline only."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line


def json_lines(path: Path, rejects: Rejects, unit: str) -> Iterator[tuple[str, object]]:
    """Yield (`file:line`, JSON value) of each line that is not blank.

    Raises:
        UserError: the file cannot be read, or a line is not JSON.
    """
    for where, line in lines(read_text(path), path):
        with rejects.item(unit):
            value = parse(line, where)
            if _HALF.search(line) and _HALF_PAIR.search(json.dumps(value, ensure_ascii=False)):
                raise UserError(f"{where}: half a surrogate pair; it is no character")
            yield where, value


def parse(text: str, where: str) -> object:
    """Parse JSON, with an error that says where.

    Raises:
        UserError: `text` is not JSON.
    """
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}" if "\n" in text else f"character {error.colno}"
        raise UserError(f"{where}: not JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise UserError(f"{where}: not a corpus: nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise UserError(f"{where}: not JSON: {error}") from None
    return value


def records(item: dict[str, object], field: str, where: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield (`where: field[i]`, object) of a list of objects.

    Raises:
        UserError: the field is no such list.
    """
    values = item.get(field)
    if not isinstance(values, list):
        raise UserError(f"{where}: {field}: expected a list, found {_kind(values)}")
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise UserError(f"{where}: {field}[{i}]: expected an object, found {_kind(value)}")
        yield f"{where}: {field}[{i}]", value


def string(item: dict[str, object], field: str, where: str) -> str:
    """A field that is text with something visible in it.

    Raises:
        UserError: it is not.
    """
    value = item.get(field)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {field} is {value!r}; expected text")
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
