"""ACE05, on documents in the form of the LDC release that were written for these tests."""

import io
import re
import urllib.error
import urllib.request
from collections import Counter

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from enpar.config import FetchJob
from enpar.corpora import ace05, ace_document, fetch, load
from enpar.errors import UserError
from enpar.sentence import Entity, Relation, Sentence

# ---- a newswire document: headline, hard wraps, &amp;, a nested mention; every offset counted by hand --------------

WIRE = "AFP_ENG_20050101.0001"
WIRE_SGM = """<DOC>
<DOCID> AFP_ENG_20050101.0001 </DOCID>
<DOCTYPE SOURCE="newswire"> NEWS STORY </DOCTYPE>
<DATETIME> 20050101 </DATETIME>
<BODY>
<HEADLINE>
Smith joins AT&amp;T board. Shares up
</HEADLINE>
<TEXT>
John Smith, 50, joined the board of AT&amp;T
Corp. on Monday. The New York Times
said so.

He left for New
York.
</TEXT>
</BODY>
</DOC>
"""
WIRE_APF = """<?xml version="1.0"?>
<!DOCTYPE source_file SYSTEM "apf.v5.1.1.dtd">
<source_file URI="AFP_ENG_20050101.0001.sgm" SOURCE="newswire" TYPE="text" AUTHOR="LDC" ENCODING="UTF-8">
<document DOCID="AFP_ENG_20050101.0001">
<entity ID="AFP_ENG_20050101.0001-E1" TYPE="PER" SUBTYPE="Individual" CLASS="SPC">
  <entity_mention ID="AFP_ENG_20050101.0001-E1-1" TYPE="NAM" LDCTYPE="NAM">
    <extent>
      <charseq START="91" END="104">John Smith, 50</charseq>
    </extent>
    <head>
      <charseq START="91" END="100">John Smith</charseq>
    </head>
  </entity_mention>
  <entity_mention ID="AFP_ENG_20050101.0001-E1-2" TYPE="PRO" LDCTYPE="PRO">
    <extent>
      <charseq START="182" END="183">He</charseq>
    </extent>
    <head>
      <charseq START="182" END="183">He</charseq>
    </head>
  </entity_mention>
  <entity_attributes>
    <name NAME="John Smith">
      <charseq START="91" END="100">John Smith</charseq>
    </name>
  </entity_attributes>
</entity>
<entity ID="AFP_ENG_20050101.0001-E2" TYPE="ORG" SUBTYPE="Commercial" CLASS="SPC">
  <entity_mention ID="AFP_ENG_20050101.0001-E2-1" TYPE="NAM" LDCTYPE="NAM">
    <extent>
      <charseq START="63" END="70">AT&amp;T</charseq>
    </extent>
    <head>
      <charseq START="63" END="70">AT&amp;T</charseq>
    </head>
  </entity_mention>
  <entity_mention ID="AFP_ENG_20050101.0001-E2-2" TYPE="NAM" LDCTYPE="NAM">
    <extent>
      <charseq START="127" END="140">AT&amp;T
Corp.</charseq>
    </extent>
    <head>
      <charseq START="127" END="140">AT&amp;T
Corp.</charseq>
    </head>
  </entity_mention>
</entity>
<entity ID="AFP_ENG_20050101.0001-E3" TYPE="ORG" SUBTYPE="Media" CLASS="SPC">
  <entity_mention ID="AFP_ENG_20050101.0001-E3-1" TYPE="NAM" LDCTYPE="NAM">
    <extent>
      <charseq START="153" END="170">The New York Times</charseq>
    </extent>
    <head>
      <charseq START="157" END="170">New York Times</charseq>
    </head>
  </entity_mention>
</entity>
<entity ID="AFP_ENG_20050101.0001-E4" TYPE="GPE" SUBTYPE="Population-Center" CLASS="SPC">
  <entity_mention ID="AFP_ENG_20050101.0001-E4-1" TYPE="NAM" LDCTYPE="NAM" ROLE="GPE">
    <extent>
      <charseq START="157" END="164">New York</charseq>
    </extent>
    <head>
      <charseq START="157" END="164">New York</charseq>
    </head>
  </entity_mention>
  <entity_mention ID="AFP_ENG_20050101.0001-E4-2" TYPE="NAM" LDCTYPE="NAM" ROLE="LOC">
    <extent>
      <charseq START="194" END="201">New
York</charseq>
    </extent>
    <head>
      <charseq START="194" END="201">New
York</charseq>
    </head>
  </entity_mention>
</entity>
<value ID="AFP_ENG_20050101.0001-V1" TYPE="Numeric" SUBTYPE="Percent">
  <value_mention ID="AFP_ENG_20050101.0001-V1-1">
    <extent>
      <charseq START="103" END="104">50</charseq>
    </extent>
  </value_mention>
</value>
<timex2 ID="AFP_ENG_20050101.0001-T1" VAL="2005-01-03">
  <timex2_mention ID="AFP_ENG_20050101.0001-T1-1">
    <extent>
      <charseq START="145" END="150">Monday</charseq>
    </extent>
  </timex2_mention>
</timex2>
<relation ID="AFP_ENG_20050101.0001-R1" TYPE="ORG-AFF" SUBTYPE="Employment" TENSE="Unspecified" MODALITY="Asserted">
  <relation_argument REFID="AFP_ENG_20050101.0001-E1" ROLE="Arg-1"/>
  <relation_argument REFID="AFP_ENG_20050101.0001-E2" ROLE="Arg-2"/>
  <relation_argument REFID="AFP_ENG_20050101.0001-T1" ROLE="Time-Within"/>
  <relation_mention ID="AFP_ENG_20050101.0001-R1-1" LEXICALCONDITION="Verbal">
    <extent>
      <charseq START="91" END="140">John Smith, 50, joined the board of AT&amp;T
Corp.</charseq>
    </extent>
    <relation_mention_argument REFID="AFP_ENG_20050101.0001-E1-1" ROLE="Arg-1">
      <extent>
        <charseq START="91" END="104">John Smith, 50</charseq>
      </extent>
    </relation_mention_argument>
    <relation_mention_argument REFID="AFP_ENG_20050101.0001-E2-2" ROLE="Arg-2">
      <extent>
        <charseq START="127" END="140">AT&amp;T
Corp.</charseq>
      </extent>
    </relation_mention_argument>
    <relation_mention_argument REFID="AFP_ENG_20050101.0001-T1-1" ROLE="Time-Within">
      <extent>
        <charseq START="145" END="150">Monday</charseq>
      </extent>
    </relation_mention_argument>
  </relation_mention>
</relation>
</document>
</source_file>
"""
WIRE_SENTENCES = [
    Sentence(("Smith", "joins", "AT&T", "board", ".", "Shares", "up"), (Entity(2, 3, "ORG"),), (), WIRE, 0),
    Sentence(
        ("John", "Smith", ",", "50", ",", "joined", "the", "board", "of", "AT&T", "Corp.", "on", "Monday", "."),
        (Entity(0, 2, "PER"), Entity(9, 11, "ORG")),
        (Relation("ORG-AFF", 0, 1),),
        WIRE,
        1,
    ),
    Sentence(
        ("The", "New", "York", "Times", "said", "so", "."), (Entity(1, 3, "GPE"), Entity(1, 4, "ORG")), (), WIRE, 2
    ),
    Sentence(("He", "left", "for", "New", "York", "."), (Entity(0, 1, "PER"), Entity(3, 5, "GPE")), (), WIRE, 3),
]

