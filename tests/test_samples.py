"""The corpus in the package: small, but with every shape that a model and a report must cope with."""

from collections import Counter

import pytest

from enpar.corpora import describe, load, sample_corpus

SPLITS = {"train": 250, "dev": 60, "test": 100}


@pytest.fixture(scope="module")
def corpus():
    return {split: load("jsonl", sample_corpus() / f"{split}.jsonl") for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_size(corpus, split):
    assert len(corpus[split]) >= SPLITS[split]


@pytest.mark.parametrize("split", SPLITS)
def test_sentences_of_every_shape(corpus, split):
    relations = Counter(min(len(s.relations), 2) for s in corpus[split])
    assert set(relations) == {0, 1, 2}
    lengths = [len(s.tokens) for s in corpus[split]]
    assert min(lengths) <= 6
    assert max(lengths) >= 30


@pytest.mark.parametrize("split", SPLITS)
def test_types_and_both_orders(corpus, split):
    orders = {(r.type, s.entities[r.head].start < s.entities[r.tail].start) for s in corpus[split] for r in s.relations}
    both = {name for name, forward in orders if forward and (name, False) in orders}
    assert len(both) >= 5
    assert len(describe(corpus[split])["entity_types"]) >= 4


def test_every_label_is_known_in_training(corpus):
    known = describe(corpus["train"])
    for split in ("dev", "test"):
        here = describe(corpus[split])
        assert set(here["entity_types"]) <= set(known["entity_types"])
        assert set(here["relation_types"]) <= set(known["relation_types"])


def test_no_text_stands_twice(corpus):
    texts = Counter(" ".join(s.tokens).casefold() for split in corpus.values() for s in split)
    assert [text for text, count in texts.items() if count > 1] == []


@pytest.mark.parametrize("split", SPLITS)
def test_items_are_in_range_and_distinct(corpus, split):
    for sentence in corpus[split]:
        assert sentence.problem() is None
        assert len(set(sentence.relations)) == len(sentence.relations)
        assert all(r.head != r.tail for r in sentence.relations)
    assert describe(corpus[split])["overlapping_entity_pairs"] == 0


def test_many_entities_of_the_test_split_are_new(corpus):
    seen, texts = set(entity_texts(corpus["train"])), set(entity_texts(corpus["test"]))
    assert len(texts - seen) >= 0.4 * len(texts)


def entity_texts(sentences):
    return [" ".join(s.tokens[e.start : e.end]) for s in sentences for e in s.entities]
