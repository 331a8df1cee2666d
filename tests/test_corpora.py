import json

import pytest

from enpar.config import Corpus
from enpar.corpora import FORMATS, describe, load
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence, to_json, write_jsonl

SENTENCES = [
    Sentence(("Ada", "met", "Bob"), (Entity(0, 1, "P"), Entity(2, 3, "P")), (Relation("MET", 0, 1),), "a", 0),
    Sentence(("Bob", "left", "."), (Entity(0, 1, "P"),), (), "a", 1),
]
DOCUMENT = {
    "doc_key": "D1",
    "sentences": [["We", "use", "big", "nets", "."], ["Nets", "beat", "trees"]],
    "ner": [[[2, 3, "Method"], [3, 3, "Task"], [2, 3, "Method"]], [[5, 5, "Method"], [7, 7, "Method"]]],
    "relations": [[[2, 3, 3, 3, "USED-FOR"]], [[7, 7, 5, 5, "COMPARE"]]],
    "clusters": [],
}


def write(path, *items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def refused(format, path):
    with pytest.raises(UserError) as error:
        load(format, path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_settings_offer_every_format():
    for format in FORMATS:
        assert Corpus(format=format).format == format


def test_jsonl(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", SENTENCES)
    assert load("jsonl", tmp_path / "x.jsonl") == SENTENCES


@pytest.mark.parametrize("lines", [False, True])
def test_spert_reads_a_list_and_lines(tmp_path, lines):
    items = [to_json(sentence) | {"orig_id": i} for i, sentence in enumerate(SENTENCES)]
    path = tmp_path / "x.json"
    path.write_text("\n\n".join(map(json.dumps, items)) if lines else json.dumps(items, indent=2))
    loaded = load("spert", path)
    assert [(s.tokens, s.entities, s.relations) for s in loaded] == [
        (s.tokens, s.entities, s.relations) for s in SENTENCES
    ]
    assert [s.doc_id for s in loaded] == ["0", "1"]


def test_scierc(tmp_path):
    path = write(tmp_path / "x.json", DOCUMENT, DOCUMENT | {"doc_key": "D2"})
    loaded = load("scierc", path)
    assert [(s.doc_id, s.sent_id) for s in loaded] == [("D1", 0), ("D1", 1), ("D2", 0), ("D2", 1)]
    assert loaded[0].entities == (Entity(2, 4, "Method"), Entity(3, 4, "Task"))  # the repeated one is kept once
    assert loaded[0].relations == (Relation("USED-FOR", 0, 1),)
    assert loaded[1].tokens == ("Nets", "beat", "trees")
    assert loaded[1].entities == (Entity(0, 1, "Method"), Entity(2, 3, "Method"))
    assert loaded[1].relations == (Relation("COMPARE", 1, 0),)


def test_scierc_relation_means_the_first_of_two_entities_with_its_span(tmp_path):
    one = {
        "doc_key": "D",
        "sentences": [["a", "b"]],
        "ner": [[[1, 1, "X"], [0, 0, "X"], [0, 0, "Y"]]],
        "relations": [[[0, 0, 1, 1, "R"]]],
    }
    (sentence,) = load("scierc", write(tmp_path / "x.json", one))
    assert len(sentence.entities) == 3
    assert sentence.relations == (Relation("R", 1, 0),)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"doc_key": None}, "expected a document with doc_key"),
        ({"ner": None}, "ner: expected a list with one list for each sentence"),
        ({"ner": [[]]}, "ner has 1 lists, but there are 2 sentences"),
        (
            {"sentences": [["a"], []], "ner": [[], []], "relations": [[], []]},
            "sentences[1]: expected a list of strings",
        ),
        (
            {"ner": [DOCUMENT["ner"][0], [[5, 5, "M"], [7, 8, "M"]]]},
            "ner[1] of sentence 1: [7, 8] lies outside the sentence",
        ),
        ({"ner": [[[3, 2, "M"]], []]}, "ner[0] of sentence 0: [3, 2] lies outside"),
        ({"ner": [[[3, 5, "M"]], []]}, "ner[0] of sentence 0: [3, 5] lies outside"),
        ({"ner": [[[3, "M"]], []]}, "ner[0] of sentence 0: [3, 'M']; expected [start, end, label]"),
        ({"ner": [[[True, 3, "M"]], []]}, "ner[0] of sentence 0: [True, 3, 'M']; expected"),
        ({"ner": [["M"], []]}, "ner[0] of sentence 0: 'M'; expected"),
        ({"relations": [[[2, 3, 4, 4, "R"]], []]}, "relations[0] of sentence 0: [4, 4] is no entity of the sentence"),
        ({"relations": [[], [[3, 3, 5, 5, "R"]]]}, "relations[0] of sentence 1: [3, 3] is no entity of the sentence"),
        ({"relations": [[], [[5, 5, "R"]]]}, "relations[0] of sentence 1: [5, 5, 'R']; expected [start1, end1, start2"),
    ],
)
def test_scierc_names_what_is_malformed(tmp_path, change, part):
    path = write(tmp_path / "x.json", DOCUMENT, DOCUMENT | change)
    message = refused("scierc", path)
    assert message.startswith(f"{path}:2: ")
    assert part in message