# ---- the others are annotated by head: (id, type, [(mention id, head, which occurrence of it)]) --------------------


def apf(name, sgm, entities, relations=(), more="", source="newswire"):
    """Write an annotation; `relations` has (type, Arg-1, Arg-2) by mention id, each a relation with one mention."""
    text = without_tags(sgm)
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE source_file SYSTEM "apf.v5.1.1.dtd">',
        f'<source_file URI="{name}.sgm" SOURCE="{source}" TYPE="text" AUTHOR="LDC" ENCODING="UTF-8">',
        f'<document DOCID="{name}">',
    ]
    for entity, kind, mentions in entities:
        lines.append(f'<entity ID="{name}-{entity}" TYPE="{kind}" SUBTYPE="Other" CLASS="SPC">')
        for mention, head, occurrence in mentions:
            start = [m.start() for m in re.finditer(re.escape(head), text)][occurrence]
            lines += [
                f'  <entity_mention ID="{name}-{mention}" TYPE="NAM" LDCTYPE="NAM">',
                f"    <extent>\n      {charseq(start, head)}\n    </extent>",
                f"    <head>\n      {charseq(start, head)}\n    </head>",
                "  </entity_mention>",
            ]
        lines.append("</entity>")
    lines.append(more)
    for number, (kind, *arguments) in enumerate(relations, start=1):
        ids = [f'REFID="{name}-{argument}" ROLE="Arg-{i}"' for i, argument in enumerate(arguments, start=1)]
        lines += [
            f'<relation ID="{name}-R{number}" TYPE="{kind}" SUBTYPE="Other" TENSE="Past" MODALITY="Asserted">',
            f'  <relation_mention ID="{name}-R{number}-1" LEXICALCONDITION="Verbal">',
            *(f"    <relation_mention_argument {i}>\n    </relation_mention_argument>" for i in ids),
            "  </relation_mention>",
            "</relation>",
        ]
    return "\n".join([*lines, "</document>", "</source_file>", ""])


