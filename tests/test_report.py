from html.parser import HTMLParser

import pytest

from enpar import report
from enpar.scores import by_type, score
from enpar.sentence import Entity, Relation, Sentence

ADA, BOB = Entity(0, 1, "PER"), Entity(2, 3, "PER")


class Page(HTMLParser):
    """Collects the text, and sees that what is opened is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tags = [], "", set()
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        assert not {"src", "href"} & dict(attributes).keys()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(tmp_path):
    def write(gold, predicted, title="A model"):
        report.write_report(
            tmp_path / "r.html", title, gold, predicted, score(gold, predicted), by_type(gold, predicted)
        )
        assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
        return (tmp_path / "r.html").read_text(encoding="utf-8")

    return write


def test_values_and_errors_are_shown(page):
    gold = [
        Sentence(("fine",), (Entity(0, 1, "PER"),)),
        Sentence(("Ada", "met", "Bob"), (ADA, BOB), (Relation("MET", 0, 1),), "doc", 4),
    ]
    predicted = [gold[0], Sentence(gold[1].tokens, (ADA, Entity(2, 3, "ORG")), (Relation("LEFT", 0, 1),))]
    text = Page(html := page(gold, predicted)).text
    assert (
        "<td>Entities (span and type)</td><td>66.7</td><td>66.7</td><td>66.7</td><td>3</td><td>3</td><td>2</td>" in html
    )
    assert "missed Bob (PER)" in text and "spurious Bob (ORG)" in text
    assert "missed Ada (PER) — MET → Bob (PER)" in text
    assert "spurious Ada (PER) — LEFT → Bob (ORG)" in text
    assert "1 of 2 sentences have an error. All are shown" in text
    assert text.index("doc · 4") < text.index("fine")  # errors first


def test_everything_is_escaped(page):
    evil = "<script>alert(1)</script>"
    gold = [Sentence((evil, "&", '"x"'), (Entity(0, 1, evil), Entity(1, 3, "Y")), (Relation(evil, 0, 1),), evil)]
    for predicted in (gold, [Sentence(gold[0].tokens)]):
        read = Page(page(gold, predicted, title=evil))
        assert "script" not in read.tags
        assert read.text.count(evil) >= 4


def test_overlapping_entities_are_shown_without_breaking_the_page(page):
    gold = [Sentence(tuple("abcd"), (Entity(0, 2, "X"), Entity(1, 4, "Y"), Entity(1, 2, "Z")))]
    text = Page(page(gold, [Sentence(tuple("abcd"))])).text
    assert "missed a b (X)" in text and "missed b c d (Y)" in text and "missed b (Z)" in text


def test_at_most_so_many_sentences_and_it_says_so(page):
    gold = [Sentence((f"word{i}",), (Entity(0, 1, "X"),)) for i in range(report.LIMIT + 50)]
    predicted = [*gold[:-1], Sentence(gold[-1].tokens)]
    html = page(gold, predicted)
    assert html.count("<article>") == report.LIMIT
    assert f"{report.LIMIT} are shown, those with errors first; the others are in predictions.jsonl" in html
    assert f"word{report.LIMIT + 49}" in html and f"word{report.LIMIT - 1} " not in html


def test_an_empty_prediction_and_no_sentence_are_fine(page):
    Page(page([], []))
    Page(page([Sentence(("a",))], [Sentence(("a",))]))
