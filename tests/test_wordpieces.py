import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from encoders import LONG, tiny_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from enpar.errors import UserError
from enpar.pretrained import EMBEDDED, load_tokenizer, locate
from enpar.sentence import Entity, Sentence
from enpar.wordpieces import build_corpus, document_key, split

WORDS = ["she", "moved", "to", "warsaw", "elizabeth", "washington", "."]
NOTHING = [" ", "\n", "\u200b", "\t ", "\x01"]  # tokens of which a BERT tokenizer makes nothing


def expected(word):
    return [word] if len(word) <= LONG else [word[:LONG], f"##{word[LONG:]}"]


def sentence(tokens, entities=(), doc="d", number=0):
    return Sentence(tuple(tokens), tuple(Entity(*entity) for entity in entities), (), doc, number)


def names(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(np.asarray(ids).tolist())


def spans_of(corpus):
    return list(zip(corpus.starts.tolist(), corpus.ends.tolist(), strict=True))


def distinct(corpus, length):
    """The inventory's entities of a length, by the definition of `first`."""
    first, end = corpus.inventory.first[length], corpus.inventory.first[length + 1]
    return corpus.inventory.ids[first:end].reshape(-1, length).tolist()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(str(tiny_encoder(tmp_path_factory.mktemp("encoder"), WORDS)))


# ---- alignment ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(st.lists(st.sampled_from(WORDS + NOTHING), max_size=12), max_size=5))
def test_wordpieces_are_aligned_with_their_tokens(tokenizer, batch):
    cuts = list(split(tokenizer, batch))
    assert len(cuts) == len(batch)
    for tokens, cut in zip(batch, cuts, strict=True):
        wanted = [[] if token in NOTHING else expected(token) for token in tokens]
        assert names(tokenizer, cut.ids) == [piece for pieces in wanted for piece in pieces]
        assert cut.ids.dtype == cut.starts.dtype == np.int64
        assert (cut.starts[0], cut.starts[-1]) == (0, len(cut.ids))
        assert len(cut.starts) == len(tokens) + 1
        for i in range(len(tokens)):
            for j in range(i, len(tokens) + 1):
                start, end = cut.span(i, j)
                assert names(tokenizer, cut.ids[start:end]) == [piece for pieces in wanted[i:j] for piece in pieces]


def test_a_sentence_is_cut_alike_alone_and_among_others(tokenizer):
    batch = [["she", "moved"], ["elizabeth"] * 40, [], ["\n"], ["to", " ", "warsaw"]]
    for tokens, cut in zip(batch, split(tokenizer, batch), strict=True):
        (alone,) = split(tokenizer, [tokens])
        assert alone.ids.tolist() == cut.ids.tolist()
        assert alone.starts.tolist() == cut.starts.tolist()


def test_a_token_is_cut_into_words_that_stay_together(tokenizer):
    (cut,) = split(tokenizer, [["she.moved", "to"]])
    assert names(tokenizer, cut.ids) == ["she", ".", "moved", "to"]
    assert cut.starts.tolist() == [0, 3, 4]


def test_brackets_and_quotation_marks_of_the_penn_treebank_are_read_as_raw_text_has_them(tmp_path):
    tokenizer = load_tokenizer(str(tiny_encoder(tmp_path / "encoder", ["she", *'()[]{}"'])))
    treebank = ["-LRB-", "-RRB-", "-LSB-", "she", "-RSB-", "-LCB-", "-RCB-", "``", "''"]
    raw = ["(", ")", "[", "she", "]", "{", "}", '"', '"']
    written, read = split(tokenizer, [treebank, raw])
    assert names(tokenizer, written.ids) == raw
    assert written.ids.tolist() == read.ids.tolist()
    assert written.starts.tolist() == read.starts.tolist() == list(range(10))


# ---- the corpus -----------------------------------------------------------------------------------------------------


def test_a_corpus_in_flat_arrays(tokenizer):
    corpus = build_corpus(
        [
            sentence(["elizabeth", "moved", "\n", "to", "warsaw"], [(4, 5, "GPE"), (0, 1, "PERSON")], "x", 3),
            sentence(["washington", "washington"], [(0, 1, "PERSON"), (1, 2, "GPE"), (0, 2, "ORG")], "y", 7),
        ],
        tokenizer,
        64,
    )
    assert names(tokenizer, corpus.pieces) == ["elizab", "##eth", "moved", "to", "warsaw"] + ["washin", "##gton"] * 2
    assert corpus.offsets.tolist() == [0, 5, 9]
    assert corpus.lengths.tolist() == [5, 4]
    assert corpus.entity_offsets.tolist() == [0, 2, 5]
    assert spans_of(corpus) == [(0, 2), (4, 5), (0, 2), (0, 4), (2, 4)]  # in textual order
    assert corpus.numbers.tolist() == [1, 0, 0, 2, 1]  # as the Sentence counts them
    assert corpus.type_names == ("GPE", "ORG", "PERSON")
    assert [corpus.type_names[i] for i in corpus.types] == ["PERSON", "GPE", "PERSON", "ORG", "GPE"]
    assert corpus.names == ("x", "y")
    assert corpus.sent_ids.tolist() == [3, 7]
    assert corpus.documents.tolist() == [document_key("x"), document_key("y")]
    assert len(corpus) == 2
    assert corpus.left_out == {"too long": 0, "no entity": 0}


def test_entities_of_no_wordpieces_are_passed_over(tokenizer):
    corpus = build_corpus(
        [
            sentence(["\n", "she", "\u200b"], [(0, 1, "A"), (2, 3, "B"), (0, 2, "C")], "kept"),
            sentence(["she", " "], [(1, 2, "A")], "none"),
            sentence(["she"], [], "empty"),
            sentence(["\n"], [(0, 1, "A")], "nothing"),
        ],
        tokenizer,
        64,
    )
    assert corpus.names == ("kept",)
    assert spans_of(corpus) == [(0, 1)]
    assert corpus.numbers.tolist() == [2]
    assert corpus.type_names == ("C",)
    assert corpus.left_out == {"too long": 0, "no entity": 3}


def test_the_border_of_max_wordpieces_is_exact(tokenizer):
    given = [sentence(["she"] * n, [(0, 1, "A")], "d", n) for n in (1, 9, 10, 11, 30)]
    given.append(sentence(["elizabeth"] * 5, [(0, 1, "A")], "d", 100))  # 10 wordpieces
    given.append(sentence(["elizabeth"] * 5 + ["she"], [(0, 1, "A")], "d", 101))
    corpus = build_corpus(given, tokenizer, 10)
    assert corpus.sent_ids.tolist() == [1, 9, 10, 100]
    assert corpus.left_out == {"too long": 3, "no entity": 0}


def test_no_sentences_make_an_empty_corpus(tokenizer):
    corpus = build_corpus([], tokenizer, 10)
    assert len(corpus) == 0
    assert corpus.lengths.tolist() == []
    assert corpus.type_names == ()


@st.composite
def sentences(draw):
    tokens = draw(st.lists(st.sampled_from([*WORDS, *NOTHING]), min_size=1, max_size=10))
    spans = draw(st.lists(st.tuples(st.integers(0, len(tokens) - 1), st.integers(1, 4), st.sampled_from("ABC"))))
    return tokens, [(start, min(start + n, len(tokens)), type_) for start, n, type_ in spans]


@settings(max_examples=60, deadline=None)
@given(given=st.lists(sentences(), max_size=8), limit=st.integers(1, 12), batch=st.integers(1, 5))
def test_a_corpus_against_plain_lists(tokenizer, given, limit, batch):
    corpus = build_corpus(
        (sentence(tokens, entities, f"d{i}", i) for i, (tokens, entities) in enumerate(given)), tokenizer, limit, batch
    )
    left_out = Counter({"too long": 0, "no entity": 0})
    row, entity_rows, inventory = 0, 0, {}
    for i, (tokens, entities) in enumerate(given):
        cut = [[] if token in NOTHING else expected(token) for token in tokens]
        ends = np.cumsum([0, *map(len, cut)]).tolist()
        pieces = [piece for group in cut for piece in group]
        wanted = sorted((ends[s], ends[e], n, t) for n, (s, e, t) in enumerate(entities) if ends[s] < ends[e])
        if len(pieces) > limit or not wanted:
            left_out["too long" if len(pieces) > limit else "no entity"] += 1
            continue
        assert (corpus.names[row], corpus.sent_ids[row]) == (f"d{i}", i)
        assert names(tokenizer, corpus.pieces[corpus.offsets[row] : corpus.offsets[row + 1]]) == pieces
        mine = slice(corpus.entity_offsets[row], corpus.entity_offsets[row + 1])
        types = [corpus.type_names[t] for t in corpus.types[mine]]
        columns = corpus.starts[mine].tolist(), corpus.ends[mine].tolist(), corpus.numbers[mine].tolist(), types
        assert list(zip(*columns, strict=True)) == wanted
        for offset, (start, end, _, _) in enumerate(wanted):
            text = pieces[start:end]
            rank = int(corpus.ranks[mine.start + offset])
            assert names(tokenizer, distinct(corpus, end - start)[rank]) == text
            inventory.setdefault(end - start, set()).add(tuple(text))
        row, entity_rows = row + 1, entity_rows + len(wanted)
    assert len(corpus) == row == len(given) - sum(left_out.values())
    assert len(corpus.starts) == entity_rows
    assert corpus.left_out == dict(left_out)
    assert len(corpus.inventory.first) == max(inventory, default=0) + 2
    for length in range(1, len(corpus.inventory.first) - 1):
        there = [tuple(names(tokenizer, ids)) for ids in distinct(corpus, length)]
        assert sorted(there) == sorted(inventory.get(length, ()))
    lengths = np.arange(len(corpus.inventory.first) - 1)
    assert corpus.inventory.count(lengths).tolist() == [len(inventory.get(length, ())) for length in lengths]


def test_the_key_of_a_document_is_fixed_and_takes_any_name():
    assert document_key("d").to_bytes(8, "little").hex() == "b5a5e556bca88c7b"  # runs that were broken off rely on it
    assert document_key("d") != document_key("e")
    assert 0 <= document_key("\ud800") < 2**64


# ---- other tokenizers -----------------------------------------------------------------------------------------------


def test_the_embedded_encoders_tokenizer():
    for name in EMBEDDED:
        try:
            locate(name)
        except UserError:
            pytest.skip(f"{name} is not installed")
        tokenizer = load_tokenizer(name)
        tokens = ["Marie", "Ångström", " ", "Curie", "\u200b", "discovered", "polonium", "\n", "(", "1898", ")"]
        long = ["word"] * 700  # beyond what its tokenizer.json truncates to
        short, other = split(tokenizer, [tokens, long])
        assert len(other.ids) == 700
        assert other.starts.tolist() == list(range(701))
        pieces = names(tokenizer, short.ids)
        assert not set(pieces) & {"[CLS]", "[SEP]", "[PAD]"}
        for i, token in enumerate(tokens):
            start, end = short.span(i, i + 1)
            spelt = "".join(piece.removeprefix("##") for piece in pieces[start:end])
            assert spelt == ("" if token in NOTHING else token.lower().replace("å", "a").replace("ö", "o"))


def test_a_byte_level_tokenizer(tmp_path):
    words = ["Elizabeth", "moved", "to", "Warsaw", "é", "naïve"]
    built = Tokenizer(models.BPE(unk_token=None))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    built.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=specials)
    built.train_from_iterator([" ".join(words)] * 5, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=built, bos_token="<s>", pad_token="<pad>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip
    fast.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}), encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path))
    tokens = ["Elizabeth", "moved", "naïve", "é", "to", "Zürich", ".", "Warsaw"]
    (cut,) = split(tokenizer, [tokens])
    for i, token in enumerate(tokens):
        start, end = cut.span(i, i + 1)
        assert start < end
        assert tokenizer.decode(cut.ids[start:end]).strip() == token
    corpus = build_corpus([sentence(tokens, [(0, 1, "PERSON"), (5, 6, "GPE")])], tokenizer, 64)
    assert spans_of(corpus) == [cut.span(0, 1), cut.span(5, 6)]
    (odd,) = split(tokenizer, [["Elizabeth", "\n", " ", "\u200b", "", "Warsaw"]])
    assert tokenizer.decode(odd.ids[slice(*odd.span(5, 6))]).strip() == "Warsaw"
    assert odd.span(0, 1) == (0, cut.span(0, 1)[1])
    assert (np.diff(odd.starts) >= 0).all() and odd.starts[-1] == len(odd.ids)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    folder = Path(tiny_encoder(tmp_path, WORDS))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("mask_token", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="mask token"):
        load_tokenizer(str(folder))
