import json
import math
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations, permutations

import numpy as np
import pyarrow.parquet as pq
import pytest
from encoders import tiny_encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from enpar.cli import main
from enpar.config import Objectives, Views
from enpar.objectives.views import ViewMaker, from_columns, to_columns
from enpar.pretrained import load_tokenizer
from enpar.sentence import Entity, Sentence, to_table
from enpar.training.plan import Cut, Plan
from enpar.views import show
from enpar.wordpieces import build_corpus

# Each token and its wordpieces under the tiny tokenizer; few, so that equal texts and equal entities are frequent.
PIECES = {"a": ["a"], "b": ["b"], "c": ["c"], "abcdefgh": ["abcdef", "##gh"], "\u200b": []}
MANY = [first + second for first in "abcdefgh" for second in "abcdefgh"]  # for texts without repetition
ORDERS = list(permutations(range(5)))
ALL = Objectives()
MASK = "[MASK]"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), [*list(PIECES)[:4], *MANY])


@pytest.fixture(scope="module")
def tokenizer(encoder):
    return load_tokenizer(str(encoder))


def only(*names):
    return Objectives(**{name: float(name in names) for name in ("met", "mep", "acd", "pp")})


def sentence(tokens, entities, number=0, doc="d"):
    return Sentence(tuple(tokens), tuple(Entity(*entity) for entity in entities), (), doc, number)


class Made:
    """A corpus and what is made of it."""

    def __init__(self, tokenizer, sentences, views=None, objectives=ALL, seed=1):
        self.tokenizer, self.sentences = tokenizer, sentences
        self.views, self.objectives = views or Views(), objectives
        self.corpus = build_corpus(sentences, tokenizer, 256)
        self.maker = ViewMaker(self.corpus, self.views, objectives, tokenizer.mask_token_id, seed)

    def batch(self, rows=None, epoch=0):
        return self.maker.make(np.arange(len(self.corpus)) if rows is None else np.array(rows, dtype=np.int64), epoch)

    def lines(self, rows=None, epoch=0):
        return list(show(self.batch(rows, epoch), self.corpus, self.tokenizer))

    def by_sentence(self, rows=None, epoch=0):
        lines = defaultdict(list)
        for line in self.lines(rows, epoch):
            lines[line["doc_id"], line["sent_id"]].append(line)
        return dict(lines)


# ---- a slow and obvious reference -----------------------------------------------------------------------------------


class Plain:
    """A sentence as lists of wordpieces."""

    def __init__(self, sentence):
        cut = [PIECES.get(token, [token]) for token in sentence.tokens]
        self.pieces = [piece for pieces in cut for piece in pieces]
        ends = [0]
        for pieces in cut:
            ends.append(ends[-1] + len(pieces))
        spans = [(ends[entity.start], ends[entity.end], entity.type) for entity in sentence.entities]
        self.entities = {i: span for i, span in enumerate(spans) if span[0] < span[1]}

    def text(self, entity):
        start, end, _ = self.entities[entity]
        return self.pieces[start:end]

    def pairs(self):
        both = [(i, j) for i, j in combinations(self.entities, 2)] + [(j, i) for i, j in combinations(self.entities, 2)]
        return {(i, j) for i, j in both if self.entities[i][1] <= self.entities[j][0]}

    def parts(self, first, second):
        """left, e1, middle, e2, right"""
        (s1, e1, _), (s2, e2, _) = self.entities[first], self.entities[second]
        return [self.pieces[:s1], self.pieces[s1:e1], self.pieces[e1:s2], self.pieces[s2:e2], self.pieces[e2:]]


def permuted(parts, order):
    """The text and the two spans, the first in the text first."""
    text, spans = [], []
    for part in order:
        if part in (1, 3):
            spans.append([len(text), len(text) + len(parts[part])])
        text = text + parts[part]
    return text, spans