def without_tags(sgm):
    return re.sub("<[^>]+>", "", sgm)


def charseq(start, text):
    return f'<charseq START="{start}" END="{start + len(text) - 1}">{text}</charseq>'


# Broadcast conversation: speakers, a relation across a sentence break, duplicates, arguments that are not kept.
TALK = "CNN_CF_20050101.1900.00"
TALK_SGM = """<DOC>
<DOCID> CNN_CF_20050101.1900.00 </DOCID>
<DOCTYPE SOURCE="broadcast conversation"> STORY </DOCTYPE>
<DATETIME> 2005-01-01T19:00:00-05:00 </DATETIME>
<BODY>
<HEADLINE>
Questions About Basra; Is It Safe?
</HEADLINE>
<TEXT>
<TURN>
<SPEAKER> JANE ROE, CNN ANCHOR </SPEAKER>
Is Basra safe? Our man is there. He is Tom
Poe.
</TURN>
<TURN>
<SPEAKER> POE </SPEAKER>
Yes. I met soldiers. They were in Basra on Friday. Thanks
</TURN>
</TEXT>
</BODY>
<ENDTIME> 2005-01-01T19:00:30-05:00 </ENDTIME>
</DOC>
"""
TALK_APF = apf(
    TALK,
    TALK_SGM,
    [
        ("E1", "GPE", [("E1-1", "Basra", 0), ("E1-2", "Basra", 1), ("E1-3", "Basra", 2)]),
        ("E2", "PER", [("E2-1", "JANE ROE", 0), ("E2-2", "ANCHOR", 0)]),
        ("E3", "PER", [("E3-1", "man", 0), ("E3-2", "Tom\nPoe", 0), ("E3-3", "POE", 0), ("E3-4", "I", 3)]),
        ("E4", "PER", [("E4-1", "soldiers", 0), ("E4-2", "They", 0)]),
        ("E5", "PER", [("E5-1", "They", 0)]),  # the same once more, in another entity
        ("E6", "ORG", [("E6-1", "CNN", 1)]),
        ("E7", "JOB", [("E7-1", "soldiers", 0)]),  # no type of ACE
    ],
    [
        ("ORG-AFF", "E2-2", "E6-1"),
        ("PHYS", "E4-1", "E1-3"),
        ("PHYS", "E4-2", "E1-3"),
        ("PHYS", "E5-1", "E1-3"),
        ("PHYS", "E1-3", "E4-2"),  # the other direction is another relation
        ("GEN-AFF", "E4-2", "T1-1"),
        ("GEN-AFF", "E7-1", "E1-3"),
        ("ART", "E4-2"),
        ("METONYMY", "E1-1", "E1-2"),
    ],
    more=f'<timex2 ID="{TALK}-T1" VAL="2004-12-31">\n  <timex2_mention ID="{TALK}-T1-1">\n    <extent>\n'
    f"      {charseq(without_tags(TALK_SGM).index('Friday'), 'Friday')}\n    </extent>\n  </timex2_mention>\n</timex2>",
    source="broadcast conversation",
)
TALK_SENTENCES = [
    Sentence(("Questions", "About", "Basra", ";", "Is", "It", "Safe", "?"), (Entity(2, 3, "GPE"),), (), TALK, 0),
    Sentence(
        ("JANE", "ROE", ",", "CNN", "ANCHOR"),
        (Entity(0, 2, "PER"), Entity(3, 4, "ORG"), Entity(4, 5, "PER")),
        (Relation("ORG-AFF", 2, 1),),
        TALK,
        1,
    ),
    Sentence(("Is", "Basra", "safe", "?"), (Entity(1, 2, "GPE"),), (), TALK, 2),
    Sentence(("Our", "man", "is", "there", "."), (Entity(1, 2, "PER"),), (), TALK, 3),
    Sentence(("He", "is", "Tom", "Poe", "."), (Entity(2, 4, "PER"),), (), TALK, 4),
    Sentence(("POE",), (Entity(0, 1, "PER"),), (), TALK, 5),
    Sentence(("Yes", "."), (), (), TALK, 6),
    Sentence(  # the first relation of these joins two sentences
        ("I", "met", "soldiers", ".", "They", "were", "in", "Basra", "on", "Friday", "."),
        (Entity(0, 1, "PER"), Entity(2, 3, "PER"), Entity(4, 5, "PER"), Entity(7, 8, "GPE")),
        (Relation("PHYS", 1, 3), Relation("PHYS", 2, 3), Relation("PHYS", 3, 2)),
        TALK,
        7,
    ),
    Sentence(("Thanks",), (), (), TALK, 8),
]
TALK_DROPPED = {
    "argument_not_kept": 3,
    "duplicate_mention": 1,
    "duplicate_relation": 1,
    "header_line": 4,
    "other_entity_type": 1,
    "other_relation_type": 1,
    "timex2": 1,
}

