"""ACE 2005 English from the LDC release (LDC2006T06), which only its licensees have: the split of Miwa & Bansal (2016).

Of the release, `English/<genre>/timex2norm/` is read; `ace_document` says how. The lists of the split's documents come
from the LSTM-ER repository, or from a folder.
"""

import http.client
import logging
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from enpar.corpora import ace_document, describe
from enpar.corpora.reading import read_text
from enpar.errors import UserError
from enpar.sentence import json_line, to_json

SIZES = {"train": 351, "dev": 80, "test": 80}
LISTS = "https://raw.githubusercontent.com/tticoin/LSTM-ER/master/data/ace2005/split"
LICENCE = "LDC User Agreement (LDC2006T06): not to be passed on"
RELEASE = "the unpacked LDC2006T06, which holds data/English/<genre>/timex2norm/*.sgm and *.apf.xml"

_LOG = logging.getLogger(__name__)
_REMEDY = "put train.txt, dev.txt and test.txt (names of documents, one a line) in a folder and give split=FOLDER"


class Converted(NamedTuple):
    """The corpus as files of our JSONL, and what each split holds and had to drop."""

    files: dict[str, bytes]
    documents: int
    splits: dict[str, dict[str, Any]]
    """By split: as `enpar.corpora.describe`, and dropped: number of items by reason (those above 0)."""


def convert(release: Path, split: Path | None = None, check: bool = True) -> Converted:
    """Read the splits of ACE05 into train.jsonl, dev.jsonl and test.jsonl.

    Args:
        release: the folder of the LDC release, or its `data` or `English` folder.
        split: folder with the lists train.txt, dev.txt and test.txt; downloaded if None.
        check: refuse downloaded lists that are not of 351, 80 and 80 documents, and mentions that are not in the text
            where the annotation says; otherwise take the lists as they are, and drop and count such mentions.

    Raises:
        UserError: the release, a list, or a document of a list is missing, malformed, or fails the check.
    """
    found = _documents(release)
    lists = {part: _given(split, part) if split else _official(part) for part in SIZES}
    _check_lists(lists, found, release, SIZES if check and split is None else {})
    import spacy  # takes a second, and the mistakes above should not

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    files, splits = {}, {}
    for part, names in lists.items():
        dropped = Counter[str]()
        sentences = [s for n in names for s in ace_document.read(found[n], _annotation(found[n]), nlp, dropped, check)]
        files[f"{part}.jsonl"] = "".join(json_line(to_json(s)) + "\n" for s in sentences).encode()
        splits[part] = describe(sentences) | {"documents": len(names), "dropped": dict(sorted((+dropped).items()))}
        _LOG.info("%s: %s", part, _summary(splits[part]))
    return Converted(files, sum(map(len, lists.values())), splits)


def _documents(release: Path) -> dict[str, Path]:
    """Find the .sgm of every document of the release, by the name of the document."""
    for english in (release, release / "English", release / "data" / "English"):
        if found := {path.stem: path for path in sorted(english.glob("*/timex2norm/*.sgm"))}:
            return found
    problem = "no ACE 2005 documents there" if release.is_dir() else "no such folder"
    raise UserError(f"source: {release}: {problem}; give source=FOLDER, {RELEASE}")


def _annotation(sgm: Path) -> Path:
    return sgm.with_name(f"{sgm.stem}.apf.xml")


def _given(folder: Path, part: str) -> list[str]:
    # The official lists are called train, dev and test.
    paths = [path for path in (folder / f"{part}.txt", folder / part) if path.is_file()]
    if not paths:
        raise UserError(f"split: {folder / part}.txt: no such file; {_REMEDY}")
    return read_text(paths[0]).split()


def _official(part: str) -> list[str]:
    url = f"{LISTS}/{part}"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310  # https, see above
            names: list[str] = response.read().decode().split()
            return names
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"split: the list {url} could not be downloaded ({reason}); {_REMEDY}") from None


def _check_lists(lists: dict[str, list[str]], found: dict[str, Path], release: Path, sizes: dict[str, int]) -> None:
    for part, names in lists.items():
        if not names:
            raise UserError(f"split: the list {part} names no documents; {_REMEDY}")
        if len(names) != sizes.get(part, len(names)):
            problem = f"the official list {part} names {len(names)} documents, not {sizes[part]}"
            raise UserError(f"split: {problem}; give split=FOLDER, or check=false to take it as it is")
    twice = [name for name, times in Counter(name for names in lists.values() for name in names).items() if times > 1]
    if twice:
        raise UserError(f"split: the lists name {twice[0]} more than once; a document is in one split")
    for part, names in lists.items():
        lacking = [name for name in names if name not in found or not _annotation(found[name]).is_file()]
        if lacking:
            missing = "apf.xml" if lacking[0] in found else "sgm"
            problem = f"lacks {lacking[0]}.{missing} of the list {part}"
            more = f" ({len(lacking)} of its {len(names)} documents are missing)" if len(lacking) > 1 else ""
            raise UserError(f"source: {release}: {problem}{more}; give source=FOLDER, {RELEASE}")


def _summary(counts: dict[str, Any]) -> str:
    kept = ", ".join(f"{counts[what]} {what}" for what in ("documents", "sentences", "entities", "relations"))
    return f"{kept}; dropped: " + (", ".join(f"{n} {reason}" for reason, n in counts["dropped"].items()) or "none")
