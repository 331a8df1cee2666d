"""Our JSON lines: a Sentence a line, as `enpar evaluate` and `enpar extract` write them."""

from collections.abc import Iterator
from pathlib import Path

from enpar.corpora.reading import Rejects, json_lines
from enpar.sentence import Sentence, from_json

LOOKS = 'a line {"tokens", "entities", "relations"} a sentence'


def fits(item: dict[str, object]) -> bool:
    """Whether an item of a file is of this form."""
    return "tokens" in item


def read(path: Path, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of a file of JSON lines.

    Raises:
        UserError: the file cannot be read, or a line is malformed; the message names file, line and item.
    """
    for where, item in json_lines(path, rejects, "sentences"):
        with rejects.item("sentences"):
            yield from_json(item, where)
