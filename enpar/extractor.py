"""The extractor: a fine-tuned model for raw text, in one process; sentences come out with character offsets."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from enpar.documents import Document
from enpar.errors import UserError
from enpar.given import Given, Mention, Span, read_item
from enpar.records import Unfit, encodable
from enpar.sentence import Entity, Sentence, to_json
from enpar.splitter import load_splitter

if TYPE_CHECKING:
    from enpar.extraction import Prediction

Text = str | Mapping[str, Any]
_SENTENCES = 1024  # in hand at once, so that those of one length are found together
_TOKENS = 100_000  # and no more tokens than this


class Extractor:
    """A fine-tuned model for raw text, on a GPU where there is one.

    Args:
        model: folder of a fine-tuned model.
        batch_wordpieces: wordpieces put through the model at once; by default as many as suit the device.
        splitter: a spaCy pipeline that makes tokens and sentences, as `load_splitter` gives; English rules by default.

    Raises:
        UserError: there is no such model.
    """

    def __init__(
        self,
        model: str | Path,
        batch_wordpieces: int | None = None,
        splitter: Any = None,  # noqa: ANN401 - spaCy is untyped
    ) -> None:
        from enpar.extraction import load

        self._extraction = load(Path(model))
        self._splitter = splitter or load_splitter(None)
        self._batch_wordpieces = batch_wordpieces

    def __call__(self, texts: Text | Sequence[Text]) -> list[dict[str, Any]]:
        """The sentences of one text or of several, each as a line of `enpar extract`.

        A text may be an object as in JSONL, with `entities` that are given; then only relations are found. `orig_id`
        begins with the number of the text, or is the object's own; every `char_start` and `char_end` counts characters
        of the text.

        Raises:
            UserError: a text holds half of a surrogate pair, or an object is malformed.
        """
        texts = [texts] if isinstance(texts, (str, Mapping)) else texts
        return list(self.stream([_document(number, text) for number, text in enumerate(texts)]))

    def stream(self, documents: Iterable[Document]) -> Iterator[dict[str, Any]]:
        """The same for documents, as many at a time as are put through the model together."""
        pieces = (piece for document in documents for piece in self._split(document))
        while batch := list(_some(pieces)):
            yield from (_record(*pair) for pair in zip(batch, self._predict(batch), strict=True))

    def _predict(self, pieces: Sequence["_Piece"]) -> Iterator["Prediction"]:
        """What is found in each, in order."""
        plain = [piece.sentence for piece in pieces if piece.given is None]
        given = [piece.sentence for piece in pieces if piece.given is not None]
        found = iter(self._extraction.predict(plain, self._batch_wordpieces))
        related = iter(self._extraction.relate(given, self._batch_wordpieces))
        return (next(found if piece.given is None else related) for piece in pieces)

    def _split(self, document: Document) -> list["_Piece"]:
        """The sentences of a document; those of nothing but white space are passed over."""
        given = document.given or Given(None)
        if given.sentence is not None:
            return [_whole(document, given, given.sentence)]
        with self._splitter.memory_zone():  # else the vocabulary grows with every document
            doc = self._splitter(document.text)
            tokens = [(token.idx, token.idx + len(token.text)) for token in doc]
            starts = [sentence.start for sentence in doc.sents]
        return list(_pieces(document, tokens, starts, given.mentions))


def _document(number: int, text: Text) -> Document:
    try:
        found, given = (encodable(text), None) if isinstance(text, str) else read_item(dict(text))
    except Unfit as unfit:
        raise UserError(f"text {number}: {': '.join(unfit.args)}") from None
    return Document(str(number), found, "-", number + 1, given.start if given else 0, given)


# ---- Sentences ------------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A sentence of a document; all places are in characters of the document's text.

    Args:
        document: the document.
        sentence: the sentence's tokens, and the entities that are given.
        extent: where it is.
        tokens: where its tokens are.
        given: the entities that are given; None if they are to be found.
    """

    document: Document
    sentence: Sentence
    extent: Span
    tokens: Sequence[Span]
    given: Sequence[Mention] | None


def _some(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    tokens = 0
    for piece in islice(pieces, _SENTENCES):
        yield piece
        if (tokens := tokens + len(piece.tokens)) >= _TOKENS:
            return


def _whole(document: Document, given: Given, sentence: Sentence) -> _Piece:
    """A document that is a Sentence."""
    if not sentence.doc_id:
        sentence = replace(sentence, doc_id=document.doc_id)
    return _Piece(document, sentence, (0, len(document.text)), given.tokens, given.mentions)


def _pieces(
    document: Document, tokens: Sequence[Span], starts: Iterable[int], mentions: Sequence[Mention] | None
) -> Iterator[_Piece]:
    """The sentences that begin at these tokens; those that a given entity reaches across are joined."""
    spans = [_covering(tokens, mention) for mention in mentions or ()]
    within = {token for start, end in spans for token in range(start + 1, end)}
    starts = [start for start in starts if start not in within]
    mine: dict[int, list[int]] = {start: [] for start in starts}
    for i, (first, _) in enumerate(spans):
        mine[starts[bisect_right(starts, first) - 1]].append(i)
    number = 0
    for start, end in pairwise([*starts, len(tokens)]):
        extent = tokens[start][0], tokens[end - 1][1]
        if not document.text[slice(*extent)].strip():
            continue
        given = None if mentions is None else [mentions[i] for i in mine[start]]
        bounds = [(spans[i][0] - start, spans[i][1] - start) for i in mine[start]]
        entities = tuple(Entity(*span, mention.type) for span, mention in zip(bounds, given or (), strict=True))
        words = tuple(document.text[first:last] for first, last in tokens[start:end])
        sentence = Sentence(words, entities, (), document.doc_id, number)
        yield _Piece(document, sentence, extent, tokens[start:end], given)
        number += 1


def _covering(tokens: Sequence[Span], mention: Mention) -> Span:
    """The tokens that a mention has a part of."""
    first = bisect_right(tokens, mention.start, key=lambda token: token[1])
    return first, bisect_left(tokens, mention.end, key=lambda token: token[0])


# ---- Lines of the output --------------------------------------------------------------------------------------------


def _record(piece: _Piece, prediction: "Prediction") -> dict[str, Any]:
    """A line of the output."""
    labelled = to_json(prediction.sentence)
    spans = prediction.sentence.entities
    found = [(piece.tokens[span.start][0], piece.tokens[span.end - 1][1]) for span in spans]
    places = found if piece.given is None else [(mention.start, mention.end) for mention in piece.given]
    for entity, place, score in zip(labelled["entities"], places, prediction.entity_scores, strict=True):
        entity.update(_text(piece.document, *place))
        if score is not None:
            entity["score"] = round(score, 6)
    for relation, score in zip(labelled["relations"], prediction.relation_scores, strict=True):
        relation["score"] = round(score, 6)
    return {"orig_id": labelled.pop("orig_id"), **_text(piece.document, *piece.extent), **labelled}


def _text(document: Document, start: int, end: int) -> dict[str, Any]:
    """A stretch of a document, with its place as those count who read the document where it came from."""
    return {
        "text": document.text[start:end],
        "char_start": document.start + start,
        "char_end": document.start + end,
    }
