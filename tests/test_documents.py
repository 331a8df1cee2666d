import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enpar.documents import Chunk, Document, Reader, Rejected, plan
from enpar.errors import UserError
from enpar.files import find, sizes


def everything(input: Path | str, size: int = 2, max_characters: int = 100) -> list[Document | Rejected]:
    return [item for chunk in plan(str(input), size) for item in Reader(max_characters).read(chunk)]


def pairs(input: Path | str, size: int = 2) -> list[tuple[str, str]]:
    found = everything(input, size)
    assert all(isinstance(item, Document) for item in found), found
    return [(item.doc_id, item.text) for item in found if isinstance(item, Document)]


def jsonl(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def test_identifiers_are_given_or_the_place_of_the_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [{"text": "one"}, {"text": "two", "id": "x"}, {"text": "three", "doc_id": "y"}, {"text": "four", "id": 4}]
    file.write_text("\n\n".join(map(json.dumps, lines)))  # blank lines are numbered, but are no documents
    assert pairs(file) == [("a.jsonl:1", "one"), ("x", "two"), ("y", "three"), ("a.jsonl:7", "four")]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("b1\nb2")
    (tmp_path / "a.jsonl").write_bytes(jsonl("a1", "a2", "a3"))
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(jsonl("z1", "z2")))
    (tmp_path / "notes.md").write_text("not read")
    (tmp_path / ".hidden" / "c.txt").write_text("not read")
    expected = [("a.jsonl:1", "a1"), ("a.jsonl:2", "a2"), ("a.jsonl:3", "a3"), ("sub/b.txt", "b1\nb2")]
    expected += [("z.jsonl.gz:1", "z1"), ("z.jsonl.gz:2", "z2")]
    for size in (1, 2, 3, 100):
        assert pairs(tmp_path, size) == expected
    assert [chunk.documents for chunk in plan(str(tmp_path), 4)] == [4, 2]  # files are cut and put together
    assert list(sizes(str(tmp_path))) == ["a.jsonl", "sub/b.txt", "z.jsonl.gz"]


def test_a_glob_is_relative_to_its_fixed_part(tmp_path: Path) -> None:
    for name in ("x/1.txt", "x/2.txt", "y/1.txt", "y/deep/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert pairs(f"{tmp_path}/*/1.txt") == [("x/1.txt", "x/1.txt"), ("y/1.txt", "y/1.txt")]
    assert [file.name for file in find(f"{tmp_path}/y/**/*.txt")] == ["1.txt", "deep/1.txt"]
    literal = tmp_path / "[1].txt"
    literal.write_text("a name that looks like a glob")
    assert [file.name for file in find(str(literal))] == ["[1].txt"]


@pytest.mark.parametrize("rows_per_group", [1, 2, 3, 100])
def test_parquet_rows(tmp_path: Path, rows_per_group: int) -> None:
    texts = [f"text {i}" for i in range(7)]
    names = ["n0", None, "n2", "n3", "n4", "n5", "n6"]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": range(7), "text": texts, "id": names}), file, row_group_size=rows_per_group)
    expected = [(name or "a.parquet:2", text) for name, text in zip(names, texts, strict=True)]
    for size in (1, 2, 3, 100):
        assert pairs(file, size) == expected
        reader = Reader(100)  # a worker sees only some of the chunks, and perhaps the same again
        for chunk in [*plan(str(file), size)[::2], *plan(str(file), size)]:
            assert list(reader.read(chunk)) == list(Reader(100).read(chunk))


def test_every_reason_to_reject_names_file_and_line(tmp_path: Path) -> None:
    lines = [
        jsonl("good").strip(),
        b'{"text": " \\n\\u00a0"}',
        b'{"text": "caf\xe9"}',
        b'{"text": "half of a pair \\ud83d"}',
        b'{"text": "cut',
        b"[" * 100_000,
        b'{"title": "no text here"}',
        b'{"text": 7}',
        b'["text"]',
        jsonl("x" * 101).strip(),
        jsonl("x" * 100).strip(),
    ]
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b"\n".join(lines))
    found = everything(file, size=4)
    assert len(found) == len(lines)
    reasons = {item.line: item.reason for item in found if isinstance(item, Rejected)}
    assert reasons == {
        2: "empty",
        3: "not UTF-8",
        4: "not UTF-8",
        5: "not JSON",
        6: "not JSON",
        7: "no text",
        8: "no text",
        9: "no text",
        10: "too long",
    }
    assert {item.file for item in found if isinstance(item, Rejected)} == {"bad.jsonl"}
    assert [item.line for item in found if isinstance(item, Document)] == [1, 11]