def test_scierc_says_where_the_sentence_lies(tmp_path):
    path = write(tmp_path / "x.json", DOCUMENT | {"ner": [[], [[4, 5, "M"]]], "relations": [[], []]})
    assert refused("scierc", path).endswith("[4, 5] lies outside the sentence, which has tokens 5 to 7 of the document")


@pytest.mark.parametrize(("format", "place"), [("jsonl", ":2: "), ("spert", ":2: ")])
def test_malformed_lines_are_named(tmp_path, format, place):
    good, bad = to_json(SENTENCES[0]), {"tokens": ["a"], "entities": [{"type": "P", "start": 0, "end": 9}]}
    path = write(tmp_path / "x.jsonl", good, bad)
    assert refused(format, path).startswith(f"{path}{place}entity 0 (P) covers tokens [0, 9)")


def test_malformed_items_of_a_list_are_named(tmp_path):
    path = write(tmp_path / "x.json", [to_json(SENTENCES[0]), {"tokens": []}])
    assert refused("spert", path) == f"{path}: sentence 1: tokens: expected a list of strings with at least one"


@pytest.mark.parametrize("format", FORMATS)
def test_files_that_cannot_be_read(tmp_path, format):
    assert "no such file" in (missing := refused(format, tmp_path / "none.json"))
    assert "enpar fetch" in missing
    assert "s a directory" in refused(format, tmp_path)
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(format, path)
    path.write_text("\n  \n")
    assert refused(format, path).startswith(f"{path}: holds no sentences")
    path.write_text('{"tokens": ["a"]\n')
    assert f"{path}:1: not JSON: " in refused(format, path)
    path.write_text('3\n"x"\n')
    assert refused(format, path).startswith(f"{path}:1: expected ")
    path.write_text("[" * 100_000)
    assert str(path) in refused(format, path)


def test_a_broken_list_names_line_and_character(tmp_path):
    (tmp_path / "x.json").write_text('[\n{"tokens": ["a"]},\n{"tokens" 3}]')
    assert "line 3, character 11" in refused("spert", tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    assert "holds no sentences" in refused("spert", tmp_path / "x.json")


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    assert "known are jsonl, scierc, spert" in refused("xml", tmp_path)


def test_describe(tmp_path):
    figures = describe(load("scierc", write(tmp_path / "x.json", DOCUMENT, DOCUMENT | {"doc_key": "D2"})))
    assert figures == {
        "documents": 2,
        "sentences": 4,
        "entities": 8,
        "relations": 4,
        "overlapping_entity_pairs": 2,
        "entity_types": ["Method", "Task"],
        "relation_types": ["COMPARE", "USED-FOR"],
        "longest_sentence": 5,
    }
    assert describe([])["longest_sentence"] == 0
