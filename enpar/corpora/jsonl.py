"""Our JSON lines: a Sentence a line, as `enpar evaluate` and `enpar extract` write them."""

import json
from collections.abc import Iterator
from pathlib import Path

from enpar.errors import UserError
from enpar.sentence import Sentence, from_json


def load(path: Path) -> list[Sentence]:
    """Read the sentences of a file of JSON lines.

    Raises:
        UserError: the file cannot be read, or a line is malformed; the message names file, line and item.
    """
    return [from_json(item, where) for where, item in lines(read_text(path), path)]


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


def lines(text: str, path: Path | str) -> Iterator[tuple[str, object]]:
    """Yield (`file:line`, JSON value) of each line that is not blank; lines end at a newline only.

    Raises:
        UserError: a line is not JSON.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", parse(line, f"{path}:{number}")


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
    return value
