import io
import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import torch
from broken import break_off, keep_parts
from encoders import tiny_encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from enpar import Extractor
from enpar.config import ExtractJob
from enpar.errors import UserError
from enpar.extract import run
from enpar.extraction import start
from enpar.model.joint import Labels
from enpar.sentence import from_json
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
    "signs without white space": "Ana (" + "(\U0001f600\u201d" * 1500 + " left.",
    "byte order mark": "\ufeffAna\ufeff left.",
    "line ends": "Ana\rBerg left.\r\nTomas\n\rstayed.\r",
}
# What text may be made of; the model knows some of the words.
BITS = ["Ana", "Berg", "Tomas Lindqvist", " ", "  ", ". ", "!", "\r", "\n", "\t", "\x00", "\x85", "\u2028", "\ufeff"]
BITS += ["\u202e", "\u200d", "\u0301", "אנה", "آنا", "👩‍👩‍👧‍👦", "🇳🇴", "é", "\U000e0041"]
ODD = st.lists(st.one_of(st.sampled_from(BITS), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)))
TEXTS = ODD.map("".join)


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
        if "score" in entity:
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


def test_a_long_run_without_white_space_is_no_end_of_a_sentence(extractor):
    (record,) = extractor(HARD["signs without white space"])
    assert len(record["tokens"]) == 2 + 3 * 1500 + 2


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(TEXTS, max_size=3))
def test_offsets_slice_whatever_text_there_is(extractor, texts):
    records = extractor(texts)
    for record in records:
        check(record, texts[int(record["orig_id"].partition("#")[0])])
    assert visible("".join(token for record in records for token in record["tokens"])) == visible("".join(texts))


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


def test_standard_input_may_begin_with_a_byte_order_mark(model, monkeypatch, capsys):
    raw = "\ufeffAna Berg left. Tomas stayed.".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert run(parse(ExtractJob, [f"model={model}", "input=-", "output=-"])) is None
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["text"] for record in records] == ["Ana Berg left.", "Tomas stayed."]
    for record in records:
        check(record, raw.decode())


def test_importing_enpar_takes_no_time():
    program = """
import sys
import enpar
assert not {"torch", "spacy", "ray", "numpy", "pyarrow"} & set(sys.modules)
from enpar import Extractor
assert not {"torch", "spacy", "ray"} & set(sys.modules)
assert not hasattr(enpar, "Nothing")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# ---- Given entities -------------------------------------------------------------------------------------------------


def relations(record):
    """The relations of a record by what they relate, with their scores."""
    texts = [(entity["char_start"], entity["char_end"]) for entity in record["entities"]]
    return {
        (r["type"], texts[r["head"]], texts[r["tail"]]): pytest.approx(r["score"], abs=1e-4)
        for r in record["relations"]
    }


def test_what_is_written_is_read_again_and_related_alike(extractor):
    found = extractor(PARAGRAPH)
    assert sum(len(record["relations"]) for record in found) > 1
    again = extractor([{**record, "relations": []} for record in found])
    for record, other in zip(found, again, strict=True):
        entities = [{key: value for key, value in entity.items() if key != "score"} for entity in record["entities"]]
        assert {**other, "relations": []} == {**record, "entities": entities, "relations": []}
        assert relations(other) == relations(record)


def test_entities_in_characters_are_related_as_those_that_are_found(extractor):
    found = extractor(PARAGRAPH)
    entities = [
        {key: entity[key] for key in ("type", "char_start", "char_end")} for r in found for entity in r["entities"]
    ]
    given = extractor({"text": PARAGRAPH, "entities": entities[::-1]})
    assert [record["text"] for record in given] == [record["text"] for record in found]
    for record, other in zip(found, given, strict=True):
        assert relations(other) == relations(record)
        assert [e["text"] for e in other["entities"]] == [e["text"] for e in record["entities"]][::-1]


def test_entities_may_overlap_cut_tokens_and_reach_across_sentences(extractor):
    text = "Ana Berg left. Tomas stayed. Nobody."
    places = [("PER", 0, 8), ("?", 4, 7), ("PER", 0, 3), ("EVENT", 9, 20), ("PER", 0, 8), ("X", 3, 5), ("Y", 14, 21)]
    entities = [{"type": kind, "char_start": start, "char_end": end} for kind, start, end in places]
    first, second = extractor({"text": text, "entities": entities})
    assert (first["text"], second["text"]) == ("Ana Berg left. Tomas stayed.", "Nobody.")
    found = [(e["type"], e["char_start"], e["char_end"], e["start"], e["end"]) for e in first["entities"]]
    spans = [(0, 2), (1, 2), (0, 1), (2, 5), (0, 2), (1, 2), (4, 5)]
    assert found == [(*place, *span) for place, span in zip(places, spans, strict=True)]
    assert all("score" not in entity for entity in first["entities"])
    check(first, text)
    assert second["entities"] == second["relations"] == []
    related = {frozenset((r["head"], r["tail"])) for r in first["relations"]}
    assert {0, 2} in related and {0, 4} not in related  # of the same tokens, nothing relates one to the other


def test_an_entity_across_windows_is_kept_and_not_related(extractor):
    tokens = ["Ana", "met", "Tomas", "."] * 60  # windows of 126 wordpieces
    spans = [(0, 1), (2, 3), (100, 140), (236, 237), (238, 239), (0, 240)]
    entities = [{"type": "PER", "start": start, "end": end} for start, end in spans]
    (record,) = extractor({"tokens": tokens, "entities": entities})
    assert [(e["start"], e["end"]) for e in record["entities"]] == spans
    assert {frozenset((r["head"], r["tail"])) for r in record["relations"]} == {frozenset((0, 1)), frozenset((3, 4))}


@settings(deadline=None, max_examples=60)
@given(text=TEXTS, draws=st.data())
def test_given_entities_come_out_as_they_went_in(extractor, text, draws):
    places = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), st.sampled_from("XY"))
    places = draws.draw(st.lists(places.filter(lambda place: text[place[0] : place[1]].strip()), max_size=5))
    entities = [{"char_start": start, "char_end": end, "type": kind} for start, end, kind in places]
    records = extractor({"text": text, "entities": entities})
    for record in records:
        check(record, text)
        for entity in record["entities"]:
            covered = "".join(record["tokens"][entity["start"] : entity["end"]])
            assert visible(entity["text"]) in visible(covered)
    assert Counter((e["char_start"], e["char_end"], e["type"]) for r in records for e in r["entities"]) == Counter(
        places
    )


def test_bad_entities_are_the_users_mistake(extractor):
    with pytest.raises(UserError, match=r"text 1: bad entities: entities\[0\]: characters 0 to 9"):
        extractor(["Ana.", {"text": "Ana.", "entities": [{"type": "PER", "char_start": 0, "char_end": 9}]}])


# ---- Folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Twelve lines in two files, with and without entities; one is rejected."""
    entities = [{"type": "PER", "char_start": 0, "char_end": 3}, {"type": "PER", "char_start": 8, "char_end": 13}]
    lines = [{"text": f"Ana met Tomas in {year}. Borealis paid them."} for year in range(1990, 1997)]
    lines += [{"text": "Ana met Tomas.", "entities": entities}, {"text": "Ana", "entities": entities}]
    lines += [{"tokens": ["Ana", "met", "Tomas"], "entities": [], "orig_id": "s#4"}, {"text": "Tomas left."}]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "in/b.txt").write_text(PARAGRAPH, encoding="utf-8")
    return tmp_path / "in"