def negatives(parts, n_s):
    """Text and spans of each kind of negative that there is."""
    identity = permuted(parts, range(5))
    found = {"swap": permuted(parts, [0, 3, 2, 1, 4])}
    for kind, entity, away, towards in (
        ("e1_left", 1, 0, 2),
        ("e1_right", 1, 2, 0),
        ("e2_left", 3, 2, 4),
        ("e2_right", 3, 4, 2),
    ):
        moved = [list(part) for part in parts]
        for _ in range(n_s):  # one wordpiece at a time goes from one side of the entity to the other
            if moved[away]:
                if away < entity:
                    moved[towards].insert(0, moved[away].pop())
                else:
                    moved[towards].append(moved[away].pop(0))
        found[kind] = permuted(moved, range(5))
    return {kind: view for kind, view in found.items() if view != identity}


def canonical(parts):
    """The lowest class of each text."""
    lowest = {}
    for class_, order in enumerate(ORDERS):
        lowest.setdefault(tuple(permuted(parts, order)[0]), class_)
    return lowest


def inventory(sentences):
    entities = [plain.text(i) for plain in map(Plain, sentences) for i in plain.entities]
    return {tuple(text) for text in entities}


def check(made, lines):
    """All lines of all sentences against the definitions."""
    others = inventory(made.sentences)
    kept = [one for one in made.sentences if Plain(one).entities]
    assert list(lines) == [(one.doc_id, one.sent_id) for one in kept if (one.doc_id, one.sent_id) in lines]
    for one in kept:
        mine = defaultdict(list)
        for line in lines.get((one.doc_id, one.sent_id), []):
            mine[line["objective"]].append(line)
        assert set(mine) <= {name for name, weight in made.objectives if weight}
        plain = Plain(one)
        if made.objectives.met or made.objectives.mep:
            check_masked(plain, mine["met"], mine["mep"], made, others)
        drawn = check_pp(plain, mine["pp"], made) if made.objectives.pp else None
        if made.objectives.acd:
            check_acd(plain, mine["acd"], made, drawn)


def check_masked(plain, met, mep, made, others):
    assert (len(met), len(mep)) == (bool(made.objectives.met), bool(made.objectives.mep))
    for line in met + mep:
        assert line["kind"] == "masked"
        assert len(line["wordpieces"]) == len(plain.pieces)
    text = (met + mep)[0]["wordpieces"]
    spans = {(start, end): type_ for start, end, type_ in plain.entities.values()}
    changed = {span for span in spans if text[slice(*span)] != plain.pieces[slice(*span)]}
    assert changed
    inside = {position for span in changed for position in range(*span)}
    for position, (piece, was) in enumerate(zip(text, plain.pieces, strict=True)):
        assert position in inside or piece == was
    for start, end in changed:
        if text[start:end] == [MASK] * (end - start):
            action = "mask"
        else:
            action = "replace"
            assert tuple(text[start:end]) in others
        if met:
            assert {"start": start, "end": end, "type": spans[start, end], "action": action} in met[0]["label"]
    if met:
        kept = {} if made.views.typing == "changed" else {span for span in spans if span not in changed}
        for start, end in kept:
            assert {"start": start, "end": end, "type": spans[start, end], "action": "keep"} in met[0]["label"]
        assert len(met[0]["label"]) == len(changed) + len(kept)
    if mep:
        assert mep[0]["label"] == [{"position": p, "wordpiece": plain.pieces[p]} for p in sorted(inside)]
    if met and mep:
        assert met[0]["wordpieces"] == mep[0]["wordpieces"]


