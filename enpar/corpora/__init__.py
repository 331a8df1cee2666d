"""Labelled corpora, each read into a list of Sentences: one file a format, one line in `FORMATS`."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations, islice
from pathlib import Path
from typing import Any, Protocol

from enpar.config import Corpus
from enpar.corpora import brat, dygie, enpar_json, jsonl, nyt, scierc, spert
from enpar.corpora.reading import Rejected, Rejects, lines, parse, read_text
from enpar.errors import UserError
from enpar.sentence import Entity, Sentence, json_line
from enpar.storage import atomic

log = logging.getLogger("enpar")


class Format(Protocol):
    """What a format's module has."""

    LOOKS: str
    """What it looks like, for people."""

    def read(self, path: Path, rejects: Rejects) -> Iterator[Sentence]:
        """Read the sentences of a file (or folder)."""


FORMATS: dict[str, Format] = {
    "jsonl": jsonl,
    "spert": spert,
    "scierc": scierc,
    "dygie": dygie,
    "enpar": enpar_json,
    "nyt": nyt,
    "brat": brat,
}
# What tells a format by an object of the file; where one item fits several, the one that says more comes first.
_BY_ITEM: dict[str, Callable[[dict[str, object]], bool]] = {
    "jsonl": jsonl.fits,
    "dygie": dygie.fits,
    "scierc": scierc.fits,
    "enpar": enpar_json.fits,
    "nyt": nyt.fits,
}
_ITEMS_LOOKED_AT = 1000
_UNITS = ("documents", "sentences", "entities", "relations")


@dataclass(frozen=True)
class Split:
    """What was read of one split of a corpus.

    Args:
        path: the file or folder.
        format: one of `FORMATS`.
        recognised: whether the format was told by what the file holds.
        sentences: what is kept.
        rejected: what is left out.
    """

    path: Path
    format: str
    recognised: bool
    sentences: list[Sentence]
    rejected: list[Rejected]

    def figures(self) -> dict[str, Any]:
        """What was read, kept and rejected, for a result.

        Returns:
            format; `read` and `kept`: documents, sentences, entities and relations; `rejected`: counts by reason;
            and the rest of `describe`. What lies in a rejected document or sentence is not counted further.
        """
        rest = describe(self.sentences)
        kept = {unit: rest.pop(unit) for unit in _UNITS}
        read = {unit: kept[unit] + sum(item.unit == unit for item in self.rejected) for unit in _UNITS}
        rejected = dict(Counter(f"{item.reason} {item.unit}" for item in sorted(self.rejected)))
        return {"format": self.format, "read": read, "kept": kept, "rejected": rejected, **rest}


def read(path: Path, format: str | None = None, skip: bool = False) -> Split:
    """Read one file (or folder, if the format has them) of a labelled corpus.

    Args:
        path: the file or folder.
        format: one of `FORMATS`; recognised by default.
        skip: leave malformed items out, in place of raising.

    Raises:
        UserError: the format is unknown, or the file is missing, empty or malformed.
    """
    rejects = Rejects(skip)
    name = format or recognise(path)
    if name not in FORMATS:
        raise UserError(f"corpus.format: no format {name!r}; known are {', '.join(FORMATS)}")
    sentences = list(FORMATS[name].read(path, rejects))
    if not sentences:
        left = f" that could be kept ({rejects.items[0].detail})" if rejects.items else ""
        raise UserError(f"{path}: holds no sentences{left}; {name} is {FORMATS[name].LOOKS}")
    return Split(path, name, format is None, sentences, rejects.items)


def load(format: str | None, path: Path) -> list[Sentence]:
    """Read the sentences of one file of a labelled corpus.

    Raises:
        UserError: as `read`.
    """
    return read(path, format).sentences


def read_splits(paths: Mapping[str, Path], corpus: Corpus) -> dict[str, Split]:
    """Read the splits of a corpus, and say what was read, kept and rejected.

    Raises:
        UserError: as `read`.
    """
    splits = {}
    for name, path in paths.items():
        splits[name] = read(path, corpus.format, corpus.on_error == "skip")
        say(name, splits[name])
    return splits


def say(name: str, split: Split) -> None:
    """Log how a split was read, and what it holds."""
    figures = split.figures()
    read, kept = figures["read"], figures["kept"]
    rejected = ", ".join(f"{count:,} {what}" for what, count in figures["rejected"].items()) or "nothing"
    log.info(
        f"{name}: {split.path}: {split.format}{' (recognised)' if split.recognised else ''}; read "
        f"{', '.join(f'{read[unit]:,} {unit}' for unit in _UNITS)}; rejected {rejected}"
    )
    log.info(
        f"{name}: {kept['sentences']:,} sentences of {kept['documents']:,} documents, up to "
        f"{figures['longest_sentence']:,} tokens long; {kept['entities']:,} entities "
        f"({figures['overlapping_entity_pairs']:,} pairs overlap) of types "
        f"{', '.join(figures['entity_types']) or 'none'}; "
        f"{kept['relations']:,} relations of types {', '.join(figures['relation_types']) or 'none'}"
    )


def warn_of_unknown(
    name: str, sentences: Sequence[Sentence], entity_types: Iterable[str], relation_types: Iterable[str]
) -> None:
    """Say which labels of a split a model cannot have learnt: each of them is a miss."""
    here = describe(sentences)
    for kind, known in (("entity_types", entity_types), ("relation_types", relation_types)):
        if unknown := sorted(set(here[kind]) - set(known)):
            labels = f"{kind.replace('_', ' ')} {', '.join(unknown)}"
            log.warning("%s: no training sentence has the %s; each of them is a miss", name, labels)


def write_rejected(path: Path, splits: Mapping[str, Split]) -> None:
    """Write a line of JSON for each thing that was left out; no file if nothing was."""
    path.unlink(missing_ok=True)  # of a run that was broken off
    if any(split.rejected for split in splits.values()):
        with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for name, split in splits.items():
                for item in split.rejected:
                    file.write(json_line({"split": name, **item._asdict()}) + "\n")


def recognise(path: Path) -> str:
    """Tell the format from what a file or folder holds.

    Raises:
        UserError: it is missing, or of no known form.
    """
    if path.is_dir():
        if brat.fits(path):
            return "brat"
        raise UserError(f"{path}: a folder without .ann files; name one file of the corpus, or {brat.LOOKS}")
    text = read_text(path)
    if text.lstrip().startswith("["):
        return "spert"
    items = list(islice(_objects(text, path), _ITEMS_LOOKED_AT))
    for format, fits in _BY_ITEM.items():
        if any(fits(item) for item in items):
            return format
    problem = "of no known format" if items else "no line of it is a JSON object"
    raise UserError(f"{path}: {problem}; known are {'; '.join(f'{n} ({f.LOOKS})' for n, f in FORMATS.items())}")


def _objects(text: str, path: Path) -> Iterator[dict[str, object]]:
    """The JSON objects among the lines."""
    for where, line in lines(text, path):
        try:
            item = parse(line, where)
        except UserError:
            continue
        if isinstance(item, dict):
            yield item


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