# Weblog: post data, heads inside tokens, a relation across a hard wrap, a mention that a full stop is in, indented
# paragraphs, double spaces, a mention in the header.
BLOG = "MARKBACKER_20050101.0733"
BLOG_SGM = """<DOC>
<DOCID> MARKBACKER_20050101.0733 </DOCID>
<DOCTYPE SOURCE="weblog"> WEB TEXT </DOCTYPE>
<DATETIME> 2005-01-01T07:33:00 </DATETIME>
<BODY>
<HEADLINE>
Notes
from Mosul
</HEADLINE>
<TEXT>
<POST>
<POSTER> Dr. Who </POSTER>
<POSTDATE> 2005-01-01T07:33:00 </POSTDATE>
<SUBJECT> Re: War &AMP; peace. Again </SUBJECT>
US-led  anti-Saddam troops, in NATO2's vehicles near
Mosul.

   Yahoo . com hired them.
   A<b>&lt; non-Iraqis
</POST>
</TEXT>
</BODY>
</DOC>
"""
BLOG_APF = apf(
    BLOG,
    BLOG_SGM,
    [
        ("E1", "GPE", [("E1-1", "US", 0)]),
        ("E2", "PER", [("E2-1", "Saddam", 0)]),
        ("E3", "PER", [("E3-1", "troops", 0), ("E3-2", "them", 0)]),
        ("E4", "ORG", [("E4-1", "NATO", 0)]),
        ("E5", "VEH", [("E5-1", "vehicles", 0)]),
        ("E6", "GPE", [("E6-1", "Mosul", 0), ("E6-2", "Mosul", 1)]),
        ("E7", "ORG", [("E7-1", "Yahoo . com", 0)]),
        ("E8", "PER", [("E8-1", "Who", 0), ("E8-2", "MARKBACKER", 0), ("E8-3", "Iraqi", 0)]),
        ("E9", "LOC", [("E9-1", "troops", 0)]),  # the same span with another type
    ],
    [("PHYS", "E3-1", "E6-2"), ("ART", "E3-1", "E5-1"), ("ORG-AFF", "E3-2", "E7-1")],
    source="weblog",
)
BLOG_SENTENCES = [
    Sentence(("MARKBACKER", "_20050101.0733"), (Entity(0, 1, "PER"),), (), BLOG, 0),
    Sentence(("Notes",), (), (), BLOG, 1),
    Sentence(("from", "Mosul"), (Entity(1, 2, "GPE"),), (), BLOG, 2),
    Sentence(("Dr.", "Who"), (Entity(1, 2, "PER"),), (), BLOG, 3),
    Sentence(("2005", "-", "01", "-", "01T07:33:00"), (), (), BLOG, 4),
    Sentence(("Re", ":", "War", "&", "peace", ".", "Again"), (), (), BLOG, 5),
    Sentence(
        (
            *("US", "-", "led", "anti", "-", "Saddam", "troops", ","),
            *("in", "NATO", "2", "'s", "vehicles", "near", "Mosul", "."),
        ),
        (
            Entity(0, 1, "GPE"),
            Entity(5, 6, "PER"),
            Entity(6, 7, "LOC"),
            Entity(6, 7, "PER"),
            Entity(9, 10, "ORG"),
            Entity(12, 13, "VEH"),
            Entity(14, 15, "GPE"),
        ),
        (Relation("ART", 3, 5), Relation("PHYS", 3, 6)),
        BLOG,
        6,
    ),
    Sentence(
        ("Yahoo", ".", "com", "hired", "them", "."),
        (Entity(0, 3, "ORG"), Entity(4, 5, "PER")),
        (Relation("ORG-AFF", 1, 0),),
        BLOG,
        7,
    ),
    Sentence(("A",), (), (), BLOG, 8),
    Sentence(("<", "non", "-", "Iraqi", "s"), (Entity(3, 4, "PER"),), (), BLOG, 9),
]

