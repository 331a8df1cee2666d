import re

import pytest

from enpar.given import Given, Mention, read_item
from enpar.records import Unfit
from enpar.sentence import Entity

TEXT = "Ana  Berg left Borealis."
ANA = {"type": "PER", "char_start": 0, "char_end": 9}
TOKENS = ["Ana", "Berg", "left", "Borealis", "."]


def test_a_text_alone_gives_nothing():
    assert read_item({"text": TEXT}) == (TEXT, None)
    assert read_item({"text": TEXT, "entities": None}) == (TEXT, None)
    assert read_item({"text": TEXT, "tokens": 5}) == (TEXT, None)  # a count of them, say
    assert read_item({"text": TEXT, "tokens": TOKENS}) == (TEXT, None)


def test_entities_in_characters():
    text, given = read_item({"text": TEXT, "entities": [ANA, {**ANA, "type": "?", "char_end": 3, "score": 0.5}]})
    assert text == TEXT
    assert given == Given((Mention(0, 9, "PER"), Mention(0, 3, "?")))
    assert read_item({"text": TEXT, "entities": []})[1] == Given(())


def test_a_sentence_is_taken_as_it_is():
    item = {"tokens": TOKENS, "entities": [{"type": "PER", "start": 0, "end": 2}], "orig_id": "doc#7"}
    text, given = read_item(item)
    assert text == "Ana Berg left Borealis ."
    assert given.mentions == (Mention(0, 8, "PER"),)
    assert given.tokens == ((0, 3), (4, 8), (9, 13), (14, 22), (23, 24))
    assert (given.sentence.tokens, given.sentence.entities) == (tuple(TOKENS), (Entity(0, 2, "PER"),))
    assert (given.sentence.doc_id, given.sentence.sent_id, given.start) == ("doc", 7, 0)
    elsewhere = {**item, "entities": [{"type": "PER", "start": 0, "end": 2, "char_start": 101, "char_end": 110}]}
    assert read_item(elsewhere)[1].mentions == (Mention(0, 8, "PER"),)  # they count another text's characters
    unlabelled = read_item({"tokens": TOKENS})[1]
    assert (unlabelled.mentions, unlabelled.sentence.tokens) == (None, tuple(TOKENS))


def test_a_sentence_with_its_own_text_and_characters():
    entities = [{"type": "PER", "start": 0, "end": 2}, {"type": "ORG", "start": 3, "end": 4, "char_start": 116}]
    entities.append({"type": "ORG", "start": 3, "end": 5, "char_start": 116, "char_end": 119})
    text, given = read_item({"tokens": TOKENS, "entities": entities, "text": TEXT, "char_start": 100})
    assert (text, given.start) == (TEXT, 100)
    assert given.tokens == ((0, 3), (5, 9), (10, 14), (15, 23), (23, 24))
    assert given.mentions == (Mention(0, 9, "PER"), Mention(15, 23, "ORG"), Mention(16, 19, "ORG"))


@pytest.mark.parametrize(
    ("item", "reason", "detail"),
    [
        ({"entities": []}, "no text", "no key text"),
        ({"text": TEXT, "entities": "none"}, "bad entities", "expected a list"),
        ({"text": TEXT, "entities": [ANA, "Berg"]}, "bad entities", r"entities\[1\]: type is None"),
        ({"text": TEXT, "entities": [{**ANA, "char_end": 9.0}]}, "bad entities", "char_end is 9.0"),
        ({"text": TEXT, "entities": [{**ANA, "char_start": True}]}, "bad entities", "char_start is True"),
        ({"text": TEXT, "entities": [{**ANA, "char_start": 9}]}, "bad entities", "characters 9 to 9 of a text .* 24"),
        ({"text": TEXT, "entities": [{**ANA, "char_start": -1}]}, "bad entities", "characters -1 to 9"),
        ({"text": TEXT, "entities": [{**ANA, "char_end": 25}]}, "bad entities", "characters 0 to 25"),
        ({"text": TEXT, "entities": [{**ANA, "char_start": 3, "char_end": 5}]}, "bad entities", "white space"),
        ({"text": TEXT, "entities": [{**ANA, "type": "\ud800"}]}, "bad entities", r"\[0\]: type: half a surrogate"),
        ({"tokens": TOKENS, "entities": [ANA]}, "bad sentence", r"entities\[0\]: start is None"),
        ({"tokens": TOKENS, "entities": [{"type": "X", "start": 4, "end": 6}]}, "bad sentence", "has 5 tokens"),
        ({"tokens": [], "entities": []}, "bad sentence", "at least one"),
        ({"tokens": ["\ud800"], "entities": []}, "bad sentence", "surrogate"),
        ({"tokens": TOKENS, "entities": [], "orig_id": "\ud800"}, "bad sentence", "orig_id: half a surrogate"),
        ({"tokens": TOKENS, "entities": [], "text": "Ana Berg left."}, "bad sentence", r"tokens\[3\], 'Borealis'"),
        ({"tokens": TOKENS, "entities": [], "text": TEXT, "char_start": "0"}, "bad sentence", "char_start is '0'"),
        ({"tokens": ["Ana", " "], "entities": [{"type": "X", "start": 1, "end": 2}]}, "bad entities", "white space"),
        (
            {
                "tokens": TOKENS,
                "text": TEXT,
                "entities": [{"type": "X", "start": 0, "end": 1, "char_start": 4, "char_end": 8}],
            },
            "bad entities",
            "its tokens are at characters 0 to 3",
        ),
    ],
)
def test_what_is_malformed_is_said(item, reason, detail):
    with pytest.raises(Unfit) as raised:
        read_item(item)
    assert raised.value.args[0] == reason
    assert re.search(detail, raised.value.args[1]), raised.value.args