def check_pp(plain, lines, made):
    """Returns the pairs."""
    by_pair = defaultdict(list)
    for line in lines:
        by_pair[tuple(line["entities"])].append(line)
    assert set(by_pair) <= plain.pairs()
    assert len(by_pair) == min(made.views.pairs, len(plain.pairs()))
    for pair, group in by_pair.items():
        parts = plain.parts(*pair)
        lowest = canonical(parts)
        classes = [line["label"] for line in group]
        assert 0 in classes
        assert len(set(classes)) == len(classes) == min(made.views.n_p, len(lowest))
        for line in group:
            assert line["kind"] == "permutation"
            assert tuple(line["permutation"]) == ORDERS[line["label"]]
            assert (line["wordpieces"], line["pair"]) == permuted(parts, ORDERS[line["label"]])
            assert lowest[tuple(line["wordpieces"])] == line["label"]
    return set(by_pair)


def check_acd(plain, lines, made, drawn):
    by_pair = defaultdict(dict)
    for line in lines:
        kinds = by_pair[tuple(line["entities"])]
        assert line["kind"] not in kinds
        kinds[line["kind"]] = line
    assert set(by_pair) <= plain.pairs()
    assert len(by_pair) <= made.views.pairs
    if drawn is not None:  # ACD and PP have the same pairs
        assert set(by_pair) == {pair for pair in drawn if negatives(plain.parts(*pair), made.views.n_s)}
    for pair, kinds in by_pair.items():
        parts = plain.parts(*pair)
        original = kinds.pop("original")
        assert (original["wordpieces"], original["pair"]) == permuted(parts, range(5))
        assert original["label"] == 1
        assert {kind: (line["wordpieces"], line["pair"]) for kind, line in kinds.items()} == negatives(
            parts, made.views.n_s
        )
        assert all(line["label"] == 0 for line in kinds.values())


def check_batch(made, batch):
    """The sequences: each once, each asked for, and the instances point at them."""
    assert int(batch.lengths.sum()) == len(batch.wordpieces)
    assert len(batch.lengths) == len(batch.sentence)
    assert batch.lengths.tolist() == made.corpus.lengths[batch.sentence].tolist()
    ends = np.cumsum(batch.lengths)
    texts = [tuple(batch.wordpieces[e - n : e].tolist()) for e, n in zip(ends, batch.lengths, strict=True)]
    masked = set(batch.met[:, 0].tolist()) | set(batch.mep[:, 0].tolist())
    arranged = [
        (s, text) for i, (s, text) in enumerate(zip(batch.sentence.tolist(), texts, strict=True)) if i not in masked
    ]
    assert len(set(arranged)) == len(arranged)
    asked = masked | set(batch.pairs[:, 0].tolist())
    assert asked == set(range(len(batch.lengths)))
    assert len({tuple(row) for row in batch.pairs.tolist()}) == len(batch.pairs)
    instances = len(set(batch.met[:, 0].tolist())) + len(set(batch.mep[:, 0].tolist()))
    assert batch.instances() == instances + len(batch.acd) + len(batch.pp)
    assert list(batch.counts().values()) == [len(batch.met), len(batch.mep), len(batch.acd), len(batch.pp)]
    same = from_columns(to_columns(batch))
    assert all(np.array_equal(getattr(same, name), getattr(batch, name)) for name in to_columns(batch))


# ---- random sentences -----------------------------------------------------------------------------------------------

TOKENS = st.sampled_from(list(PIECES)[:4])
BLOCK = st.tuples(st.lists(TOKENS, min_size=1, max_size=4), st.sampled_from([None, "X", "Y", "Z"]))


@st.composite
def random_sentences(draw, overlapping=False, most=4):
    made = []
    for number in range(draw(st.integers(1, most))):
        tokens, entities = [], []
        for words, type_ in draw(st.lists(BLOCK, min_size=1, max_size=7)):
            if type_:
                entities.append((len(tokens), len(tokens) + len(words), type_))
            tokens += words
        if overlapping:
            for start, length in draw(
                st.lists(st.tuples(st.integers(0, len(tokens) - 1), st.integers(1, 5)), max_size=3)
            ):
                entities.append((start, min(start + length, len(tokens)), "O"))
        if draw(st.booleans()):  # a token without wordpieces; an entity of it alone is passed over
            tokens.append("\u200b")
            entities.append((len(tokens) - 1, len(tokens), "N"))
        made.append(sentence(tokens, draw(st.permutations(entities)), number, f"d{number // 2}"))
    return made


