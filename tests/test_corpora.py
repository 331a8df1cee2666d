import json

import pytest
from corpus_files import refused, write

from enpar.config import Corpus
from enpar.corpora import FORMATS, describe, load, read, read_splits, recognise, warn_of_unknown, write_rejected
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


@pytest.mark.parametrize("format", sorted(FORMATS.keys() - {"brat"}))
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
    for name in ("orig_id", "entities[0]: type"):
        item = {"tokens": ["a"], "entities": [{"type": "x", "start": 0, "end": 1}], "orig_id": "y"}
        text = json.dumps([item]).replace('"y"' if name == "orig_id" else '"x"', '"\\ud800"')
        (tmp_path / "x.json").write_text(text)
        assert f"sentence 0: {name}: half a surrogate pair" in refused("spert", tmp_path / "x.json")


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    assert "known are jsonl, spert, scierc, dygie, enpar, nyt, brat" in refused("xml", tmp_path)


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


# ---- Recognition ----------------------------------------------------------------------------------------------------

ENPAR = {
    "sentId": 1,
    "sentText": "Ada met Bob",
    "articleId": "A",
    "entityMentions": [{"emId": "E1", "text": "Ada", "offset": [0, 1], "label": "P"}],
    "relationMentions": [],
}
NYT = {"sentText": "Ada met Bob", "entityMentions": [{"text": "Ada", "label": "P"}], "relationMentions": []}
BARE = {"doc_key": "D", "sentences": [["a"]]}
EMPTY = NYT | {"entityMentions": []}


@pytest.mark.parametrize(
    ("format", "items"),
    [
        ("jsonl", [to_json(SENTENCES[0])]),
        ("jsonl", [{"tokens": ["a"]}]),
        ("scierc", [DOCUMENT, DOCUMENT]),
        ("dygie", [BARE]),
        ("dygie", [DOCUMENT, DOCUMENT | {"ner": None, "relations": None}]),
        ("dygie", [DOCUMENT, DOCUMENT | {"relations": [None, []]}]),
        ("dygie", [DOCUMENT | {"_sentence_start": [0, 5]}]),
        ("enpar", [EMPTY, ENPAR]),
        ("enpar", [EMPTY | {"wordpieceSentText": "[CLS] a [SEP]"}]),
        ("nyt", [EMPTY, NYT]),
    ],
)
def test_a_format_is_recognised_by_any_item_that_tells(tmp_path, format, items):
    path = write(tmp_path / "x.json", *items)
    assert recognise(path) == format
    split = read(path)
    assert (split.format, split.recognised) == (format, True)
    assert split.sentences == load(format, path)


