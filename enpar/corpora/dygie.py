"""DyGIE++ JSON: SciERC's documents, in which `ner` and `relations` may be missing, or null for a document or sentence.

(https://github.com/dwadden/dygiepp/blob/master/doc/data.md.) Token offsets count from the beginning of the document as
it stands. `_sentence_start` says where its sentences were in what it was cut from, and is passed over, as DyGIE++ does;
so are `clusters`, `events` and whatever else is no entity or relation. All else is as in `scierc`.
"""

from collections.abc import Iterator
from pathlib import Path

from enpar.corpora import scierc
from enpar.corpora.reading import Rejects, json_lines
from enpar.sentence import Sentence

LOOKS = "as scierc, with ner or relations missing or null"


def fits(item: dict[str, object]) -> bool:
    """Whether an item of a file is of this form, and not SciERC's as well."""
    return "doc_key" in item and "sentences" in item and (not scierc.fits(item) or bool(item.keys() & _MORE))


_MORE = {"dataset", "events", "weight", "_sentence_start", "sentence_start"}


def read(path: Path, rejects: Rejects) -> Iterator[Sentence]:
    """Read the sentences of a file of DyGIE++ documents.

    Raises:
        UserError: the file cannot be read, or an item is malformed; the message names file, line and item.
    """
    for where, item in json_lines(path, rejects, "documents"):
        with rejects.item("documents"):
            yield from scierc.document(_completed(item), where, rejects)


def _completed(item: object) -> object:
    """The document with an empty list for all that is left out."""
    if not isinstance(item, dict) or not isinstance(item.get("sentences"), list):
        return item
    return item | {field: _filled(item.get(field), len(item["sentences"])) for field in ("ner", "relations")}


def _filled(value: object, size: int) -> object:
    if value is None:
        return [[]] * size
    return [[] if part is None else part for part in value] if isinstance(value, list) else value