VIEWS = st.builds(
    Views,
    n_s=st.integers(1, 5),
    n_p=st.sampled_from([2, 3, 4, 10, 120]),
    pairs=st.sampled_from([1, 2, 3, 50]),
    typing=st.sampled_from(["changed", "all"]),
    mask=st.sampled_from([0.15, 0.4, 0.0]),
    replace=st.sampled_from([0.05, 0.5]),
)
WEIGHTS = st.sampled_from([ALL, ALL, only("met"), only("mep"), only("acd"), only("pp"), only("mep", "acd")])


@settings(max_examples=300, deadline=None)
@given(sentences=random_sentences(), views=VIEWS, objectives=WEIGHTS, seed=st.integers(-(2**40), 2**70))
def test_every_view_is_right_by_the_definitions(tokenizer, sentences, views, objectives, seed):
    made = Made(tokenizer, sentences, views, objectives, seed)
    if len(made.corpus):
        check(made, made.by_sentence(epoch=abs(seed) % 7))
        check_batch(made, made.batch(epoch=abs(seed) % 7))


@settings(max_examples=60, deadline=None)
@given(sentences=random_sentences(overlapping=True), views=VIEWS, objectives=st.sampled_from([only("acd", "pp"), ALL]))
def test_spans_that_overlap_are_no_pair(tokenizer, sentences, views, objectives):
    made = Made(tokenizer, sentences, views, objectives)
    if len(made.corpus):
        lines = made.by_sentence()
        arranged = {key: [line for line in group if line["kind"] != "masked"] for key, group in lines.items()}
        plain = Made(tokenizer, sentences, views, only("acd", "pp"))
        check(plain, {key: group for key, group in arranged.items() if group})


