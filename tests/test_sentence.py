import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enpar.errors import UserError
from enpar.sentence import (
    SCHEMA,
    Entity,
    Relation,
    Sentence,
    count_sentences,
    from_json,
    from_table,
    read_sentences,
    to_json,
    to_table,
    write_jsonl,
)
from enpar.storage import Location

NAMES = st.text(min_size=1, max_size=8)


@st.composite
def sentences(draw):
    """Any well-formed sentence; a `doc_id` that itself ends in a number is a case of its own (test_orig_id)."""
    tokens = draw(st.lists(st.text(max_size=6), min_size=1, max_size=10))
    starts = st.integers(0, len(tokens) - 1)
    spans = st.tuples(starts, st.integers(1, len(tokens))).filter(lambda span: span[0] < span[1])
    entities = [Entity(*span, draw(NAMES)) for span in draw(st.lists(spans, max_size=4))]
    indices = st.integers(0, max(len(entities) - 1, 0))
    relations = draw(st.lists(st.builds(Relation, NAMES, indices, indices), max_size=3)) if entities else []
    doc_id, sent_id = draw(st.text(max_size=8).filter(lambda text: "#" not in text)), draw(st.integers(0, 10_000))
    return Sentence(tuple(tokens), tuple(entities), tuple(relations), doc_id, sent_id)


@given(sentences())
def test_json_round_trip(sentence):
    assert sentence.problem() is None
    assert from_json(json.loads(json.dumps(to_json(sentence))), "here") == sentence


@given(st.lists(sentences(), max_size=4))
def test_arrow_round_trip(some):
    table = to_table(some)
    assert table.schema == SCHEMA
    assert list(from_table(table)) == some


@given(st.text() | st.from_regex(r".*#[0-9]{1,12}", fullmatch=True, alphabet=st.characters(codec="ascii")))
def test_orig_id_is_kept_whatever_it_is(orig_id):
    assert to_json(from_json({"tokens": ["a"], "orig_id": orig_id}, "here"))["orig_id"] == orig_id


ODD = [pytest.param("a#1٣"), pytest.param("a#" + "9" * 5000, id="long")]


@pytest.mark.parametrize("orig_id", ["", "a", "a#0", "a#1", "a#01", "#7", "a#b#3", "a\n#2", *ODD])
def test_orig_id_of_odd_forms_is_kept_and_fits_arrow(orig_id):
    sentence = from_json({"tokens": ["a"], "orig_id": orig_id}, "here")
    assert to_json(sentence)["orig_id"] == orig_id
    assert list(from_table(to_table([sentence]))) == [sentence]


def test_sentences_of_a_document_are_numbered_from_the_second_on():
    ids = [to_json(Sentence(("a",), doc_id="doc", sent_id=i))["orig_id"] for i in range(3)]
    assert ids == ["doc", "doc#1", "doc#2"]


def test_write_jsonl_writes_a_sentence_a_line(tmp_path):
    some = [Sentence(("a\u2028b", "ü")), Sentence(("c",), (Entity(0, 1, "T"),))]
    write_jsonl(tmp_path / "x.jsonl", some)
    lines = (tmp_path / "x.jsonl").read_text(encoding="utf-8").split("\n")
    assert [from_json(json.loads(line), "here") for line in lines if line] == some


ENTITY = {"type": "T", "start": 0, "end": 1}
RELATION = {"type": "R", "head": 0, "tail": 0}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ([], ["expected an object", "found list"]),
        ({"tokens": []}, ["tokens: expected a list of strings"]),
        ({"tokens": "a b"}, ["tokens: expected a list of strings"]),
        ({"tokens": ["a", 3]}, ["tokens: expected a list of strings"]),
        ({"entities": {}}, ["entities: expected a list"]),
        ({"entities": None}, ["entities: expected a list"]),
        ({"entities": ["x"]}, ["entities[0]: type is None", "start (int)"]),
        ({"entities": [ENTITY, {"start": 0, "end": 1}]}, ["entities[1]: type is None"]),
        ({"entities": [ENTITY | {"start": "0"}]}, ["entities[0]: start is '0'"]),
        ({"entities": [ENTITY | {"end": True}]}, ["entities[0]: end is True"]),
        ({"entities": [ENTITY | {"end": 3}]}, ["entity 0 (T) covers tokens [0, 3)", "2 tokens"]),
        ({"entities": [ENTITY | {"start": 1}]}, ["entity 0 (T) covers tokens [1, 1)"]),
        ({"entities": [ENTITY | {"start": -1}]}, ["entity 0 (T) covers tokens [-1, 1)"]),
        ({"entities": [ENTITY], "relations": [RELATION, {"type": "R"}]}, ["relations[1]: head is None"]),
        ({"entities": [ENTITY], "relations": [RELATION | {"tail": 1}]}, ["relation 0 (R) has tail 1", "1 entities"]),
        ({"entities": [ENTITY], "relations": [RELATION | {"head": -1}]}, ["relation 0 (R) has head -1"]),
    ],
)
def test_malformed_items_are_named(change, parts):
    item = {"tokens": ["a", "b"], **change} if isinstance(change, dict) else change
    with pytest.raises(UserError) as error:
        from_json(item, "train.jsonl:7")
    assert str(error.value).startswith("train.jsonl:7: ")
    assert all(part in str(error.value) for part in parts), error.value


def test_folders_of_sentences_are_read_in_order_and_only_when_finished(tmp_path):
    some = [Sentence((str(i),), doc_id=str(i)) for i in range(3)]
    with pytest.raises(UserError, match="no such folder"):
        list(read_sentences(tmp_path / "none"))
    for i, part in enumerate((some[:2], some[2:])):
        pa.parquet.write_table(to_table(part), tmp_path / f"part-{i}.parquet")
    with pytest.raises(UserError, match="_SUCCESS"):
        list(read_sentences(tmp_path))
    (tmp_path / "_SUCCESS").touch()
    assert list(read_sentences(tmp_path)) == some
    pa.parquet.write_table(pa.table({"tokens": [["a"]]}), tmp_path / "part-2.parquet")
    with pytest.raises(UserError, match=r"part-2\.parquet: not sentences: column doc_id is missing"):
        list(read_sentences(tmp_path))


@pytest.mark.parametrize("half", [True, False])
def test_a_part_that_is_broken_is_named(tmp_path, half):
    part = tmp_path / "part-0.parquet"
    pa.parquet.write_table(to_table([Sentence(("a",))]), part)
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2] if half else b"")
    (tmp_path / "_SUCCESS").touch()
    for read in (lambda: list(read_sentences(tmp_path)), lambda: count_sentences([Location.of(part)])):
        with pytest.raises(UserError, match=r"part-0\.parquet: cannot be read \(.*run its `enpar annotate` again"):
            read()


def test_null_is_no_orig_id():
    assert from_json({"tokens": ["a"], "orig_id": None}, "here").doc_id == ""
