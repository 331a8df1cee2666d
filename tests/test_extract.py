import json
import subprocess
import sys

import pytest
import torch
from encoders import tiny_encoder

from enpar.config import ExtractJob
from enpar.errors import UserError
from enpar.extract import Extractor, run
from enpar.extraction import start
from enpar.model.joint import Labels
from enpar.settings import parse

PARAGRAPH = (
    "  Ana Berg founded Borealis in 1998. Two years later, she sold it to Dunmore Press!\n\n"
    "“Why?” asked Tomas Lindqvist,\twho had worked there.  Nobody knew…"
)
HARD = {
    "paragraph": PARAGRAPH,
    "emoji": "Ana 👩‍👩‍👧‍👦 met 🇳🇴 Tomas. They 😀😀 laughed!",
    "right to left": "אנה ברג עבדה בבוראליס. آنا تعمل في بورياليس. Ana ‏עבדה‎ there.",
    "control characters": "Ana\x00 Berg\x07 founded\x1b[31m Borealis.\r\nTomas\u200b left\ufeff. \x85 \u2028End.",
    "combining": "E\u0301lodie fonda l\u2019E\u0301cole. Ṡ\u0323ome more.",
    "one sentence of 50 kB": "Ana and Tomas of Borealis met " * 1700,
    "one word of 50 kB": "x" * 50_000,
    "white space in bulk": "Ana" + " \n" * 3000 + "Berg left.",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model, which finds much."""
    folder = tmp_path_factory.mktemp("extract")
    encoder = tiny_encoder(folder / "encoder", PARAGRAPH.split(), positions=128)
    torch.set_num_threads(1)  # the other core may be another test's
    torch.manual_seed(5)
    extraction = start(str(encoder), True, Labels(("ORG", "PER"), ("owns",)), 0.1, "fp32")
    with torch.no_grad():
        extraction.model.entity_classifier.bias[0] = extraction.model.relation_classifier.bias[0] = -5
        extraction.model.span_classifier.bias[0] = -0.3
    (folder / "model").mkdir()
    extraction.save(folder / "model", {"precision": "fp32"}, "card")
    return folder / "model"


@pytest.fixture(scope="module")
def extractor(model):
    return Extractor(model)


def check(record, text):
    assert text[record["char_start"] : record["char_end"]] == record["text"]
    assert record["tokens"] and record["text"].strip()
    for entity in record["entities"]:
        assert text[entity["char_start"] : entity["char_end"]] == entity["text"] != ""
        assert record["tokens"][entity["start"]] == entity["text"][: len(record["tokens"][entity["start"]])]
        assert 0 < entity["score"] <= 1
    for relation in record["relations"]:
        assert relation["head"] != relation["tail"]
        assert max(relation["head"], relation["tail"]) < len(record["entities"])
        assert 0 < relation["score"] <= 1


@pytest.mark.parametrize("name", HARD)
def test_offsets_slice_the_document(extractor, name):
    text = HARD[name]
    records = extractor(text)
    for record in records:
        check(record, text)
    if name != "one word of 50 kB":
        assert any(record["entities"] for record in records)
    # Nothing visible is lost between sentences, nor between tokens.
    assert visible("".join(token for record in records for token in record["tokens"])) == visible(text)


def visible(text):
    return "".join(text.split())


def test_texts_are_numbered_and_empty_ones_give_nothing(extractor):
    records = extractor(["Ana left.", "", " \n ", "Tomas left. Ana stayed."])
    assert [record["orig_id"] for record in records] == ["0", "3", "3#1"]
    assert extractor("") == extractor([]) == []
    with pytest.raises(UserError, match="surrogate"):
        extractor("half \ud83d of one")


def test_texts_together_give_what_each_gives_alone(extractor):
    together = extractor(list(HARD.values())[:4])
    alone = [record for text in list(HARD.values())[:4] for record in extractor(text)]

    def spans(records):
        return [[(e["type"], e["start"], e["end"]) for e in record["entities"]] for record in records]

    assert spans(together) == spans(alone)


def test_a_folder_in_a_folder_out(model, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text(PARAGRAPH, encoding="utf-8")
    (tmp_path / "texts/b.txt").write_text("")
    (tmp_path / "texts/c.txt").write_bytes(b"\xff\xfe")
    lines = [json.dumps({"text": text, "id": name}) for name, text in HARD.items()]
    (tmp_path / "texts/d.jsonl").write_text("\n".join([*lines, "{", '{"text": ""}']))
    job = [f"model={model}", f"input={tmp_path / 'texts'}", f"output={tmp_path / 'out'}", "tracking.enabled=false"]
    result = run(parse(ExtractJob, job))
    assert result["documents"] == 3 + len(HARD) + 2
    assert result["rejected"] == {"empty": 2, "not JSON": 1, "not UTF-8": 1}
    assert result["documents"] == result["kept"] + sum(result["rejected"].values())
    records = [json.loads(line) for line in (tmp_path / "out/sentences.jsonl").read_text("utf-8").splitlines()]
    assert len(records) == result["sentences"]
    assert sum(len(record["entities"]) for record in records) == result["entities"] > 0
    assert sum(len(record["relations"]) for record in records) == result["relations"] > 0
    texts = {"a.txt": PARAGRAPH, **HARD}
    for record in records:
        check(record, texts[record["orig_id"].partition("#")[0]])
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert [reject["reason"] for reject in rejected] == ["empty", "not UTF-8", "not JSON", "empty"]
    assert run(parse(ExtractJob, job)) == result


def test_output_may_not_lie_in_the_input(model, tmp_path):
    (tmp_path / "a.txt").write_text("Ana left.")
    with pytest.raises(UserError, match="overlap"):
        run(parse(ExtractJob, [f"model={model}", f"input={tmp_path}", f"output={tmp_path / 'out'}"]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["model=nowhere"], "nowhere"),
        (["input=nowhere.txt"], "nowhere.txt"),
        (["spacy_model=no_such_pipeline"], "no_such_pipeline"),
    ],
)
def test_the_users_mistakes(model, tmp_path, changes, part):
    (tmp_path / "a.txt").write_text("Ana left.")
    given = [f"model={model}", f"input={tmp_path / 'a.txt'}", f"output={tmp_path / 'out'}", *changes]
    with pytest.raises(UserError, match=part):
        run(parse(ExtractJob, given))
    assert not (tmp_path / "out").exists()


def test_an_empty_standard_input_gives_no_line(model, tmp_path):
    command = [sys.executable, "-m", "enpar", "extract", f"model={model}", "input=-", "output=-"]
    done = subprocess.run(command, input=b" \n", capture_output=True, cwd=tmp_path, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b'"rejected": {"empty": 1}' in done.stderr
    done = subprocess.run(command, input=b"\xff", capture_output=True, cwd=tmp_path, check=False, timeout=120)
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr
    assert list(tmp_path.iterdir()) == []
