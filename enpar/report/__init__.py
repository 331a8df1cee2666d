"""report.html: what report.json says, drawn, and the sentences to leaf through. One file, no network."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from enpar.config import Way
from enpar.report import tables
from enpar.report.figures import figures
from enpar.report.sentences import data, embed
from enpar.sentence import Sentence
from enpar.storage import atomic
from enpar.symmetric import explain

__all__ = ["write_report"]


def write_report(
    path: Path,
    content: Mapping[str, Any],
    gold: Sequence[Sentence],
    predicted: Mapping[str, Sequence[Sentence]],
) -> None:
    """Write a page that opens in any browser, on a phone too.

    Args:
        path: the HTML file.
        content: what report.json holds.
        gold: the labelled sentences, as they were scored.
        predicted: predictions by model, as they were scored, each aligned with `gold`.
    """
    way: Way = content["symmetric"]
    symmetric = content["symmetric_relations"] if way == "normalised" else []
    page = _page(content, explain(way, content["symmetric_relations"]), embed(data(gold, predicted, symmetric)))
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _page(content: Mapping[str, Any], relations: str, sentences: str) -> str:
    script = _read("page.js")
    names = list(content["models"])
    counts = content["gold"]
    title = f"{', '.join(names)} on {Path(content['corpus']).name}"
    return Template(_read("page.html")).substitute(
        title=escape(title),
        style=_read("page.css"),
        script=script,
        # Nothing but this very script runs, whatever a corpus holds; and nothing is loaded from anywhere.
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        subtitle=escape(
            f"{counts['sentences']:,} sentences with {counts['entities']:,} entities and {counts['relations']:,} "
            f"relations to find. {relations}"
        ),
        scores=tables.scores(content),
        types=tables.types(content),
        figures=figures(content),
        mistakes=tables.mistakes(content),
        confusions=tables.confusions(content),
        sentences=sentences,
    )


def _read(name: str) -> str:
    return files("enpar.report").joinpath(name).read_text(encoding="utf-8")
