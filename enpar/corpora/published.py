"""The labelled corpora that `enpar fetch` knows: where they are published, and what is in them."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from enpar import corpora
from enpar.corpora.sources import members
from enpar.errors import UserError

log = logging.getLogger("enpar")


@dataclass(frozen=True)
class Publication:
    """A published corpus.

    Args:
        url: the official place: an archive, or a folder of files.
        format: one of `corpora.FORMATS`.
        files: the file of each split.
        licence: on what terms it may be used.
        remedy: what to do if it cannot be downloaded.
        optional: splits that not every form of the corpus has.
        more: further files that are taken where they are.
        counts: what the splits hold by published figures, with the names of `corpora.describe`.
        skip: whether malformed items are known of, and left out.
    """

    url: str
    format: str
    files: Mapping[str, str]
    licence: str
    remedy: str
    optional: frozenset[str] = frozenset()
    more: tuple[str, ...] = ()
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    skip: bool = False


class Fetched(NamedTuple):
    """The files of a corpus, checked.

    Args:
        files: contents by name.
        documents: documents of all splits.
        licence: on what terms they may be used.
        splits: what each split holds, as `corpora.Split.figures`.
    """

    files: dict[str, bytes]
    documents: int
    licence: str
    splits: dict[str, Any]


def _counted(names: tuple[str, ...], **splits: tuple[int, ...]) -> dict[str, dict[str, int]]:
    return {split: dict(zip(names, counts, strict=True)) for split, counts in splits.items()}


PUBLICATIONS = {
    "scierc": Publication(
        url="http://nlp.cs.washington.edu/sciIE/data/sciERC_processed.tar.gz",
        format="scierc",
        files={"train": "train.json", "dev": "dev.json", "test": "test.json"},
        licence="released for research (Luan et al., EMNLP 2018, http://nlp.cs.washington.edu/sciIE/)",
        remedy="download sciERC_processed.tar.gz from http://nlp.cs.washington.edu/sciIE/ and give source=FILE, "
        "or source=FOLDER with train.json, dev.json and test.json",
        # Of the processed release; the paper counts slightly more entities and relations, of the raw one.
        counts=_counted(
            ("documents", "sentences", "entities", "relations"),
            train=(350, 1861, 5598, 3219),
            dev=(50, 275, 811, 455),
            test=(100, 551, 1685, 974),
        ),
    ),
    "conll04": Publication(
        url="http://lavis.cs.hs-rm.de/storage/spert/public/datasets/conll04/",
        format="spert",
        files={split: f"conll04_{split}.json" for split in ("train", "dev", "test")},
        licence="released for research (Roth and Yih, CoNLL 2004; as split and converted by SpERT)",
        remedy="run SpERT's scripts/fetch_datasets.sh (https://github.com/lavis-nlp/spert) and give source=FOLDER, "
        "the one with conll04_train.json, conll04_dev.json and conll04_test.json",
        more=("conll04_types.json",),
        counts=_counted(("sentences",), train=(922,), dev=(231,), test=(288,)),
    ),
    "nyt": Publication(
        url="https://baidu-nlp.bj.bcebos.com/arnor_dataset-2.0.0.tar.gz",
        format="nyt",
        files={"train": "train.json", "dev": "dev.json", "test": "test.json"},
        licence="text of the New York Times, whose Annotated Corpus the LDC licenses (LDC2008T19); labels released for "
        "research (Ren et al., WWW 2017; Jia et al., ACL 2019)",
        remedy="download ARNOR's version 2.0.0 in a browser (PaddlePaddle/Research on GitHub, NLP/ACL2019-ARNOR) and "
        "give source=FILE; CoType's older form is on Google Drive, which hands it to people only: follow the README of "
        "https://github.com/INK-USC/USC-DS-RelationExtraction and give source=FOLDER with its train.json and test.json",
        optional=frozenset({"dev"}),
        more=("test_noise.json", "dev_part.json", "test_part.json"),
        skip=True,
    ),
}


def fetch(name: str, source: str | None) -> Fetched:
    """Get a corpus from its official place or another source, and check it against what is published of it.

    Raises:
        UserError: it cannot be had, a file is missing, or it does not hold what it should.
    """
    publication = PUBLICATIONS[name]
    place = source or publication.url
    wanted = [*publication.files.values(), *publication.more]
    files = members(place, wanted, publication.remedy)
    missing = [f for split, f in publication.files.items() if split not in publication.optional and f not in files]
    if missing:
        raise UserError(f"source: {place} has no {', '.join(missing)}; {publication.remedy}")
    splits = _read(publication, files, place)
    figures = {split: read.figures() for split, read in splits.items()}
    documents = sum(figure["kept"]["documents"] for figure in figures.values())
    return Fetched(files, documents, publication.licence, figures)


def _read(publication: Publication, files: Mapping[str, bytes], place: str) -> dict[str, corpora.Split]:
    """Read and check each split, and say what it holds."""
    splits = {}
    with tempfile.TemporaryDirectory() as folder:
        for split, name in publication.files.items():
            if name not in files:
                continue
            path = Path(folder, name)
            path.write_bytes(files[name])
            try:
                read = corpora.read(path, publication.format, publication.skip)
            except UserError as error:
                raise UserError(f"source: {place}: {str(error).replace(folder + '/', '')}") from None
            splits[split] = replace(read, path=Path(name))
            _check(splits[split], publication.counts.get(split, {}), place)
            corpora.say(split, splits[split])
            if any(item.reason == "malformed" for item in read.rejected):
                log.warning("%s: set corpus.on_error=skip to leave out the same when it is used", name)
    return splits


def _check(split: corpora.Split, published: Mapping[str, int], place: str) -> None:
    found = corpora.describe(split.sentences)
    if wrong := [
        f"{found[unit]} {unit}, published are {count}" for unit, count in published.items() if found[unit] != count
    ]:
        raise UserError(
            f"source: {place}: {split.path} has {'; '.join(wrong)}; a file of your own needs no fetch, "
            "corpus.train, corpus.dev and corpus.test read it as it is"
        )