@settings(max_examples=60, deadline=None)
@given(sentences=random_sentences(most=6), views=VIEWS, seed=st.integers(0, 9), random=st.randoms())
def test_views_depend_on_seed_epoch_and_sentence_alone(tokenizer, sentences, views, seed, random):
    made = Made(tokenizer, sentences, views, seed=seed)
    rows = list(range(len(made.corpus)))
    if not rows:
        return
    together = made.by_sentence(rows)
    assert together == Made(tokenizer, sentences, views, seed=seed).by_sentence(rows)
    alone = {}
    for row in rows:
        alone |= made.by_sentence([row])
    assert alone == together
    random.shuffle(rows)
    assert made.by_sentence(rows) == together
    shuffled = list(sentences)
    random.shuffle(shuffled)
    assert Made(tokenizer, shuffled, views, seed=seed).by_sentence() == together
    # Without the inventory, other sentences make no difference at all.
    few = Made(tokenizer, shuffled[: len(shuffled) // 2], views, only("acd", "pp"), seed).by_sentence()
    arranged = {key: [line for line in group if line["kind"] != "masked"] for key, group in together.items()}
    assert few == {key: arranged[key] for key in few}


@settings(max_examples=40, deadline=None)
@given(sentences=random_sentences(), views=VIEWS)
def test_an_objectives_views_are_the_same_with_and_without_the_others(tokenizer, sentences, views):
    together = Made(tokenizer, sentences, views).lines()
    for name in ("met", "mep", "acd", "pp"):
        alone = Made(tokenizer, sentences, views, only(name))
        assert alone.lines() == [line for line in together if line["objective"] == name]
        counts = alone.batch().counts()
        assert not any(count for other, count in counts.items() if other != name)


def test_seed_epoch_document_and_sentence_change_the_draws(tokenizer):
    tokens = MANY[:30]
    entities = [(i, i + 1, "X") for i in range(0, 30, 3)]

    def drawn(seed=1, epoch=0, doc="d", number=0):
        lines = Made(tokenizer, [sentence(tokens, entities, number, doc)], seed=seed).lines(epoch=epoch)
        return json.dumps([(line["wordpieces"], line["label"]) for line in lines])

    same = drawn()
    assert drawn() == same
    others = [drawn(seed=2), drawn(epoch=1), drawn(doc="e"), drawn(number=1), drawn(seed=-1), drawn(seed=0)]
    assert len({same, *others}) == 7


# ---- cases worked out by hand ---------------------------------------------------------------------------------------


def shown(made, objective):
    return [
        (line["kind"], "".join(line["wordpieces"]), line["pair"])
        for line in made.lines()
        if line["objective"] == objective
    ]


def test_negatives_worked_out_by_hand(tokenizer):
    made = Made(tokenizer, [sentence(list("abacbbc"), [(5, 6, "X"), (1, 3, "X")])], Views(n_s=2), only("acd"))
    assert shown(made, "acd") == [
        ("original", "abacbbc", [[1, 3], [5, 6]]),
        ("swap", "abcbbac", [[1, 2], [4, 6]]),
        ("e1_left", "baacbbc", [[0, 2], [5, 6]]),
        ("e1_right", "acbbabc", [[3, 5], [5, 6]]),
        ("e2_left", "ababcbc", [[1, 3], [3, 4]]),
        ("e2_right", "abacbcb", [[1, 3], [6, 7]]),
    ]


def test_negatives_without_room_fall_away(tokenizer):
    touching = Made(tokenizer, [sentence(list("ab"), [(0, 1, "X"), (1, 2, "X")])], objectives=only("acd"))
    assert shown(touching, "acd") == [("original", "ab", [[0, 1], [1, 2]]), ("swap", "ba", [[0, 1], [1, 2]])]
    equal = Made(tokenizer, [sentence(list("aa"), [(0, 1, "X"), (1, 2, "X")])], objectives=only("acd", "pp"))
    assert shown(equal, "acd") == []
    assert shown(equal, "pp") == [("permutation", "aa", [[0, 1], [1, 2]])]
    same_text = Made(tokenizer, [sentence(list("aab"), [(1, 2, "X"), (2, 3, "X")])], objectives=only("acd"))
    assert ("e1_left", "aab", [[0, 1], [2, 3]]) in shown(same_text, "acd")  # other spans: it is a negative


def test_an_entity_that_none_has_the_length_of_is_masked_in_place_of_replaced(tokenizer):
    given = [sentence(["a", "b", "c"], [(0, 2, "X")]), sentence(["c", "a", "c", "a"], [(0, 1, "X"), (2, 3, "X")], 1)]
    views = Views(mask=0, replace=1)
    labels = [line["label"] for line in Made(tokenizer, given, views, only("met")).lines()]
    assert [[item["action"] for item in label] for label in labels] == [["mask"], ["mask", "mask"]]
    given.append(sentence(["b", "b"], [(0, 1, "X")], 2))
    lines = Made(tokenizer, given, views, only("met")).lines()
    assert [line["wordpieces"] for line in lines] == [[MASK, MASK, "c"], ["b", "a", "b", "a"], ["c", "b"]]


def test_a_sentence_without_a_pair_has_masked_views_only(tokenizer):
    given = [sentence(["a", "b"], [(0, 2, "X")]), sentence(["a", "b"], [(0, 2, "X"), (1, 2, "Y")], 1)]
    assert {line["objective"] for line in Made(tokenizer, given).lines()} == {"met", "mep"}
    assert len(Made(tokenizer, given).batch().lengths) == 2
    assert Made(tokenizer, given, objectives=only("acd", "pp")).lines() == []
    assert len(Made(tokenizer, given, objectives=only("acd", "pp")).batch().lengths) == 0


def test_no_sentences_make_no_views(tokenizer):
    made = Made(tokenizer, [sentence(["a", "b"], [(0, 1, "X")])])
    batch = made.batch([])
    assert (len(batch.lengths), len(batch.wordpieces), batch.instances()) == (0, 0, 0)


def test_all_120_permutations_where_all_texts_differ(tokenizer):
    made = Made(tokenizer, [sentence(MANY[:9], [(1, 3, "X"), (5, 6, "X")])], Views(n_p=120), only("pp"))
    assert sorted(line["label"] for line in made.lines()) == list(range(120))
    assert len(made.batch().lengths) == 120
    empty = Made(tokenizer, [sentence(MANY[:4], [(0, 1, "X"), (1, 3, "X")])], Views(n_p=120), only("pp"))
    labels = [line["label"] for line in empty.lines()]
    assert len(labels) == math.factorial(3)  # left and middle are empty
    assert len({tuple(line["wordpieces"]) for line in empty.lines()}) == 6


def test_the_original_and_the_swap_are_encoded_once_for_both_objectives(tokenizer):
    given = [sentence(MANY[:12], [(1, 3, "X"), (5, 6, "X"), (8, 9, "Y")])]
    made = Made(tokenizer, given, Views(n_p=120, pairs=3))
    batch = made.batch()
    assert batch.counts() == {"met": batch.counts()["met"], "mep": batch.counts()["mep"], "acd": 15, "pp": 360}
    texts = {tuple(line["wordpieces"]) for line in made.lines()}
    assert len(batch.lengths) == len(texts)
    swaps = {tuple(batch.pairs[n, :1].tolist()) for _, n, kind, *_ in batch.acd.tolist() if kind == 1}
    swap = ORDERS.index((0, 3, 2, 1, 4))
    assert swaps == {tuple(batch.pairs[row, :1].tolist()) for row, class_, *_ in batch.pp.tolist() if class_ == swap}


def test_thirty_sentences_of_256_wordpieces(tokenizer):
    draws = np.random.default_rng(1)
    given = []
    for number in range(30):
        cuts = np.sort(draws.choice(np.arange(257), 40, replace=False)).reshape(-1, 2).tolist()
        given.append(sentence(draws.choice(list("abc"), 256).tolist(), [(s, e, "X") for s, e in cuts], number))
    made = Made(tokenizer, given, Views(pairs=3, n_p=20, n_s=40))
    check(made, made.by_sentence())
    check_batch(made, made.batch())


# ---- shares ---------------------------------------------------------------------------------------------------------

SENTENCES = 4000


def near(count, n, share):
    """Within five standard deviations of the binomial distribution."""
    return abs(count - n * share) < 5 * math.sqrt(n * share * (1 - share))


@pytest.fixture(scope="module")
def many(tokenizer):
    """4,000 sentences of ten different words each; 1, 2, 3 or 5 entities of one word, places spread evenly."""
    given = []
    for number in range(SENTENCES):
        entities = 1, 2, 3, 5
        places = range(1, 10, 2)
        chosen = list(places)[: entities[number % 4]]
        words = [MANY[(number + 7 * i) % 64] for i in range(11)]
        given.append(sentence(words, [(i, i + 1, "XYZ"[i % 3]) for i in chosen], number % 50, f"d{number // 50}"))
    return given


def test_shares_of_masked_and_replaced_entities(tokenizer, many):
    made = Made(tokenizer, many, Views(typing="all"), only("met"))
    for entities in (1, 2, 3, 5):
        rows = [row for row in range(SENTENCES) if len(many[row].entities) == entities]
        actions = Counter()
        first = Counter()
        changed = Counter()
        for epoch in range(3):
            for line in made.lines(rows, epoch):
                items = [item["action"] for item in line["label"]]
                actions.update(items)
                first.update(items[:1])
                changed[sum(item != "keep" for item in items)] += 1
        forced = 0.8**entities / entities
        total = 3 * len(rows)
        # The actions of a sentence's entities hang together by the forced one, so each is bounded by sentences too.
        for share, action in ((0.15 + 0.75 * forced, "mask"), (0.05 + 0.25 * forced, "replace")):
            assert near(first[action], total, share)
            assert near(actions[action], total * entities, share)
        assert changed[0] == 0
        if entities == 1:
            assert changed[1] == total
        else:  # exactly one: forced, or drawn by itself
            assert near(changed[1], total, 0.8**entities + entities * 0.2 * 0.8 ** (entities - 1))


def test_replacements_are_uniform_over_the_others(tokenizer, many):
    made = Made(tokenizer, many, Views(mask=0, replace=1), only("met"))
    found, texts = Counter(), Counter()
    for line, one in zip(made.lines(), many, strict=True):
        for item in line["label"]:
            text, was = line["wordpieces"][item["start"]], one.tokens[item["start"]]
            assert text != was
            found[(MANY.index(text) - MANY.index(was)) % 64] += 1
            texts[text] += 1
    total = sum(found.values())
    assert set(found) == set(range(1, 64))
    assert sum((found[i] - total / 63) ** 2 / (total / 63) for i in range(1, 64)) < 102.2  # χ²(62), 0.999
    assert sum((texts[text] - total / 64) ** 2 / (total / 64) for text in MANY) < 103.4  # χ²(63), 0.999


def test_permutations_are_uniform(tokenizer, many):
    rows = [row for row in range(SENTENCES) if len(many[row].entities) > 1]
    found, sizes = Counter(), Counter()
    for line in Made(tokenizer, many, Views(n_p=5), only("pp")).lines(rows):
        found[line["label"]] += 1
        sizes[line["doc_id"], line["sent_id"]] += 1
    assert found.pop(0) == len(rows)
    assert set(sizes.values()) == {5}
    mean = 4 * len(rows) / 119
    assert sum((found[i] - mean) ** 2 / mean for i in range(1, 120)) < 171.3  # χ²(118), 0.999


def test_permutations_are_uniform_over_canonical_classes(tokenizer):
    given = [sentence(["a", "b", "c", "a"], [(0, 1, "X"), (2, 3, "X")], number) for number in range(2000)]
    lowest = sorted(canonical(Plain(given[0]).parts(0, 1)).values())  # left is empty, and e1 is the right context
    assert len(lowest) == 12
    found = Counter(line["label"] for line in Made(tokenizer, given, Views(n_p=3), only("pp")).lines())
    assert sorted(found) == lowest
    assert found.pop(0) == 2000
    assert sum((found[i] - 4000 / 11) ** 2 / (4000 / 11) for i in lowest[1:]) < 29.6  # χ²(10), 0.999


def test_pairs_are_drawn_uniformly_and_anew_in_each_epoch(tokenizer, many):
    rows = [row for row in range(SENTENCES) if len(many[row].entities) == 5]
    made = Made(tokenizer, many, Views(n_p=2), only("pp"))
    found, drawn = Counter(), []
    for epoch in range(2):
        drawn.append([tuple(line["entities"]) for line in made.lines(rows, epoch) if line["label"] == 0])
        found.update(drawn[-1])
    total = 2 * len(rows)
    assert sum((found[pair] - total / 10) ** 2 / (total / 10) for pair in combinations(range(5), 2)) < 27.9  # χ²(9)
    same = sum(a == b for a, b in zip(*drawn, strict=True))
    assert near(same, len(rows), 0.1)


def test_all_kinds_of_negatives_occur(tokenizer, many):
    kinds = Counter(line["kind"] for line in Made(tokenizer, many, Views(), only("acd")).lines(range(400)))
    assert set(kinds) == {"original", "swap", "e1_left", "e1_right", "e2_left", "e2_right"}
    assert len(set(kinds.values())) == 1  # there is room everywhere


# ---- the command ----------------------------------------------------------------------------------------------------

COMMON = {"doc_id", "sent_id", "objective", "kind", "wordpieces"}
KEYS = {
    "met": COMMON | {"label"},
    "mep": COMMON | {"label"},
    "acd": COMMON | {"entities", "pair", "label"},
    "pp": COMMON | {"entities", "pair", "label", "permutation"},
}


@pytest.fixture
def folder(tmp_path, many):
    folder = tmp_path / "sentences"
    folder.mkdir()
    for number in range(2):
        pq.write_table(to_table(many[4 * number : 4 * number + 4]), folder / f"part-{number:05}.parquet")
    (folder / "_SUCCESS").touch()
    return folder


def test_the_command_streams_lines(folder, encoder, tokenizer, many):
    command = [sys.executable, "-m", "enpar", "views", f"data={folder}", f"encoder={encoder}", "views.n_p=3", "epoch=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(line) == KEYS[line["objective"]] for line in lines)
    assert {line["objective"] for line in lines} == set(KEYS)
    made = Made(tokenizer, many[:8], Views(n_p=3))
    assert lines == made.lines(epoch=2)
    by_sentence = defaultdict(list)
    for line in lines:
        by_sentence[line["doc_id"], line["sent_id"]].append(line)
    check(made, by_sentence)


@pytest.mark.parametrize("workers", [1, 2])
def test_ray_datas_workers_make_the_same_lines_in_the_same_order(tmp_path, encoder, tokenizer, many, workers):
    sentences = many[:600]  # more than two batches
    pq.write_table(to_table(sentences), tmp_path / "part-00000.parquet")
    (tmp_path / "_SUCCESS").touch()
    command = [sys.executable, "-m", "enpar", "views", f"data={tmp_path}", f"encoder={encoder}", "seed=3"]
    done = subprocess.run(
        [*command, f"num_workers={workers}"], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == Made(tokenizer, sentences, seed=3).lines()


def test_grouping_by_length_changes_no_instance(tokenizer, many):
    sentences = many[:240]
    made = Made(tokenizer, sentences)
    found = []
    for grouped in (True, False):
        plan = Plan(made.corpus, np.arange(240), 12, grouped, 1, Cut(least=3))
        drawn = [plan.pieces(step, rank, 2) for step in range(plan.per_epoch) for rank in range(2)]
        lines = [line for epoch, pieces in drawn for rows in pieces for line in made.lines(rows, epoch)]
        found.append(Counter(json.dumps(line, sort_keys=True) for line in lines))
    assert found[0] == found[1]  # and so are the counts by objective and kind
    assert sum(found[0].values()) == len(made.lines())


def test_the_command_shows_as_many_sentences_as_asked_for(folder, encoder, capsys):
    def lines(*arguments):
        assert main(["views", f"data={folder}", f"encoder={encoder}", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    full, some = lines(), lines("limit=3")
    assert some == full[: len(some)]
    assert {json.loads(line)["sent_id"] for line in some} == {0, 1, 2}
    assert lines("limit=100") == full
    assert lines("seed=2") != full
    assert lines("limit=1", "objectives.acd=0", "objectives.pp=0", "objectives.mep=0") == full[:1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["views.n_p=121"], "views.n_p"),
        (["views.pairs=0"], "views.pairs"),
        (["limit=0"], "limit"),
        (["epoch=-1"], "epoch"),
        (["encoder=./nowhere"], "nowhere"),
        (["data=nowhere"], "nowhere"),
        (["objectives.met=0", "objectives.mep=0", "objectives.acd=0", "objectives.pp=0"], "objectives"),
    ],
)
def test_the_commands_mistakes_end_with_2(folder, encoder, capsys, arguments, part):
    assert main(["views", f"data={folder}", f"encoder={encoder}", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert part in captured.err
    assert len(captured.err.splitlines()) == 1
