"""`enpar extract`: raw text → its sentences with entities and relations, as JSON lines with character offsets."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from enpar.config import ExtractJob
from enpar.documents import Chunk, Document, Reader, Rejected, apart, plan
from enpar.errors import UserError
from enpar.output import Output, atomic
from enpar.pretrained import extraction_settings
from enpar.sentence import Sentence, json_line, to_json
from enpar.tracking import check_tracking, track

if TYPE_CHECKING:
    from enpar.extraction import Prediction

log = logging.getLogger("enpar")
STANDARD = "-"  # standard input or output in place of a file
_SENTENCES = 1024  # in hand at once, so that those of one length are found together
_TOKENS = 100_000  # and no more tokens than this
_DOCUMENTS = 256  # a chunk of the input
_SECONDS_BETWEEN_LINES = 10.0
# Components of a spaCy pipeline that split nothing and that none which splits depends on.
_UNUSED = ("ner", "tagger", "lemmatizer", "attribute_ruler", "morphologizer", "entity_linker", "textcat")
_SPLITTERS = {"parser", "senter", "sentencizer"}


def run(job: ExtractJob) -> dict[str, Any] | None:
    """Extract from a whole input; no result, but JSON lines, if the output is `-`.

    A run that was broken off begins anew.

    Raises:
        UserError: the model, the input or the output is at fault; found out before torch is loaded.
    """
    began = time.monotonic()
    output = None if job.output == STANDARD else Output(Path(job.output), "extract", job.model_dump(mode="json"))
    if output is not None and (result := output.finished(job.overwrite)) is not None:
        return result
    extraction_settings(job.model)
    chunks = None if job.input == STANDARD else plan(job.input, _DOCUMENTS)
    if output is not None:
        if chunks is not None:
            apart(output.path, job.input, chunks)
        check_tracking(job.tracking, output.path)
    extractor = _extractor(job)
    documents = _standard_input(job) if chunks is None else _read(chunks, job.max_characters)
    if output is None:
        counts = _write(extractor, documents, sys.stdout, None)
        log.info("extract: %s", json.dumps(_result(counts)))
        return None
    output.claim(job.overwrite)
    with ExitStack() as files, track(output, job.tracking, "extract") as tracked:
        sentences, rejected = (
            files.enter_context(files.enter_context(atomic(output.path / name)).open("w", encoding="utf-8"))
            for name in ("sentences.jsonl", "rejected.jsonl")
        )
        counts = _write(extractor, documents, sentences, rejected)
        result = {"output": job.output, **_result(counts), "seconds": round(time.monotonic() - began, 3)}
        tracked.finish(result)
    output.finish(result)
    return result


def _extractor(job: ExtractJob) -> "Extractor":
    splitter = load_splitter(job.spacy_model)  # refused before torch is loaded
    from enpar.model.device import use_cpus

    use_cpus(None)
    return Extractor(job.model, batch_size=job.batch_size, splitter=splitter)


def _read(chunks: Iterable[Chunk], max_characters: int) -> Iterator[Document | Rejected]:
    reader = Reader(max_characters)
    for chunk in chunks:
        yield from reader.read(chunk)


def _standard_input(job: ExtractJob) -> Iterator[Document | Rejected]:
    """Standard input as one document."""
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"input: standard input is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    if len(text) > job.max_characters:
        raise UserError(f"input: {len(text)} characters; max_characters is {job.max_characters}")
    yield Document("stdin", text, STANDARD, 1) if text.strip() else Rejected(STANDARD, 1, "empty", "nothing visible")


def _write(
    extractor: "Extractor", documents: Iterable[Document | Rejected], sentences: TextIO, rejected: TextIO | None
) -> Counter[str]:
    """Write what is found as it is found; counts, those of rejected documents as `rejected/REASON`."""
    counts: Counter[str] = Counter()

    def accepted() -> Iterator[Document]:
        for item in documents:
            counts["documents"] += 1
            if isinstance(item, Document):
                yield item
                continue
            counts[f"rejected/{item.reason}"] += 1
            if rejected is not None:
                rejected.write(json_line(asdict(item)) + "\n")

    said = time.monotonic()
    for record in extractor.stream(accepted()):
        counts.update(sentences=1, entities=len(record["entities"]), relations=len(record["relations"]))
        sentences.write(json_line(record) + "\n")
        if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            log.info(f"extract: {counts['documents']:,} documents, {counts['sentences']:,} sentences")
    sentences.flush()
    return counts


def _result(counts: Counter[str]) -> dict[str, Any]:
    rejected = {name.partition("/")[2]: count for name, count in sorted(counts.items()) if name.startswith("rejected/")}
    return {name: counts[name] for name in ("documents", "sentences", "entities", "relations")} | {
        "kept": counts["documents"] - sum(rejected.values()),
        "rejected": rejected,
    }


# ---- The extractor --------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A sentence of a document, with where it and its tokens are in the document's text."""

    sentence: Sentence
    text: str
    start: int
    offsets: tuple[tuple[int, int], ...]


