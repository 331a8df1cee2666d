"""The spaCy pipeline that makes tokens and sentences of a text, in time linear in its length."""

import re
import sys
from itertools import pairwise
from typing import Any

from enpar.spacy_pipeline import locate

# Components of a spaCy pipeline that split nothing and that none which splits depends on.
_UNUSED = ("ner", "tagger", "lemmatizer", "attribute_ruler", "morphologizer", "entity_linker", "textcat")
_SPLITTERS = {"parser", "senter", "sentencizer"}
_RUN = re.compile(r"\S{500}(?=\S)")


def load_splitter(spacy_model: str | None) -> Any:  # noqa: ANN401 - a spacy.Language
    """The pipeline: English rules, or what a given one has for it.

    Args:
        spacy_model: an installed package or a folder; None for the rules.

    Raises:
        UserError: there is no such pipeline.
    """
    import spacy

    nlp = spacy.blank("en") if spacy_model is None else spacy.load(locate(spacy_model)[0], exclude=list(_UNUSED))
    if not _SPLITTERS & set(nlp.pipe_names):
        nlp.add_pipe("sentencizer")
    nlp.max_length = sys.maxsize  # what is too long is for the caller to say
    nlp.tokenizer = _Tokenizer(nlp.tokenizer)
    return nlp


class _Tokenizer:
    """A tokenizer that is given 500 characters at most of what has no white space in it.

    spaCy's takes signs and emoji off such a run one by one, and for each looks at all of the rest: 50,000 of them would
    take minutes.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - text → spacy.tokens.Doc
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> Any:  # noqa: ANN401 - a spacy.tokens.Doc
        cuts = [0, *(match.end() for match in _RUN.finditer(text)), len(text)]
        if len(cuts) == 2:
            return self._tokenizer(text)
        from spacy.tokens import Doc

        tokens = [token for begin, end in pairwise(cuts) for token in self._tokenizer(text[begin:end])]
        # Not Doc.from_docs: there a sentence begins with each part.
        spaces = [bool(token.whitespace_) for token in tokens]
        return Doc(tokens[0].vocab, [token.text for token in tokens], spaces)