DOCUMENTS = {
    WIRE: ("nw", WIRE_SGM, WIRE_APF),
    TALK: ("bc", TALK_SGM, TALK_APF),
    BLOG: ("wl", BLOG_SGM, BLOG_APF),
}
LISTS = {"train": [WIRE], "dev": [TALK], "test": [BLOG]}


@pytest.fixture
def release(tmp_path):
    return write(tmp_path / "ace_2005_td_v7", DOCUMENTS)


@pytest.fixture
def split(tmp_path):
    return write_lists(tmp_path / "split", LISTS)


def write(folder, documents):
    for name, (genre, sgm, annotation) in documents.items():
        place = folder / "data" / "English" / genre / "timex2norm"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.sgm").write_text(sgm)
        (place / f"{name}.apf.xml").write_text(annotation)
    return folder


def write_lists(folder, lists):
    folder.mkdir()
    for part, names in lists.items():
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def place_of(release, name, ending):
    return next(release.rglob(f"{name}.{ending}"))


def rewrite(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def nlp():
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    return pipeline


def read(folder, name, nlp, check=True):
    """Read one document of a release; return its sentences, and the counts of what was dropped."""
    dropped = Counter()
    paths = place_of(folder, name, "sgm"), place_of(folder, name, "apf.xml")
    return ace_document.read(*paths, nlp, dropped, check), dropped


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_release_becomes_three_files_of_sentences(tmp_path, release, split, caplog):
    job = FetchJob(name="ace05", source=str(release), split=split, output=tmp_path / "out")
    with caplog.at_level("INFO", logger="enpar"):
        result = fetch.run(job)
    assert load("jsonl", tmp_path / "out" / "train.jsonl") == WIRE_SENTENCES
    assert load("jsonl", tmp_path / "out" / "dev.jsonl") == TALK_SENTENCES
    assert load("jsonl", tmp_path / "out" / "test.jsonl") == BLOG_SENTENCES
    assert result["documents"] == 3
    assert "LDC" in result["licence"]
    counts = ("documents", "sentences", "entities", "relations", "overlapping_entity_pairs", "longest_sentence")
    assert [[result["splits"][part][c] for c in counts] for part in LISTS] == [
        [1, 4, 7, 1, 1, 14],
        [1, 9, 12, 4, 0, 11],
        [1, 10, 13, 3, 1, 16],
    ]
    assert result["splits"]["dev"]["dropped"] == TALK_DROPPED
    assert result["splits"]["dev"]["relation_types"] == ["ORG-AFF", "PHYS"]
    assert "train: 1 documents, 4 sentences, 7 entities, 1 relations; dropped: 3 header_line, 1 timex2" in caplog.text
    assert fetch.run(job) == result  # it is finished


@pytest.mark.parametrize("inner", [".", "data", "data/English"])
def test_the_release_is_found_from_its_root_its_data_and_its_english_folder(release, split, inner):
    assert ace05.convert(release / inner, split).documents == 3


def test_other_lists_are_another_run(tmp_path, release, split):
    job = FetchJob(name="ace05", source=str(release), split=split, output=tmp_path / "out")
    fetch.run(job)
    with pytest.raises(UserError, match="other settings \\(check: True → False\\)"):
        fetch.run(job.model_copy(update={"check": False}))


def test_what_is_missing_is_named(tmp_path, release, split):
    with pytest.raises(UserError, match=r"source=FOLDER.*LDC2006T06"):
        fetch.run(FetchJob(name="ace05", output=tmp_path / "out"))
    with pytest.raises(UserError, match="no such folder"):
        ace05.convert(tmp_path / "nowhere", split)
    with pytest.raises(UserError, match="no ACE 2005 documents there"):
        ace05.convert(split, split)
    (split / "dev.txt").unlink()
    with pytest.raises(UserError, match=r"dev.txt: no such file.*split=FOLDER"):
        ace05.convert(release, split)
    assert not (tmp_path / "out").exists()


def test_split_is_refused_for_another_corpus(tmp_path):
    with pytest.raises(ValueError, match="split is for name=ace05"):
        FetchJob(name="wiki-leads", split=tmp_path, output=tmp_path / "out")


# ---- the lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "part"), [("sgm", "dev"), ("apf.xml", "dev")])
def test_a_document_that_the_release_lacks_is_named(release, split, ending, part):
    place_of(release, TALK, ending).unlink()
    with pytest.raises(UserError) as error:
        ace05.convert(release, split)
    assert f"lacks {TALK}.{ending} of the list {part}" in str(error.value)


def test_lists_are_checked(tmp_path, release):
    with pytest.raises(UserError, match=f"{WIRE} more than once"):
        ace05.convert(release, write_lists(tmp_path / "twice", LISTS | {"test": [BLOG, WIRE]}))
    with pytest.raises(UserError, match="the list dev names no documents"):
        ace05.convert(release, write_lists(tmp_path / "empty", LISTS | {"dev": []}))


def test_lists_may_be_called_as_the_official_ones_are(tmp_path, release, split):
    for part in LISTS:
        (split / f"{part}.txt").rename(split / part)
    assert ace05.convert(release, split).documents == 3


def official(monkeypatch, lists):
    """Let the official lists be these; return the URLs that are asked for."""
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO("\n".join(lists[url.rsplit("/", 1)[1]]).encode())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_official_lists_of_another_size_are_taken_only_when_told_so(monkeypatch, release, split):
    asked = official(monkeypatch, LISTS)
    with pytest.raises(UserError, match=r"the official list train names 1 documents, not 351.*check=false"):
        ace05.convert(release)
    folder = "https://raw.githubusercontent.com/tticoin/LSTM-ER/master/data/ace2005/split"
    assert asked == [f"{folder}/train", f"{folder}/dev", f"{folder}/test"]
    assert ace05.convert(release, check=False) == ace05.convert(release, split)


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_the_official_split_is_351_80_and_80_documents(monkeypatch, release, part):
    lists = {p: [f"{p}{i}" for i in range(size)] for p, size in {"train": 351, "dev": 80, "test": 80}.items()}
    official(monkeypatch, lists)
    with pytest.raises(UserError, match=r"lacks train0.sgm of the list train \(351 of its 351 documents are missing\)"):
        ace05.convert(release)  # the sizes are right
    lists[part].pop()
    with pytest.raises(UserError, match=f"the official list {part} names {len(lists[part])} documents"):
        ace05.convert(release)


def test_a_failed_download_says_what_to_do(monkeypatch, release):
    def urlopen(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError) as error:
        ace05.convert(release)
    assert "split/train could not be downloaded" in str(error.value)
    assert "Name or service not known" in str(error.value)
    assert "give split=FOLDER" in str(error.value)


# ---- documents that are not as they should be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("</document>", "", "not XML: mismatched tag: line "),
        (WIRE_APF, "", "not XML: no element found"),
        ("</document>", "&nbsp;</document>", "not XML: undefined entity"),
        ("source_file", "file", "expected <source_file>"),
        ('START="91" END="100">John Smith<', 'START="x" END="100">John Smith<', "E1-1: expected an ID and <head>"),
        ('entity_mention ID="AFP_ENG_20050101.0001-E1-1" ', "entity_mention ", "expected an ID and <head>"),
        ("<head>", "<heads>", "not XML: mismatched tag"),
    ],
)
def test_a_broken_annotation_is_named(release, split, old, new, part):
    path = place_of(release, WIRE, "apf.xml")
    rewrite(path, old, new)
    with pytest.raises(UserError) as error:
        ace05.convert(release, split)
    assert part in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_utf8_is_named(release, split):
    path = place_of(release, WIRE, "sgm")
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="sgm: not UTF-8"):
        ace05.convert(release, split)