class Extractor:
    """A fine-tuned model for raw text.

    Args:
        model: folder of a fine-tuned model.
        batch_size: sentences put through the model at once.
        splitter: a spaCy pipeline that makes tokens and sentences, as `load_splitter` gives; English rules by default.

    Raises:
        UserError: there is no such model.
    """

    def __init__(self, model: str | Path, batch_size: int = 32, splitter: Any = None) -> None:  # noqa: ANN401 - untyped
        from enpar.extraction import load

        self._extraction = load(Path(model))
        self._splitter = splitter or load_splitter(None)
        self._batch_size = batch_size

    def __call__(self, texts: str | Sequence[str]) -> list[dict[str, Any]]:
        """The sentences of one text or of several, each as a line of `enpar extract`.

        `orig_id` begins with the number of the text; every `char_start` and `char_end` counts characters of it.

        Raises:
            UserError: a text holds half of a surrogate pair.
        """
        numbered = enumerate([texts] if isinstance(texts, str) else texts)
        documents = [Document(str(number), text, STANDARD, number + 1) for number, text in numbered]
        for document in documents:
            if any("\ud800" <= character <= "\udfff" for character in document.text):
                raise UserError(f"text {document.doc_id} holds half of a surrogate pair; it is no character")
        return list(self.stream(documents))

    def stream(self, documents: Iterable[Document]) -> Iterator[dict[str, Any]]:
        """The same for documents, as many at a time as are put through the model together."""
        pieces = (piece for document in documents for piece in self._split(document))
        while batch := list(_some(pieces)):
            predictions = self._extraction.predict([piece.sentence for piece in batch], self._batch_size)
            yield from (_record(*pair) for pair in zip(batch, predictions, strict=True))

    def _split(self, document: Document) -> list[_Piece]:
        """The sentences of a document; those of nothing but white space are passed over."""
        with self._splitter.memory_zone():  # else the vocabulary grows with every document
            sentences = [sentence for sentence in self._splitter(document.text).sents if sentence.text.strip()]
            return [_piece(sentence, document, number) for number, sentence in enumerate(sentences)]


def load_splitter(spacy_model: str | None) -> Any:  # noqa: ANN401 - a spacy.Language
    """The spaCy pipeline that makes tokens and sentences: English rules, or what a given pipeline has for it.

    Raises:
        UserError: there is no such pipeline.
    """
    import spacy

    try:
        nlp = spacy.blank("en") if spacy_model is None else spacy.load(spacy_model, exclude=list(_UNUSED))
    except OSError:
        raise UserError(
            f"spacy_model: {spacy_model}: no such pipeline, as a package or as a folder; "
            f"get it with `python -m spacy download {spacy_model}`, or leave it out for English rules"
        ) from None
    if not _SPLITTERS & set(nlp.pipe_names):
        nlp.add_pipe("sentencizer")
    nlp.max_length = sys.maxsize  # what is too long is for the caller to say
    return nlp


def _some(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    tokens = 0
    for piece in islice(pieces, _SENTENCES):
        yield piece
        if (tokens := tokens + len(piece.offsets)) >= _TOKENS:
            return


def _piece(span: Any, document: Document, number: int) -> _Piece:  # noqa: ANN401 - a spacy.tokens.Span
    offsets = tuple((token.idx, token.idx + len(token.text)) for token in span)
    tokens = tuple(token.text for token in span)
    return _Piece(Sentence(tokens, (), (), document.doc_id, number), span.text, span.start_char, offsets)


def _record(piece: _Piece, prediction: "Prediction") -> dict[str, Any]:
    """A line of the output."""
    labelled = to_json(prediction.sentence)
    for entity, score in zip(labelled["entities"], prediction.entity_scores, strict=True):
        start, end = piece.offsets[entity["start"]][0], piece.offsets[entity["end"] - 1][1]
        text = piece.text[start - piece.start : end - piece.start]
        entity.update(char_start=start, char_end=end, text=text, score=round(score, 6))
    for relation, score in zip(labelled["relations"], prediction.relation_scores, strict=True):
        relation["score"] = round(score, 6)
    span = {"text": piece.text, "char_start": piece.start, "char_end": piece.start + len(piece.text)}
    return {"orig_id": labelled.pop("orig_id"), **span, **labelled}
