"""The formats that are sentences or documents in JSON: what each form means, and that nothing is lost on the way."""

import pytest
from corpus_files import refused, write
from hypothesis import given
from hypothesis import strategies as st

from enpar.corpora import load, read
from enpar.sentence import Entity, Relation, Sentence

NAMES = st.text("AbČ-", min_size=1, max_size=4)
WORDS = st.text("aBč,.\u00ad", min_size=1, max_size=4)


@st.composite
def sentences(draw, distinct=False):
    """Sentences without a place in a document; `distinct`: no entity or relation twice, no two labels on one span."""
    tokens = draw(st.lists(WORDS, min_size=1, max_size=8))
    bounds = st.tuples(st.integers(0, len(tokens) - 1), st.integers(1, len(tokens))).filter(lambda b: b[0] < b[1])
    spans = draw(st.lists(bounds, max_size=4, unique=distinct))
    entities = tuple(Entity(*span, draw(NAMES)) for span in spans)
    index = st.integers(0, max(len(entities) - 1, 0))
    relations = (
        draw(st.lists(st.builds(Relation, NAMES, index, index), max_size=3, unique=distinct)) if entities else []
    )
    return Sentence(tuple(tokens), entities, tuple(relations))


def in_place(some, doc_id="D"):
    return [Sentence(s.tokens, s.entities, s.relations, doc_id, i) for i, s in enumerate(some)]


# ---- ENPAR and UniRE ------------------------------------------------------------------------------------------------


def to_enpar(sentence):
    text = [" ".join(sentence.tokens[e.start : e.end]) for e in sentence.entities]
    return {
        "sentId": sentence.sent_id,
        "articleId": sentence.doc_id,
        "sentText": " ".join(sentence.tokens),
        "entityMentions": [
            {"emId": f"E{i}", "text": text[i], "offset": [e.start, e.end], "label": e.type}
            for i, e in enumerate(sentence.entities)
        ],
        "relationMentions": [
            {
                "em1Id": f"E{r.head}",
                "em2Id": f"E{r.tail}",
                "em1Text": text[r.head],
                "em2Text": text[r.tail],
                "label": r.type,
            }
            for r in sentence.relations
        ],
    }


@given(st.lists(sentences(), min_size=1, max_size=3))
def test_enpar_round_trip(tmp_path_factory, some):
    some = in_place(some)
    path = write(tmp_path_factory.mktemp("enpar") / "x.json", *map(to_enpar, some))
    assert load("enpar", path) == some


ADA = to_enpar(
    Sentence(("Ada", "met", "Bob"), (Entity(0, 1, "P"), Entity(2, 3, "P")), (Relation("MET", 1, 0),), "doc", 7)
)


def test_enpar_takes_a_sentence_id_that_is_no_number(tmp_path):
    path = write(tmp_path / "x.json", ADA | {"sentId": "12"}, ADA | {"sentId": "s1"}, ADA | {"sentId": 99999999999})
    assert [(s.doc_id, s.sent_id) for s in load("enpar", path)] == [("doc", 12), ("doc", 0), ("doc", 0)]


MENTION = ADA["entityMentions"][0]
LINK = ADA["relationMentions"][0]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"sentText": 3}, "sentText is 3; expected text"),
        ({"entityMentions": None}, "entityMentions: expected a list, found nothing"),
        ({"entityMentions": ["E1"]}, "entityMentions[0]: expected an object, found str"),
        ({"entityMentions": [MENTION | {"offset": [1]}]}, "entityMentions[0]: offset is [1]; expected [start, end]"),
        ({"entityMentions": [MENTION | {"offset": [True, 2]}]}, "entityMentions[0]: offset is [True, 2]; expected"),
        ({"entityMentions": [MENTION | {"offset": [2, 4]}]}, "offset [2, 4) lies outside the sentence, which has 3"),
        ({"entityMentions": [MENTION | {"offset": [1, 1]}]}, "offset [1, 1) lies outside"),
        ({"entityMentions": [MENTION, MENTION]}, "entityMentions[1]: emId E0 is given twice"),
        ({"entityMentions": [MENTION | {"label": ""}]}, "entityMentions[0]: label is ''; expected text"),
        ({"relationMentions": [LINK | {"em2Id": "E9"}]}, "relationMentions[0]: E9 is no emId of the sentence"),
        ({"relationMentions": [LINK | {"label": None}]}, "relationMentions[0]: label is None; expected text"),
    ],
)
def test_enpar_names_what_is_malformed(tmp_path, change, part):
    path = write(tmp_path / "x.json", ADA, ADA | change)
    assert (message := refused("enpar", path)).startswith(f"{path}:2: ")
    assert part in message