def test_text_without_a_body_is_refused(release, split):
    place_of(release, WIRE, "sgm").write_text(without_tags(WIRE_SGM))
    with pytest.raises(UserError, match=r"0001.sgm: nothing stands in <BODY> or <TEXT>"):
        ace05.convert(release, split)


@pytest.mark.parametrize(
    "declared",
    [
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">',  # a bomb
        '<!ENTITY a SYSTEM "file:///etc/hostname">',  # reads a file
        '<!ENTITY % a SYSTEM "http://127.0.0.1:9/a.dtd"> %a;',  # reads a page
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_entities_are_refused(release, split, declared, encoding):
    path = place_of(release, WIRE, "apf.xml")
    rewrite(path, 'SYSTEM "apf.v5.1.1.dtd">', f'SYSTEM "apf.v5.1.1.dtd" [{declared}]>')
    path.write_bytes(path.read_text().replace("1.0", f'1.0" encoding="{encoding}', 1).encode(encoding))
    with pytest.raises(UserError, match="declares XML entities" if encoding == "utf-8" else "not UTF-8"):
        ace05.convert(release, split)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            ">John Smith</charseq>\n    </head>",
            ">Jon Smith</charseq>\n    </head>",
            "'John Smith', its head is 'Jon Smith'",
        ),
        ('START="91" END="100"', 'START="92" END="101"', "'ohn Smith,', its head is 'John Smith'"),
        (
            'START="91" END="100"',
            f'START="{91 - len(without_tags(WIRE_SGM))}" END="100"',
            "'', its head is 'John Smith'",
        ),
        ('START="91" END="100"', 'START="9991" END="9999"', "'', its head is 'John Smith'"),
        ('START="91" END="100">John Smith<', 'START="50" END="50"><', "its head is ''"),
    ],
)
def test_a_mention_that_is_not_in_the_text_is_refused_or_dropped(release, split, old, new, found):
    rewrite(place_of(release, WIRE, "apf.xml"), old, new)
    with pytest.raises(UserError) as error:
        ace05.convert(release, split)
    assert f"{WIRE}.apf.xml: {WIRE}-E1-1: characters" in str(error.value)
    assert found in str(error.value) and "check=false" in str(error.value)
    train = ace05.convert(release, split, check=False).splits["train"]
    assert (train["entities"], train["relations"]) == (6, 0)
    assert train["dropped"]["text_differs"] == 1 and train["dropped"]["argument_not_kept"] == 1


