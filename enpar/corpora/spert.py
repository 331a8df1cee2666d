"""SpERT and Hugging Face JSON: a list, or lines, of `{"tokens", "entities", "relations", "orig_id"}`.

CoNLL04, ADE and most custom corpora come in this form. Token ends are exclusive, and relations index the entities.
"""

from collections.abc import Iterator
from pathlib import Path

from enpar.corpora import jsonl
from enpar.corpora.reading import Rejects, parse, read_text
from enpar.sentence import Sentence, from_json

LOOKS = 'a list [{"tokens", "entities", "relations"}, …]'


def read(path: Path, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of a JSON list or of JSON lines.

    Raises:
        UserError: the file cannot be read, or an item is malformed; the message names file, line or index, and item.
    """
    text = read_text(path)
    if not text.lstrip().startswith("["):
        yield from jsonl.read(path, rejects)
        return
    items = parse(text, str(path))
    assert isinstance(items, list)  # the text begins with [
    # A list has no lines of its own to name.
    for index, item in enumerate(items):
        with rejects.item("sentences"):
            yield from_json(item, f"{path}: sentence {index}")