# ---- DyGIE++ --------------------------------------------------------------------------------------------------------


def to_document(some, doc_key="D"):
    document = {"doc_key": doc_key, "sentences": [], "ner": [], "relations": [], "clusters": []}
    offset = 0
    for s in some:
        spans = [[offset + e.start, offset + e.end - 1] for e in s.entities]
        document["sentences"].append(list(s.tokens))
        document["ner"].append([[*span, e.type] for span, e in zip(spans, s.entities, strict=True)])
        document["relations"].append([[*spans[r.head], *spans[r.tail], r.type] for r in s.relations])
        offset += len(s.tokens)
    return document


@given(st.lists(sentences(distinct=True), min_size=1, max_size=4))
def test_documents_round_trip_in_both_formats(tmp_path_factory, some):
    some = in_place(some)
    document = to_document(some)
    path = write(tmp_path_factory.mktemp("documents") / "x.json", document)
    assert load("scierc", path) == load("dygie", path) == some
    # Null in place of each empty list, and nothing at all where all of them are empty.
    sparse = {k: [part or None for part in v] if k in ("ner", "relations") else v for k, v in document.items()}
    sparse = {k: v for k, v in sparse.items() if k not in ("ner", "relations") or any(v)}
    assert load("dygie", write(path, sparse | {"_sentence_start": [100, 200], "events": [[]]})) == some


def test_dygie_is_as_strict_as_scierc_about_what_is_there(tmp_path):
    document = {"doc_key": "D", "sentences": [["a"], ["b"]]}
    path = write(tmp_path / "x.json", document | {"ner": None, "relations": None})
    assert load("dygie", path) == [Sentence(("a",), (), (), "D", 0), Sentence(("b",), (), (), "D", 1)]
    assert "ner has 1 lists, but there are 2" in refused("dygie", write(path, document | {"ner": [None]}))
    assert "ner: expected a list with one list for each" in refused("dygie", write(path, document | {"ner": [3, None]}))
    assert "ner: expected a list with one list for each" in refused("dygie", write(path, document | {"ner": 0}))
    assert "[1, 1] lies outside the sentence" in refused(
        "dygie", write(path, document | {"ner": [[[1, 1, "A"]], None]})
    )
    assert "sentences: expected a list" in refused("dygie", write(path, {"doc_key": "D"}))


# ---- NYT ------------------------------------------------------------------------------------------------------------


def nyt(text, mentions, *relations):
    return {
        "sentText": text,
        "articleId": "a.xml",
        "sentId": "3",
        "entityMentions": [{"start": i, "text": name, "label": label} for i, (name, label) in enumerate(mentions)],
        "relationMentions": [
            {"em1Text": one, "em2Text": two, "label": label, **more} for one, two, label, *rest in relations
            for more in (rest or [{}])
        ],
    }  # fmt: skip


def one(tmp_path, item):
    split = read(write(tmp_path / "x.json", item), "nyt")
    assert len(split.sentences) == 1
    return split.sentences[0], split.figures()["rejected"]


def spans(sentence):
    return [(" ".join(sentence.tokens[e.start : e.end]), e.start, e.type) for e in sentence.entities]


def test_nyt_with_none_noise_and_repeated_relations(tmp_path):
    item = nyt(
        "Senator Ben Nelson , Democrat of Nebraska . ''\r\n",
        [("Ben Nelson", "PERSON"), ("Nebraska", "LOCATION")],
        ("Ben Nelson", "Nebraska", "lived"),
        ("Nebraska", "Ben Nelson", "None"),
        ("Ben Nelson", "Nebraska", "lived", {"is_noise": False}),
        ("Ben Nelson", "Nebraska", "born", {"is_noise": True}),
        ("Nebraska", "Ben Nelson", "home"),
    )
    sentence, rejected = one(tmp_path, item)
    assert sentence == Sentence(
        ("Senator", "Ben", "Nelson", ",", "Democrat", "of", "Nebraska", ".", "''"),
        (Entity(1, 3, "PERSON"), Entity(6, 7, "LOCATION")),
        (Relation("lived", 0, 1), Relation("home", 1, 0)),
        "a.xml",
        3,
    )
    assert rejected == {"duplicate relations": 1}