def job(model, folder, output, **more):
    given = {"documents_per_part": 3, "num_workers": 0, "tracking.enabled": "false", **more}
    return parse(
        ExtractJob, [f"model={model}", f"input={folder}", f"output={output}", *(f"{k}={v}" for k, v in given.items())]
    )


def content(folder):
    """What a finished output holds, but for its settings, the time it took, and last digits."""
    result = json.loads((folder / "manifest.json").read_text())["result"] | {"seconds": 0, "output": ""}
    records = [json.loads(line) for line in (folder / "sentences.jsonl").read_text("utf-8").splitlines()]
    for record in records:
        for one in record["entities"] + record["relations"]:
            one.pop("score", None)
    names = sorted(path.name for path in folder.iterdir())
    return result, names, (folder / "rejected.jsonl").read_text(), records


def test_ray_and_parts_change_nothing(ray_session, model, folder, tmp_path):
    result = run(job(model, folder, tmp_path / "one", documents_per_part=100))
    counts = {"documents": 12, "kept": 11, "rejected": {"bad entities": 1}}
    assert {name: result[name] for name in counts} == counts
    run(job(model, folder, tmp_path / "here"))
    run(job(model, folder, tmp_path / "ray", num_workers=1))
    assert content(tmp_path / "ray") == content(tmp_path / "here") == content(tmp_path / "one")
    records = content(tmp_path / "one")[3]
    assert [record["orig_id"] for record in records][:2] == ["a.jsonl:1", "a.jsonl:1#1"]
    (sentence,) = (record for record in records if record["orig_id"] == "s#4")
    assert sentence["entities"] == sentence["relations"] == []
    assert all(from_json(record, "a line").problem() is None for record in records)


def test_a_broken_run_is_continued(model, folder, tmp_path, monkeypatch):
    run(job(model, folder, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        keep_parts(patch)
        run(job(model, folder, tmp_path / "broken"))
    broken = tmp_path / "broken"
    break_off(broken, ["00001", "00003"], ("rejected.jsonl", "sentences.jsonl"))
    (broken / ".parts/00001.jsonl").write_text("half a li")  # its statistics had not been written yet
    (broken / ".parts/.00003.jsonl.99").write_text("half")
    untouched = (broken / ".parts/00002.jsonl").read_text().replace("Borealis", "Boreas")
    (broken / ".parts/00002.jsonl").write_text(untouched)
    run(job(model, folder, broken, num_workers=0))
    once_more, whole = content(broken), content(tmp_path / "whole")
    assert once_more[:3] == whole[:3]
    assert untouched in (broken / "sentences.jsonl").read_text()  # what is done is not done again
    assert len(once_more[3]) == len(whole[3])


def test_a_broken_run_is_not_continued_with_another_model(model, folder, tmp_path, monkeypatch):
    shutil.copytree(model, tmp_path / "model")
    with monkeypatch.context() as patch:
        keep_parts(patch)
        run(job(tmp_path / "model", folder, tmp_path / "out"))
    break_off(tmp_path / "out", ["00001"])
    weights = tmp_path / "model/model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(UserError, match=r"model\.safetensors has changed .*overwrite=true"):
        run(job(tmp_path / "model", folder, tmp_path / "out"))


def test_weights_that_cannot_be_read_are_the_users_mistake_on_ray_too(ray_session, model, folder, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        run(job(tmp_path / "model", folder, tmp_path / "out", num_workers=1))


def test_workers_are_for_files():
    with pytest.raises(UserError, match="num_workers is for files"):
        parse(ExtractJob, ["model=m", "input=-", "output=out", "num_workers=2"])