# ---- rules one by one ----------------------------------------------------------------------------------------------


def one(tmp_path, nlp, body, entities=(), relations=()):
    """Read a document with this text; return its sentences as strings of tokens, and as they are."""
    sgm = f"<DOC>\n<DOCID> X </DOCID>\n<BODY>\n<TEXT>\n{body}\n</TEXT>\n</BODY>\n</DOC>\n"
    folder = write(tmp_path, {"X": ("nw", sgm, apf("X", sgm, entities, relations))})
    sentences, _ = read(folder, "X", nlp)
    return [" ".join(s.tokens) for s in sentences], sentences


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("He went\nhome. She\nstayed", ["He went home .", "She stayed"]),
        ("One line \nwrapped", ["One line wrapped"]),
        ("A list\n\nof two", ["A list", "of two"]),
        ("A list\n  of two", ["A list", "of two"]),
        ("Q: How\nmany?\nA: Two", ["Q : How many ?", "A : Two"]),
        ("<TURN>\n<SPEAKER> ROE </SPEAKER>\nWell\n</TURN>\n<TURN>\nyes\n</TURN>", ["ROE", "Well", "yes"]),
        ("<POST>\n<POSTER> A. B. Roe\nof Oz </POSTER>\nHi\n</POST>", ["A. B. Roe", "of Oz", "Hi"]),
        ('before\n<QUOTE PREVIOUSPOST="a\nb">\nafter', ["before", "after"]),
        ("<P>\nopen\n<P>\nstill open", ["open", "still open"]),
        ("<SUBJECT/>\nNo\nsubject", ["No subject"]),
        ("AT&amp;T &AMP; R&D &quot;x&quot; 1 &lt; 2", ['AT&T & R&D " x " 1 < 2']),
        ("\u00a0 wide\u2003space\t", ["wide space"]),
    ],
)
def test_lines_and_sentences(tmp_path, nlp, body, expected):
    assert one(tmp_path, nlp, body)[0] == expected


def test_a_break_inside_a_mention_is_undone_even_at_a_tag(tmp_path, nlp):
    body = "<TURN>\nHe. Tom.\n</TURN>\n<TURN>\nPoe. Yes\n</TURN>"
    texts, sentences = one(tmp_path, nlp, body, [("E1", "PER", [("E1-1", "Tom.\n\n\nPoe", 0)])])
    assert texts == ["He .", "Tom . Poe .", "Yes"]
    assert sentences[1].entities == (Entity(0, 3, "PER"),)


def test_a_relation_over_several_sentences_joins_them_all(tmp_path, nlp):
    entities = [("E1", "PER", [("E1-1", "Poe", 0)]), ("E2", "GPE", [("E2-1", "Oz", 0)])]
    texts, sentences = one(tmp_path, nlp, "Hi. Oz it is. So. Poe said. Bye.", entities, [("PHYS", "E1-1", "E2-1")])
    assert texts == ["Hi .", "Oz it is . So . Poe said .", "Bye ."]
    assert sentences[1].relations == (Relation("PHYS", 1, 0),)


def test_a_head_in_the_middle_of_a_token_leaves_three(tmp_path, nlp):
    entities = [("E1", "PER", [("E1-1", "bcd", 0), ("E1-2", "c", 0)])]
    texts, sentences = one(tmp_path, nlp, "abcde.", entities)
    assert texts == ["a b c d e ."]
    assert sentences[0].entities == (Entity(1, 4, "PER"), Entity(2, 3, "PER"))


