import json
from html.parser import HTMLParser

import pytest

from enpar.analysis import analyse
from enpar.breakdown import FIGURES
from enpar.mistakes import KINDS
from enpar.report import sentences as shown
from enpar.report import write_report
from enpar.sentence import Entity, Relation, Sentence

ADA, BOB, ACME = Entity(0, 1, "PER"), Entity(2, 3, "PER"), Entity(4, 6, "ORG")
TOKENS = ("Ada", "met", "Bob", "at", "Acme", "Labs")
GOLD = [
    Sentence(TOKENS, (ADA, BOB, ACME), (Relation("MET", 0, 1), Relation("WORKS", 1, 2)), "doc", 4),
    Sentence(("fine",), (Entity(0, 1, "PER"),)),
]
ONE = [
    Sentence(TOKENS, (ADA, Entity(2, 3, "ORG"), ACME), (Relation("LEFT", 0, 1), Relation("WORKS", 2, 1))),
    GOLD[1],
]
TWO = [Sentence(TOKENS, (ADA, BOB), (Relation("MET", 0, 1),)), Sentence(("fine",))]
VOID = {"meta", "use"}


class Page(HTMLParser):
    """Collects tables (rows of cell texts) and scripts, and sees that what is opened is closed and nothing loaded."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tables, self.scripts = [], "", [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert not {"src", "data"} & dict(attributes).keys()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] != ["style"]:
            self.text += data
            if {"td", "th"} & set(self.open):
                self.tables[-1][-1][-1] += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


def content(gold, models, symmetric="directed", relations=(), corpus="corpora/test.jsonl"):
    gold_counts = {"sentences": len(gold), "entities": 0, "relations": 0}
    more = {"gold": gold_counts, "corpus": corpus, "symmetric": symmetric, "symmetric_relations": list(relations)}
    return analyse(gold, models, 100, 1) | more


@pytest.fixture
def write(tmp_path):
    def write(gold, models, **more):
        (tmp_path / "r.json").write_text(json.dumps(values := content(gold, models, **more)))
        write_report(tmp_path / "r.html", values, gold, models)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.json"]
        return json.loads((tmp_path / "r.json").read_text()), Page((tmp_path / "r.html").read_text(encoding="utf-8"))

    return write


def shown_scores(cells):
    """F1, precision, recall, predicted and correct as numbers, for each model."""
    values = [float(cell) for cell in cells]
    return [tuple(values[i : i + 5]) for i in range(0, len(values), 5)]


def in_percent(score):
    fractions = (round(100 * score[name] + 1e-9, 1) for name in ("f1", "precision", "recall"))
    return pytest.approx((*fractions, score["predicted"], score["correct"]), abs=0.051)


def test_report_json_and_the_page_agree(write):
    report, page = write(GOLD, {"one": ONE, "two": TWO})
    models = list(report["models"].values())
    scores, entities, relations, *others = page.tables
    names = ("span", "entity", "relation", "relation_exact")
    by_type = [models[0]["by_type"]["entity"], models[0]["by_type"]["relation_exact"]]
    for table, key, labels in (
        (scores, lambda model: model["scores"], names),
        (entities, lambda model: model["by_type"]["entity"], sorted(by_type[0])),
        (relations, lambda model: model["by_type"]["relation_exact"], ["LEFT", "MET", "WORKS"]),
    ):
        assert table[0] == ["", "one", "two"]
        assert len(table) == 2 + len(labels)
        for label, (_, gold, *cells) in zip(labels, table[2:], strict=True):
            for i, model in enumerate(models):
                if (score := key(model).get(label)) is None:
                    assert cells[5 * i : 5 * i + 5] == ["–"] * 5
                else:
                    assert int(gold) == score["gold"]
                    assert shown_scores(cells[5 * i : 5 * i + 5]) == [in_percent(score)]
    figures, mistakes, matrices = others[:4], others[4], others[5:]
    for figure, table in zip(FIGURES, figures, strict=True):
        rows = [(group, name) for group in models[0]["breakdowns"][figure] for name in report["models"]]
        for (group, name), row in zip(rows, table[1:], strict=True):
            score = report["models"][name]["breakdowns"][figure][group]
            assert row[:2] == [group, name]
            assert [int(cell) for cell in row[3:]] == [score[count] for count in ("gold", "predicted", "correct")]
    for kind, row in zip(KINDS, mistakes[2:-1], strict=True):
        counts = [model["mistakes"][name][kind] for model in models for name in ("entity", "relation_exact")]
        assert row == [kind, *map(str, counts)]
    for model, table in zip(models, matrices, strict=True):
        assert [row[0] for row in table[1:]] == [*model["confusion"]["labels"], "none"]
        counts = [[int(cell or 0) for cell in row[1:]] for row in table[1:]]
        assert counts == model["confusion"]["counts"]


def test_the_figures_sum_to_gold(write):
    report, page = write(GOLD, {"one": ONE})
    for table in page.tables[3:7]:
        assert sum(int(row[3]) for row in table[1:]) == report["scores"]["relation_exact"]["gold"] == 2


def test_a_case_by_hand(write):
    _, page = write(GOLD, {"one": ONE})
    assert page.tables[0][1:] == [  # with one model there is no row of names
        ["Entity spans", "4", "100.0", "100.0", "100.0", "4", "4"],
        ["Entities", "4", "75.0", "75.0", "75.0", "4", "3"],
        ["Relations", "2", "0.0", "0.0", "0.0", "2", "0"],
        ["Relations, exact", "2", "0.0", "0.0", "0.0", "2", "0"],
    ]
    assert "one on test.jsonl" in page.text and "The direction of every relation counts" in page.text
    sentence = page.data["sentences"][0]
    assert (sentence["name"], sentence["tokens"]) == ("doc · 4", list(TOKENS))
    gold, one = sentence["answers"]
    assert gold == {
        "entities": [[0, 1, "PER"], [2, 3, "PER"], [4, 6, "ORG"]],
        "relations": [["MET", 0, 1], ["WORKS", 1, 2]],
    }
    assert one["mistakes"] == [
        ["entity type", 0, 1, 1],
        ["direction", 1, 1, 1],
        ["relation type", 1, 0, 0],
    ]


def test_every_mistake_points_at_its_items(write):
    report, page = write(GOLD, {"one": ONE, "two": TWO})
    for i, model in enumerate(report["models"].values(), 1):
        counts = {"entity": dict.fromkeys(KINDS, 0), "relation_exact": dict.fromkeys(KINDS, 0)}
        for sentence in page.data["sentences"]:
            answer = sentence["answers"][i]
            for kind, relation, gold, predicted in answer["mistakes"]:
                name, items = ("relation_exact", "relations") if relation else ("entity", "entities")
                counts[name][kind] += 1
                assert (gold is None) == (kind == "spurious") and (predicted is None) == (kind == "missed")
                assert gold is None or 0 <= gold < len(sentence["answers"][0][items])
                assert predicted is None or 0 <= predicted < len(answer[items])
        assert counts == model["mistakes"]


def test_everything_is_escaped(write):
    evil = "</script><script>alert(1)</script>"
    gold = [
        Sentence((evil, "&", '"x"', "\u2028"), (Entity(0, 1, evil), Entity(1, 3, "Y")), (Relation(evil, 0, 1),), evil)
    ]
    for predicted in (gold, [Sentence(gold[0].tokens)]):
        _, page = write(gold, {evil: predicted, "$x_1$ & co": predicted}, corpus=f"{evil}$")
        assert len(page.scripts) == 2  # the data and ours
        assert evil in page.text and "$x_1$ & co" in page.text
        data = page.data
        assert data["models"] == [evil, "$x_1$ & co"]
        assert data["sentences"][0]["tokens"] == list(gold[0].tokens)
        assert data["entity_types"] == [evil, "Y"]


def test_what_is_shown_of_symmetric_relations(write):
    _, page = write(GOLD, {"one": ONE}, symmetric="normalised", relations=["MET"])
    assert page.data["symmetric"] == ["MET"]
    assert "Symmetric relations (MET) are right in either direction" in page.text
    _, page = write(GOLD, {"one": ONE}, symmetric="directed", relations=["MET"])
    assert page.data["symmetric"] == []
    assert "symmetric ones included (MET)" in page.text


def test_differences_are_shown_with_their_intervals(write):
    report, page = write(GOLD, {"one": ONE, "two": TWO})
    for found in report["comparisons"][0]["scores"].values():
        numbers = (f"{100 * value:+.1f}".replace("-", "−") for value in (found["difference"], *found["interval"]))
        assert "Δ {} [{}, {}], p = {:.3f}".format(*numbers, found["p"]) in page.text
    assert page.text.count("Δ") == 5  # four scores and the note


def test_at_most_so_many_sentences_those_with_mistakes_first(write, monkeypatch):
    monkeypatch.setattr(shown, "LIMIT", 3)
    gold = [Sentence((f"word{i}",), (Entity(0, 1, "X"),)) for i in range(6)]
    predicted = [Sentence(s.tokens, s.entities if i not in (2, 5) else ()) for i, s in enumerate(gold)]
    _, page = write(gold, {"one": predicted})
    assert page.data["total"] == 6
    assert [sentence["tokens"] for sentence in page.data["sentences"]] == [["word0"], ["word2"], ["word5"]]


def test_a_corpus_without_relations_or_entities_is_fine(write):
    bare = [Sentence(("a",))]
    report, page = write(bare, {"one": bare})
    assert report["scores"]["entity"]["f1"] == 0
    assert page.data["sentences"][0]["answers"] == [
        {"entities": [], "relations": []},
        {"entities": [], "relations": [], "mistakes": []},
    ]
