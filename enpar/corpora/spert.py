"""SpERT and Hugging Face JSON: a list, or lines, of `{"tokens", "entities", "relations", "orig_id"}`.

CoNLL04, ADE and most custom corpora come in this form. Token ends are exclusive, and relations index the entities.
"""

from collections.abc import Iterator
from pathlib import Path

from enpar.corpora.jsonl import lines, parse, read_text
from enpar.sentence import Sentence, from_json


def load(path: Path) -> list[Sentence]:
    """Read the sentences of a JSON list or of JSON lines.

    Raises:
        UserError: the file cannot be read, or an item is malformed; the message names file, line or index, and item.
    """
    text = read_text(path)
    items = _list(text, path) if text.lstrip().startswith("[") else lines(text, path)
    return [from_json(item, where) for where, item in items]


def _list(text: str, path: Path) -> Iterator[tuple[str, object]]:
    """Yield (`file: sentence index`, item) of each item of a JSON list; a list has no lines of its own to name."""
    items = parse(text, str(path))
    assert isinstance(items, list)  # the text begins with [
    for index, item in enumerate(items):
        yield f"{path}: sentence {index}", item