def test_tags_may_be_left_open(tmp_path, nlp):
    sgm = "<DOC>\n<BODY>\n<TEXT>\nHe went.\n<TURN>\nShe\nstayed"
    sentences, _ = read(write(tmp_path, {"X": ("nw", sgm, apf("X", sgm, []))}), "X", nlp)
    assert [" ".join(s.tokens) for s in sentences] == ["He went .", "She stayed"]


# ---- invariants over random documents ------------------------------------------------------------------------------

PIECES = (
    *("US-led", "anti-Saddam", "AT&amp;T", "U.N.", "NATO2's", "he said.", "Mr. Poe", "Oz! ", '"yes"', "émigré", "A: "),
    *(" ", " ", " ", "\n", "\n", "\n\n", "\n   ", "</TURN>\n<TURN>\n<SPEAKER> JANE ROE </SPEAKER>\n"),
)


@st.composite
def documents(draw):
    """A document, the text that offsets count in, its mentions and its relations, by id."""
    body = "".join(draw(st.lists(st.sampled_from(PIECES), min_size=10, max_size=50)))
    sgm = f"<DOC>\n<DOCID> X </DOCID>\n<BODY>\n<TEXT>\n<TURN>\nSo {body}\n</TURN>\n</TEXT>\n</BODY>\n</DOC>\n"
    text = without_tags(sgm)
    escapes = {i for m in re.finditer("&amp;", text) for i in range(m.start() + 1, m.end())}
    starts = [i for i in range(len(text)) if i not in escapes and not text[i].isspace()]
    mentions = []
    for number in range(draw(st.integers(2, 12))):
        start = draw(st.sampled_from(starts))
        end = start + draw(st.integers(1, 15))
        while end in escapes:
            end += 1
        kind = draw(st.sampled_from(["PER", "GPE", "JOB"]))
        mentions.append((f"M{number}", kind, start, min(end, len(text))))
    mentions += [("again", *m[1:]) for m in mentions[: draw(st.integers(0, 1))]]
    names = st.sampled_from([m[0] for m in mentions] + ["T1"])
    relations = draw(st.lists(st.tuples(st.sampled_from(["PHYS", "ART", "METONYMY"]), names, names), max_size=15))
    return sgm, text, mentions, relations


def joined(text):
    return "".join(text.replace("&amp;", "&").split())


@given(documents())
def test_nothing_is_lost_or_moved(tmp_path_factory, nlp, document):
    sgm, text, mentions, relations = document
    entities = "".join(
        f'<entity ID="{name}" TYPE="{kind}">\n<entity_mention ID="X-{name}">\n<head>\n'
        f"{charseq(start, text[start:end])}\n</head>\n</entity_mention>\n</entity>\n"
        for name, kind, start, end in mentions
    )
    folder = write(tmp_path_factory.mktemp("ace"), {"X": ("nw", sgm, apf("X", sgm, [], relations, more=entities))})
    sentences, dropped = read(folder, "X", nlp)

    # Every character of the body is in a token, in order, and of the header whatever a mention touches.
    assert "".join(token for s in sentences for token in s.tokens).endswith(joined(text[text.index("So ") :]))
    assert all(token and not token.isspace() for s in sentences for token in s.tokens)
    assert all(s.problem() is None for s in sentences)
    assert [s.sent_id for s in sentences] == list(range(len(sentences)))

    # Every mention's tokens spell its head; duplicates are those of the same type and characters.
    kept = {(kind, *trimmed(text, start, end)) for _, kind, start, end in mentions if kind != "JOB"}
    heads = Counter((kind, joined(text[start:end])) for kind, start, end in kept)
    spelt = Counter((e.type, "".join(s.tokens[e.start : e.end])) for s in sentences for e in s.entities)
    assert spelt == heads
    assert dropped["other_entity_type"] + dropped["duplicate_mention"] + heads.total() == len(mentions)

    # Relations are kept between the same heads, or dropped and counted.
    by_name = {name: (kind, *trimmed(text, start, end)) for name, kind, start, end in mentions if kind != "JOB"}
    links = {
        (kind, by_name[h], by_name[t]) for kind, h, t in relations if kind != "METONYMY" and {h, t} <= set(by_name)
    }
    ends = [(kind, *(joined(text[m[1] : m[2]]) for m in pair)) for kind, *pair in links]
    between = Counter(
        (r.type, *("".join(s.tokens[s.entities[i].start : s.entities[i].end]) for i in (r.head, r.tail)))
        for s in sentences
        for r in s.relations
    )
    assert between == Counter(ends)
    gone = ("other_relation_type", "argument_not_kept", "duplicate_relation")
    assert sum(dropped[reason] for reason in gone) + len(links) == len(relations)


def trimmed(text, start, end):
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