def test_a_list_and_a_folder_are_recognised(tmp_path):
    (tmp_path / "x.json").write_text("\n [" + json.dumps(to_json(SENTENCES[0])) + "]")
    assert recognise(tmp_path / "x.json") == "spert"
    with pytest.raises(UserError, match=r"a folder without \.ann files; name one file"):
        recognise(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.ann").touch()
    assert recognise(tmp_path) == "brat"


def test_a_broken_line_hides_no_format(tmp_path):
    path = write(tmp_path / "x.json", DOCUMENT)
    path.write_text('{"doc_key"\n' + path.read_text())
    assert recognise(path) == "scierc"
    with pytest.raises(UserError, match=r"x\.json:1: not JSON"):
        read(path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "no line of it is a JSON object"),
        ("T1\tP 0 1\ta\n", "no line of it is a JSON object"),
        ('{"text": "a"}\n', "of no known format"),
        ('{"entities": {}, "relations": {}}', "of no known format"),
    ],
)
def test_what_is_not_recognised_is_told_what_each_format_looks_like(tmp_path, content, part):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {part}; known are jsonl (")
    assert all(f"{name} ({format.LOOKS})" in str(error.value) for name, format in FORMATS.items())
    assert "\n" not in str(error.value)


# ---- What is left out -----------------------------------------------------------------------------------------------


def test_skip_leaves_out_lines_and_keeps_the_account(tmp_path):
    path = write(tmp_path / "x.jsonl", to_json(SENTENCES[0]), {"tokens": []}, to_json(SENTENCES[1]))
    with path.open("a") as file:
        file.write('{"tokens"\n{"tokens": ["\\ud800"]}\n')
    with pytest.raises(UserError, match=r":2: tokens: expected"):
        read(path)
    split = read(path, skip=True)
    assert split.sentences == SENTENCES
    assert [(item.unit, item.reason) for item in split.rejected] == [("sentences", "malformed")] * 3
    assert [item.detail.removeprefix(str(path))[:3] for item in split.rejected] == [":2:", ":4:", ":5:"]
    figures = split.figures()
    assert figures["read"] == {"documents": 1, "sentences": 5, "entities": 3, "relations": 1}
    assert figures["kept"] == {"documents": 1, "sentences": 2, "entities": 3, "relations": 1}
    assert figures["rejected"] == {"malformed sentences": 3}
    write_rejected(tmp_path / "rejected.jsonl", {"train": split, "dev": split})
    written = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert len(written) == 6
    assert written[3] == {"split": "dev", **split.rejected[0]._asdict()}


def test_skip_leaves_out_a_sentence_of_a_document_or_the_document(tmp_path):
    bad = DOCUMENT | {"doc_key": "D2", "ner": [[[2, 3, "M"], [2, 3, "M"], [4, 9, "M"]], DOCUMENT["ner"][1]]}
    path = write(tmp_path / "x.json", DOCUMENT, bad, DOCUMENT | {"ner": [[]]})
    split = read(path, skip=True)
    assert [(s.doc_id, s.sent_id) for s in split.sentences] == [("D1", 0), ("D1", 1), ("D2", 1)]
    assert split.sentences[2].entities == (Entity(0, 1, "Method"), Entity(2, 3, "Method"))  # offsets go on behind it
    assert split.figures()["rejected"] == {  # what the rejected sentence gave twice went with it
        "duplicate entities": 1,
        "malformed documents": 1,
        "malformed sentences": 1,
    }
    assert split.figures()["read"] == {"documents": 3, "sentences": 4, "entities": 7, "relations": 3}


def test_skip_leaves_out_items_of_a_list(tmp_path):
    path = write(tmp_path / "x.json", [to_json(SENTENCES[0]), {"tokens": []}, 3])
    split = read(path, skip=True)
    assert split.sentences == SENTENCES[:1]
    assert split.figures()["rejected"] == {"malformed sentences": 2}


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    path = write(tmp_path / "x.json", {"tokens": []})
    with pytest.raises(UserError, match=r"holds no sentences that could be kept \(.*x.json:1: tokens: expected a list"):
        read(path, skip=True)


def test_no_rejects_no_file(tmp_path):
    path = write(tmp_path / "x.jsonl", to_json(SENTENCES[0]))
    (tmp_path / "rejected.jsonl").touch()
    write_rejected(tmp_path / "rejected.jsonl", {"train": read(path)})
    assert not (tmp_path / "rejected.jsonl").exists()


def test_each_split_is_said(tmp_path, caplog):
    path = write(tmp_path / "x.json", DOCUMENT, {"doc_key": "E"})
    with caplog.at_level("INFO", logger="enpar"):
        read_splits({"train": path}, Corpus(on_error="skip", format="scierc"))
    assert caplog.messages == [
        f"train: {path}: scierc; read 2 documents, 2 sentences, 5 entities, 2 relations; "
        "rejected 1 malformed documents, 1 duplicate entities",
        "train: 2 sentences of 1 documents, up to 5 tokens long; 4 entities (1 pairs overlap) of types Method, Task; "
        "2 relations of types COMPARE, USED-FOR",
    ]


def test_labels_that_train_never_saw_are_said(caplog):
    warn_of_unknown("dev", SENTENCES, ["P"], ["MET"])
    assert caplog.messages == []
    warn_of_unknown("dev", SENTENCES, ["Q"], [])
    assert [message.split(";")[0] for message in caplog.messages] == [
        "dev: no training sentence has the entity types P",
        "dev: no training sentence has the relation types MET",
    ]
