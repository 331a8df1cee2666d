"""Labelled corpora, each read into a list of Sentences: one file a format, one line in `FORMATS`."""

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

from enpar.corpora import jsonl, scierc, spert
from enpar.errors import UserError
from enpar.sentence import Entity, Sentence

FORMATS: dict[str, Callable[[Path], list[Sentence]]] = {
    "jsonl": jsonl.load,
    "scierc": scierc.load,
    "spert": spert.load,
}


def load(format: str, path: Path) -> list[Sentence]:
    """Read one file of a labelled corpus; every gold item of it is kept.

    Raises:
        UserError: the format is unknown, or the file is missing, empty or malformed.
    """
    if format not in FORMATS:
        raise UserError(f"corpus.format: no format {format!r}; known are {', '.join(FORMATS)}")
    if not (sentences := FORMATS[format](path)):
        raise UserError(f"{path}: holds no sentences; a {format} file has at least one")
    return sentences


def sample_corpus() -> Path:
    """Return the folder of the corpus that comes with the package: train.jsonl, dev.jsonl and test.jsonl."""
    return Path(str(files("enpar.corpora") / "samples"))


def describe(sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Count what a corpus holds, to hold against published figures.

    Returns:
        documents, sentences, entities, relations, overlapping_entity_pairs (pairs that share a token) and
        longest_sentence (in tokens) as numbers; entity_types and relation_types as sorted lists.
    """
    return {
        "documents": len({s.doc_id for s in sentences}),
        "sentences": len(sentences),
        "entities": sum(len(s.entities) for s in sentences),
        "relations": sum(len(s.relations) for s in sentences),
        "overlapping_entity_pairs": sum(_overlaps(s.entities) for s in sentences),
        "entity_types": sorted({e.type for s in sentences for e in s.entities}),
        "relation_types": sorted({r.type for s in sentences for r in s.relations}),
        "longest_sentence": max((len(s.tokens) for s in sentences), default=0),
    }


def _overlaps(entities: Iterable[Entity]) -> int:
    return sum(a.start < b.end and b.start < a.end for a, b in combinations(entities, 2))