def test_rejects_of_text_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfmarked")
    raw = pa.array([b"fine", b"caf\xe9", None, b" "], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "d.parquet")
    found = everything(tmp_path)
    rejected = [(item.file, item.line, item.reason) for item in found if isinstance(item, Rejected)]
    assert rejected == [
        ("a.txt", 1, "not UTF-8"),
        ("b.txt", 1, "empty"),
        ("d.parquet", 2, "not UTF-8"),
        ("d.parquet", 3, "no text"),
        ("d.parquet", 4, "empty"),
    ]
    assert [item.text for item in found if isinstance(item, Document)] == ["marked", "fine"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(jsonl(*(f"text {i}" for i in range(1000))))
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    (tmp_path / "plain.jsonl.gz").write_bytes(jsonl("not packed"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no parquet")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "other.parquet")
    (tmp_path / "blank.jsonl").write_bytes(b"\n \n")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "none").mkdir()
    for name, remedy in {
        "missing.jsonl": "no such file",
        "*.json": "no file ends in .txt",
        "none": "no file ends in .txt",
        "notes.md": "unknown kind",
        "cut.jsonl.gz": "mend it",
        "plain.jsonl.gz": "mend it",
        "bad.parquet": "mend it",
        "other.parquet": "column `text`.*body",
        "blank.jsonl": "no documents",
    }.items():
        with pytest.raises(UserError, match=remedy) as error:
            plan(str(tmp_path / name), 10)
        assert name in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        plan("", 10)


def test_a_file_that_shrinks_after_planning_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(jsonl("one", "two", "three"))
    (chunk,) = plan(str(file), 10)
    file.write_bytes(jsonl("one"))
    with pytest.raises(UserError, match="changed while it was read"):
        list(Reader(100).read(chunk))


# A line that is a document, good or bad, or a blank one; none holds a line break.
_LINES = st.lists(
    st.one_of(
        st.text(max_size=8).map(lambda text: json.dumps({"text": text}).encode()),
        st.binary(max_size=8).map(lambda raw: raw.replace(b"\n", b"")),
        st.sampled_from([b"", b"  ", b"\r"]),
    ),
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(files=st.lists(_LINES, min_size=1, max_size=3), size=st.integers(1, 40), packed=st.booleans())
def test_each_line_is_read_once_for_any_size_of_chunk(
    tmp_path: Path, files: list[list[bytes]], size: int, packed: bool
) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    for i, lines in enumerate(files):
        raw = b"\n".join(lines)
        if packed:
            (tmp_path / f"{i}.jsonl.gz").write_bytes(gzip.compress(raw))
        else:
            (tmp_path / f"{i}.jsonl").write_bytes(raw)
    suffix = ".jsonl.gz" if packed else ".jsonl"
    expected = [(f"{i}{suffix}", n) for i, lines in enumerate(files) for n, line in enumerate(lines, 1) if line.strip()]
    if not expected:
        with pytest.raises(UserError, match="no documents"):
            plan(str(tmp_path), size)
        return
    chunks: list[Chunk] = plan(str(tmp_path), size)
    reader = Reader(1000)
    assert [(item.file, item.line) for chunk in chunks for item in reader.read(chunk)] == expected
    assert all(chunk.documents == size for chunk in chunks[:-1])