def test_nyt_takes_the_kth_occurrence_for_the_kth_mention_of_a_text(tmp_path):
    text = "Oslo or Oslo or Oslo"
    sentence, rejected = one(tmp_path, nyt(text, [("Oslo", "A"), ("Oslo", "B")]))
    assert spans(sentence) == [("Oslo", 0, "A"), ("Oslo", 2, "B")]
    assert rejected == {}
    sentence, rejected = one(tmp_path, nyt("in Oslo", [("Oslo", "A"), ("Oslo", "A"), ("Oslo", "B")]))
    assert spans(sentence) == [("Oslo", 1, "A"), ("Oslo", 1, "B")]
    assert rejected == {"duplicate entities": 1}


def test_nyt_takes_occurrences_within_longer_mentions_last(tmp_path):
    text = "New York Times of New York"
    sentence, _ = one(tmp_path, nyt(text, [("New York", "L"), ("New York Times", "O"), ("New York", "M")]))
    assert spans(sentence) == [("New York", 4, "L"), ("New York Times", 0, "O"), ("New York", 0, "M")]


def test_nyt_takes_the_nearest_of_repeated_mentions(tmp_path):
    text = "Oslo , far from Norway , said Bo of Oslo , Norway"
    mentions = [("Oslo", "L"), ("Norway", "L"), ("Bo", "P"), ("Oslo", "L"), ("Norway", "L")]
    relations = [("Norway", "Oslo", "contains"), ("Bo", "Norway", "nation"), ("Oslo", "Oslo", "same")]
    sentence, _ = one(tmp_path, nyt(text, mentions, *relations))
    # contains: 1 token between those at the end; nation: 2 tokens to either side, so the first is meant.
    assert sentence.relations == (Relation("contains", 4, 3), Relation("nation", 2, 1), Relation("same", 0, 3))
    sentence, _ = one(tmp_path, nyt("in Oslo", [("Oslo", "L")], ("Oslo", "Oslo", "same")))
    assert sentence.relations == (Relation("same", 0, 0),)


def test_nyt_splits_tokens_only_where_a_text_is_nowhere_whole(tmp_path):
    sentence, _ = one(tmp_path, nyt("the U.S.-led force", [("U.S.", "L")]))
    assert sentence.tokens == ("the", "U.S.", "-led", "force")
    assert spans(sentence) == [("U.S.", 1, "L")]
    sentence, _ = one(tmp_path, nyt("Iranian and Iran", [("Iran", "L")]))
    assert sentence.tokens == ("Iranian", "and", "Iran")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"entityMentions": [{"text": "Bob", "label": "P"}]}, "entityMentions[0]: 'Bob' does not occur in sentText"),
        ({"entityMentions": None}, "entityMentions: expected a list"),
        (
            {"relationMentions": [{"em1Text": "Ada", "em2Text": "Eve", "label": "x"}]},
            "relationMentions[0]: 'Eve' is no text of the sentence's entityMentions",
        ),
        ({"relationMentions": [{"em1Text": "Ada", "label": "x"}]}, "relationMentions[0]: em2Text is None"),
        ({"sentText": " "}, "sentText is ' '; expected text"),
    ],
)
def test_nyt_names_what_is_malformed(tmp_path, change, part):
    item = nyt("Ada met Eve", [("Ada", "P")])
    path = write(tmp_path / "x.json", item, item | change)
    assert (message := refused("nyt", path)).startswith(f"{path}:2: ")
    assert part in message


@given(sentences(distinct=True))
def test_nyt_entities_have_the_text_that_was_given(tmp_path_factory, sentence):
    mentions = [(" ".join(sentence.tokens[e.start : e.end]), e.type) for e in sentence.entities]
    path = write(tmp_path_factory.mktemp("nyt") / "x.json", nyt(" ".join(sentence.tokens), mentions))
    split = read(path, "nyt")
    (found,) = split.sentences
    assert found.tokens == sentence.tokens
    assert {(text, label) for text, _, label in spans(found)} == set(mentions)
    assert split.figures()["read"]["entities"] == len(mentions)
