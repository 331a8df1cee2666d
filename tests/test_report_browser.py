"""The page in a real browser; `make test-browser` runs this, `make test` does not."""

import pytest
from browser import chromium
from test_report import GOLD, ONE, TWO, content

from enpar.report import write_report
from enpar.sentence import Entity, Relation, Sentence

pytestmark = pytest.mark.browser

EVIL = "</script><img src=http://x.invalid onerror=alert(1)><script>throw 1</script>"
# As many as make two pages, one with what might break the drawing: markup, entities that cross, a relation to itself.
ODD = Sentence(
    (EVIL, "\u202e", "b", "c", "d"),
    (Entity(0, 3, EVIL), Entity(2, 5, "X"), Entity(2, 3, "X"), Entity(2, 3, "Y")),
    (Relation(EVIL, 0, 1), Relation("R", 2, 2), Relation("R", 3, 0)),
)
MANY = [*GOLD, ODD, *[Sentence((f"w{i}",), (Entity(0, 1, "PER"),)) for i in range(22)]]
MODELS = {
    "one": [*ONE, Sentence(ODD.tokens, ODD.entities[:2]), *(Sentence(s.tokens) for s in MANY[3:])],
    EVIL: [*TWO, ODD, *MANY[3:]],
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(params=[(1400, 900), (390, 800)], ids=["screen", "phone"])
def page(request, browser, tmp_path):
    write_report(tmp_path / "r.html", content(MANY, MODELS), MANY, MODELS)
    browser.size(*request.param)
    browser.complaints.clear()
    browser.open(tmp_path / "r.html")
    yield browser
    browser.evaluate("0")  # what was complained of until here has arrived then
    assert browser.complaints == []


def test_complaints_are_heard(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<script>console.error('one'); fetch('http://x.invalid'); throw 'two'</script>")
    browser.complaints.clear()
    browser.open(tmp_path / "bad.html")
    said = " ".join(browser.complaints)
    assert all(part in said for part in ("one", "two", "asks the network for http://x.invalid"))


def articles(page):
    return page.evaluate("document.querySelectorAll('#list article').length")


def found(page):
    return page.evaluate("document.getElementById('found').textContent.trim()")


def choose(page, name, text):
    page.evaluate(
        f"(() => {{ const s = document.querySelector(`select[name='{name}']`);"
        f"s.value = [...s.options].find((o) => o.text === {text!r}).value; s.dispatchEvent(new Event('change')); }})()"
    )


def test_a_filter_shows_the_sentences_with_such_a_mistake(page):
    assert found(page) == "25 of 25 sentences."
    page.click("button[data-kind='direction']")
    assert found(page) == "1 of 25 sentences."
    assert articles(page) == 1
    assert page.evaluate("document.querySelector('#list h4').textContent") == "doc · 4"
    assert page.evaluate("document.querySelector('[aria-pressed=true]').dataset.kind") == "direction"
    lines = page.evaluate("[...document.querySelectorAll('.mistakes li')].map((li) => li.textContent)")
    assert "direction Acme Labs (ORG) — WORKS → Bob (ORG) · gold: Bob (PER) — WORKS → Acme Labs (ORG)" in lines
    page.click("button[data-kind='boundary']")
    assert found(page) == "0 of 25 sentences." and articles(page) == 0


def test_filters_by_type_and_model(page):
    page.click("button[data-kind='missed']")
    assert found(page) == "25 of 25 sentences."
    choose(page, "Mistakes of", EVIL)
    assert found(page) == "2 of 25 sentences."  # Acme and WORKS; fine
    choose(page, "Type", "ORG")
    assert found(page) == "1 of 25 sentences."
    choose(page, "Type", "WORKS")
    assert found(page) == "1 of 25 sentences."
    choose(page, "Type", "MET")
    assert found(page) == "0 of 25 sentences."
    page.click("button[data-kind='all']")
    assert found(page) == "1 of 25 sentences."


def test_leafing(page):
    assert articles(page) == 20
    page.click(".pager:last-of-type .next")
    assert articles(page) == 5
    assert page.evaluate("document.querySelector('.pager span').textContent") == "Page 2 of 2"
    assert page.evaluate("document.querySelector('.pager .next').disabled") is True
    page.click(".pager .previous")
    assert articles(page) == 20


def test_gold_and_every_model_are_drawn_one_above_the_other(page):
    first = "document.querySelector('#list article')"
    assert page.evaluate(f"[...{first}.querySelectorAll('.who')].map((e) => e.textContent)") == ["gold", "one", EVIL]
    tops = page.evaluate(f"[...{first}.querySelectorAll('.row')].map((e) => e.getBoundingClientRect().top)")
    assert tops == sorted(tops)
    marks = page.evaluate(
        f"[...{first}.querySelectorAll('.row')].map((r) => [...r.querySelectorAll('mark')].map((m) => m.textContent))"
    )
    assert marks == [
        ["AdaPER", "BobPER", "Acme LabsORG"],
        ["AdaPER", "BobORG", "Acme LabsORG"],
        ["AdaPER", "BobPER"],
    ]
    arcs = page.evaluate(f"[...{first}.querySelectorAll('svg')].map((s) => s.getAttribute('aria-label'))")
    assert arcs[0] == "Ada (PER) — MET → Bob (PER); Bob (PER) — WORKS → Acme Labs (ORG)"
    wrong = page.evaluate(f"[...{first}.querySelectorAll('.wrong')].map((e) => e.tagName)")
    assert wrong == ["MARK", "g", "g"]  # Bob as ORG, and both relations of the first model


def test_what_a_corpus_holds_is_text(page):
    odd = "document.querySelectorAll('#list article')[2]"
    assert page.evaluate(f"{odd}.querySelector('.text').textContent").startswith(EVIL)
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    # Crossing entities: the one that must close early is opened again, and every token stands there once.
    texts = page.evaluate(
        f"[...{odd}.querySelectorAll('.text')].map((text) => {{ const copy = text.cloneNode(true);"
        "copy.querySelectorAll('small, svg').forEach((label) => label.remove()); return copy.textContent; })"
    )
    assert texts == [" ".join(ODD.tokens)] * 3


def test_the_page_is_no_wider_than_the_window(page):
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("innerWidth") in (1400, 390)  # a phone would zoom out
