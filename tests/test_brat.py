"""brat's standoff: from character offsets to sentences of tokens, with an account of what no Sentence can hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enpar.corpora import load, read
from enpar.corpora.offsets import cut, locate
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence


def write(folder, text, *lines, name="doc"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_bytes(text.encode())
    (folder / f"{name}.ann").write_bytes("".join(line + "\n" for line in lines).encode())
    return folder


def refused(folder):
    with pytest.raises(UserError) as error:
        load("brat", folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def texts(sentence):
    return [" ".join(sentence.tokens[e.start : e.end]) for e in sentence.entities]


SONY = "Sony formed a venture with Ericsson. It is based in Sweden.\n"
#       0    5      12 14      22   27       37 40 43    49 52


def test_entities_relations_and_sentences(tmp_path):
    lines = [
        "T1\tOrg 0 4\tSony",
        "R1\tPartner Arg1:T2 Arg2:T1\t",
        "T2\tOrg 27 35\tEricsson",
        "T3\tPlace 52 58\tSweden",
        "A1\tNegated T1",
        "M1\tNegated T1",
        "N1\tReference T1 Wikipedia:1\tSony",
        "#1\tAnnotatorNotes T1\tsure?",
        "",
    ]
    write(tmp_path / "c" / "deep", SONY, *lines, name="a.b")
    split = read(tmp_path / "c")
    assert split.format == "brat"
    assert split.sentences == [
        Sentence(
            ("Sony", "formed", "a", "venture", "with", "Ericsson", "."),
            (Entity(0, 1, "Org"), Entity(5, 6, "Org")),
            (Relation("Partner", 1, 0),),
            "deep/a.b",
            0,
        ),
        Sentence(("It", "is", "based", "in", "Sweden", "."), (Entity(4, 5, "Place"),), (), "deep/a.b", 1),
    ]
    assert split.rejected == []


def test_a_sentence_does_not_end_within_a_relation_or_an_entity(tmp_path):
    lines = ["T1\tOrg 0 4\tSony", "T3\tPlace 52 58\tSweden", "R1\tIn Arg1:T1 Arg2:T3"]
    (sentence,) = load("brat", write(tmp_path, SONY, *lines))
    assert len(sentence.tokens) == 13
    assert sentence.relations == (Relation("In", 0, 1),)
    (sentence,) = load("brat", write(tmp_path, SONY, "T1\tOdd 27 39\tEricsson. It"))
    assert texts(sentence) == ["Ericsson . It"]
    assert [len(s.tokens) for s in load("brat", write(tmp_path, SONY, "T1\tOdd 27 36\tEricsson."))] == [7, 6]


def test_an_empty_line_ends_a_sentence_and_a_line_end_does_not(tmp_path):
    text = "A heading\n \nBo lives\nin Oslo\r\n\r\nso far"
    assert [s.tokens for s in load("brat", write(tmp_path, text))] == [
        ("A", "heading"),
        ("Bo", "lives", "in", "Oslo"),
        ("so", "far"),
    ]


def test_a_token_is_cut_at_the_bounds_of_an_entity(tmp_path):
    lines = ["T1\tPlace 4 7\tGPU", "T2\tPlace 0 3\tpre", "T3\tWhole 0 12\tpre-GPUxyz z"]
    (sentence,) = load("brat", write(tmp_path, "pre-GPUxyz z", *lines))
    assert "".join(sentence.tokens) == "pre-GPUxyzz"
    assert texts(sentence)[:2] == ["GPU", "pre"]
    assert sentence.entities[2] == Entity(0, len(sentence.tokens), "Whole")


def test_pieces_are_joined_over_white_space_and_else_left_out_with_their_relations(tmp_path):
    text = "left and right\n  atrium of Bo"
    lines = [
        "T1\tPart 0 4;17 23\tleft atrium",
        "T2\tPart 9 14;17 23\tright atrium",
        "T3\tPerson 27 29\tBo",
        "R1\tOf Arg1:T1 Arg2:T3",
        "R2\tOf Arg1:T2 Arg2:T3",
        "*\tEquiv T1 T2 T3",
        "T4\tPart 17 23;9 14",
    ]
    split = read(write(tmp_path, text, *lines))
    (sentence,) = split.sentences
    assert texts(sentence) == ["right atrium", "Bo"]
    assert sentence.relations == (Relation("Of", 0, 1),)
    figures = split.figures()
    assert figures["rejected"] == {
        "discontinuous entities": 1,
        "discontinuous relations": 1,
        "duplicate entities": 1,
        "undirected relations": 1,
    }
    assert figures["read"] == {"documents": 1, "sentences": 1, "entities": 4, "relations": 3}
    assert [item.detail.split("doc.ann")[1][:7] for item in split.rejected if item.reason == "discontinuous"] == [
        ":1: T1:",
        ":4: R1:",
    ]


def test_events_are_relations_from_trigger_to_arguments(tmp_path):
    text = "Bo said Al won"
    lines = [
        "E1\tSay:T2 Speaker:T1 What:E2 ",
        "T1\tP 0 2\tBo",
        "T2\tSay 3 7\tsaid",
        "T3\tP 8 10\tAl",
        "T4\tWin 11 14\twon",
        "E2\tWin:T4 Who:T3",
        "E3\tWin:T4",
        "R1\tKnows Arg1:T1 Arg2:E3",
    ]
    (sentence,) = load("brat", write(tmp_path, text, *lines))
    assert texts(sentence) == ["Bo", "said", "Al", "won"]
    assert set(sentence.relations) == {
        Relation("Speaker", 1, 0),
        Relation("What", 1, 3),
        Relation("Who", 3, 2),
        Relation("Knows", 0, 3),
    }


def test_argument_names_say_the_order_only_if_they_are_brats(tmp_path):
    lines = ["T1\tP 0 2\tBo", "T2\tP 3 7\tsaid", "R1\ta Arg2:T1 Arg1:T2", "R2\tb Whole:T1 Part:T2"]
    (sentence,) = load("brat", write(tmp_path, "Bo said", *lines))
    assert sentence.relations == (Relation("a", 1, 0), Relation("b", 0, 1))


def test_offsets_count_characters_as_they_are_in_the_file(tmp_path):
    text = "\ufeffÄ 𝄞\r\nBo said"
    (sentence,) = load("brat", write(tmp_path, text, "T1\tP 6 8\tBo", "T2\tÉ 1 4\tÄ 𝄞"))
    assert sentence.tokens == ("Ä", "𝄞", "Bo", "said")
    assert sentence.entities == (Entity(2, 3, "P"), Entity(0, 2, "É"))


GOOD = ["T1\tOrg 0 4\tSony", "T2\tOrg 27 35\tEricsson", "R1\tPartner Arg1:T1 Arg2:T2"]


@pytest.mark.parametrize(
    ("line", "part", "unit"),
    [
        ("T3\tOrg 0 3\tSony", "T3: the text has 'Son' there, the line 'Sony'", "entities"),
        ("T3\tOrg 70 80\tSony", "T3: nothing at 70 to 80 of the text, which has 60 characters", "entities"),
        ("T3\tOrg 4 5", "T3: nothing at 4 to 5", "entities"),
        ("T3\tOrg 4 4\t", "T3: nothing at 4 to 4", "entities"),
        ("T3\tOrg 0 4;\tSony", "T3: 'Org 0 4;'; expected TYPE START END", "entities"),
        ("T3\tOrg -1 4\tSony", "expected TYPE START END", "entities"),
        ("T1\tOrg 27 35\tEricsson", "T1 is given twice", "entities"),
        ("R2\tPartner Arg1:T1", "R2: 'Partner Arg1:T1'; expected TYPE Arg1:ID Arg2:ID", "relations"),
        ("R2\tPartner", "expected NAME:ID", "relations"),
        ("R2\tPartner Arg1:T1 T2", "expected NAME:ID", "relations"),
        ("R2\tPartner Arg1:T1 Arg2:T9", "T9 is no annotation of this file that could be read", "relations"),
        ("E1\tSay:T9", "T9 is no annotation", "events"),
        ("E1\tSay:T1 Who:T9", "T9 is no annotation", "relations"),
        ("X1\tOrg 0 4", "an ID begins with one of", "annotations"),
        ("T3 Org 0 4 Sony", "expected ID, tab, annotation", "annotations"),
    ],
)
def test_malformed_lines_are_named_or_left_out(tmp_path, line, part, unit):
    folder = write(tmp_path, SONY, *GOOD, line)
    message = refused(folder)
    assert message.startswith(f"{folder / 'doc.ann'}:4: ")
    assert part in message
    split = read(folder, skip=True)
    assert split.figures()["rejected"] == {f"malformed {unit}": 1}
    assert split.rejected[0].detail == message
    assert [(texts(s), s.relations) for s in split.sentences] == [
        (["Sony", "Ericsson"], (Relation("Partner", 0, 1),)),
        ([], ()),
    ]


def test_what_names_a_malformed_line_goes_with_it(tmp_path):
    split = read(write(tmp_path, SONY, "T1\tOrg 0 3\tSony", *GOOD[1:]), skip=True)
    assert split.figures()["rejected"] == {"malformed entities": 1, "malformed relations": 1}
    assert split.sentences[0].entities == (Entity(5, 6, "Org"),)


def test_documents_that_cannot_be_read(tmp_path):
    folder = write(tmp_path / "c", SONY, *GOOD)
    (folder / "more.ann").touch()
    assert refused(folder).startswith(f"{folder / 'more.txt'}: No such file")
    (folder / "more.txt").write_bytes(b"\xff")
    assert refused(folder).startswith(f"{folder / 'more.txt'}: not UTF-8")
    (folder / "README.txt").write_text("How this came about.")
    write(folder, " \n", name="none")
    split = read(folder, skip=True)
    assert split.figures()["rejected"] == {
        "empty documents": 1,
        "malformed documents": 1,
        "unannotated documents": 1,
    }
    assert split.figures()["read"]["documents"] == 4
    assert len(split.sentences) == 2
    assert "a file; brat's format is a folder" in refused(folder / "doc.txt")
    assert "no such folder" in refused(tmp_path / "none")


@st.composite
def documents(draw):
    """A text with line ends and sentence ends, and spans of it that begin and end in something visible."""
    text = draw(st.text("ab.é- \n\t\u00a0\u2028", min_size=1, max_size=60))
    visible = [i for i, character in enumerate(text) if not character.isspace()]
    if not visible:
        return text, [], []
    ends = st.tuples(st.sampled_from(visible), st.sampled_from(visible)).map(sorted)
    spans = draw(st.lists(ends.map(lambda pair: (pair[0], pair[1] + 1)), max_size=4, unique=True))
    index = st.integers(0, max(len(spans) - 1, 0))
    links = draw(st.lists(st.tuples(index, index), max_size=3, unique=True)) if spans else []
    return text, spans, links


@given(documents())
def test_every_entity_is_the_text_that_was_marked(tmp_path_factory, document):
    text, spans, links = document
    lines = [f"T{i}\tN{i} {start} {end}" for i, (start, end) in enumerate(spans)]
    lines += [f"R{i}\tr Arg1:T{head} Arg2:T{tail}" for i, (head, tail) in enumerate(links)]
    folder = write(tmp_path_factory.mktemp("brat"), text + "z", *lines)
    sentences = load("brat", folder)
    assert "".join(token for s in sentences for token in s.tokens) == "".join((text + "z").split())
    assert all(s.problem() is None for s in sentences)
    found = {e.type: "".join(s.tokens[e.start : e.end]) for s in sentences for e in s.entities}
    assert found == {f"N{i}": "".join(text[start:end].split()) for i, (start, end) in enumerate(spans)}
    related = [(s.entities[r.head].type, s.entities[r.tail].type) for s in sentences for r in s.relations]
    assert sorted(related) == sorted((f"N{head}", f"N{tail}") for head, tail in links)


def test_cut_and_locate():
    tokens = cut([(0, 4), (5, 6), (8, 12)], [(1, 6), (3, 10), (8, 12)])
    assert tokens == [(0, 1), (1, 3), (3, 4), (5, 6), (8, 10), (10, 12)]
    assert locate(tokens, (1, 6)) == (1, 4)
    assert locate(tokens, (3, 10)) == (2, 5)
    assert locate(tokens, (8, 12)) == (4, 6)
