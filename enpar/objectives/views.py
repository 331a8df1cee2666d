"""The views of a batch of sentences, for all four objectives, each distinct sequence once.

A *view* is one sequence that the encoder reads; an *instance* is one labelled example of an objective. The original
sentence serves as ACD's positive and PP's identity of all its pairs, one masked copy serves MET and MEP, and a view
that two instances ask for is there once.
"""

from dataclasses import dataclass, fields

import numpy as np

from enpar.config import Objectives, Views
from enpar.objectives import context, prediction, typing
from enpar.objectives.draws import combine, run_key
from enpar.objectives.masking import Entities, apply_actions, choose_actions, spread
from enpar.objectives.pairs import Pairs, Placed, draw_pairs
from enpar.objectives.permutation import IDENTITY, draw_classes, permuted
from enpar.objectives.segments import Layout, SegmentHashes
from enpar.wordpieces import Ints, Keys, WordpieceCorpus


@dataclass(frozen=True)
class ViewBatch:
    """N views (sequences) of some sentences, and the instances on them.

    Spans and positions are in wordpieces of the sequence, [CLS] not counted, ends exclusive.

    Args:
        wordpieces: ids of all sequences, one after the other, without [CLS] and [SEP]. Shape: (total wordpieces,)
        lengths: wordpieces of each sequence. Shape: (N,)
        sentence: index of each sequence's sentence in the corpus. Shape: (N,)
        met: sequence, start, end, type, `Action` of each entity to type. Shape: (n, 5)
        mep: sequence, position, wordpiece to restore. Shape: (n, 3)
        pairs: sequence and the two spans of each pair to encode, in textual order. Shape: (pairs, 5)
        acd: row in `pairs` of the original and of the negative, index in `context.KINDS`, and the two entities
            (as the Sentence counts them). Shape: (n, 5)
        pp: row in `pairs`, class, and the two entities. Shape: (n, 4)
    """

    wordpieces: Ints
    lengths: Ints
    sentence: Ints
    met: Ints
    mep: Ints
    pairs: Ints
    acd: Ints
    pp: Ints

    def counts(self) -> dict[str, int]:
        """Labelled items of each objective: entities, wordpieces, (original, negative) pairs, permutations."""
        return {"met": len(self.met), "mep": len(self.mep), "acd": len(self.acd), "pp": len(self.pp)}

    def instances(self) -> int:
        """Labelled examples: for MET and MEP the masked sentences, for ACD and PP their items."""
        masked = [len(np.unique(items[:, 0])) for items in (self.met, self.mep)]
        return sum(masked) + len(self.acd) + len(self.pp)


class ViewMaker:
    """Makes the views of any sentences of a corpus; they depend on (seed, epoch, document, sentence) alone."""

    def __init__(self, corpus: WordpieceCorpus, views: Views, objectives: Objectives, mask_id: int, seed: int) -> None:
        self._corpus = corpus
        self._views = views
        self._objectives = objectives
        self._mask_id = mask_id
        self._seed = seed

    @property
    def lengths(self) -> Ints:
        """Wordpieces of each sentence of the corpus. Shape: (S,)."""
        return self._corpus.lengths

    def make(self, sentences: Ints, epoch: int) -> ViewBatch:
        """The views of these sentences in this epoch. Args: indices in the corpus, shape (sentences,)."""
        batch = _Sentences(self._corpus, sentences, self._seed, epoch)
        parts = _Parts()
        if self._objectives.met or self._objectives.mep:
            self._masked(batch, parts)
        if self._objectives.acd or self._objectives.pp:
            self._rearranged(batch, parts)
        return parts.view_batch(sentences)

    def _masked(self, batch: "_Sentences", parts: "_Parts") -> None:
        entities, inventory = batch.entities, self._corpus.inventory
        actions = choose_actions(entities, batch.keys, self._views, inventory)
        changed = apply_actions(batch.pieces, batch.positions, entities, actions, batch.keys, inventory, self._mask_id)
        parts.add_sequences(changed, batch.lengths, np.arange(len(batch.lengths)))
        if self._objectives.met:
            parts.met = typing.labels(entities, actions, self._views)
        if self._objectives.mep:
            parts.mep = prediction.labels(batch.pieces, batch.positions, entities, actions)

    def _rearranged(self, batch: "_Sentences", parts: "_Parts") -> None:
        pairs = draw_pairs(batch.entities, batch.lengths, batch.keys, self._views.pairs)
        if not len(pairs.sentence):
            return
        hashes = SegmentHashes(batch.pieces, batch.positions, int(batch.lengths.max()))
        every = np.arange(len(pairs.sentence))
        groups = [permuted(pairs, every, np.full(len(every), IDENTITY))]
        if self._objectives.acd:
            groups.append((negatives := context.negatives(pairs, self._views.n_s)).placed)
        if self._objectives.pp:
            pair, classes = draw_classes(pairs, batch.keys, self._views.n_p, hashes, _counter(pairs, batch.entities))
            groups.append(permuted(pairs, pair, classes))
        placed = Placed.join(groups)
        texts = hashes.of(placed.layout)
        used = np.ones(len(texts), dtype=np.bool_)
        numbers = batch.numbers[pairs.first], batch.numbers[pairs.second]
        if self._objectives.acd:
            behind = len(every) + np.arange(len(negatives.pair))
            same = (texts[behind] == texts[negatives.pair]) & (
                placed.spans[behind] == placed.spans[negatives.pair]
            ).all(1)
            used[behind[same]] = False
            columns = negatives.pair, behind, negatives.kind, *(number[negatives.pair] for number in numbers)
            parts.acd = np.stack(columns, axis=1)[~same]
        if self._objectives.pp:
            rows = len(texts) - len(pair) + np.arange(len(pair))
            parts.pp = np.stack([rows, classes, numbers[0][pair], numbers[1][pair]], axis=1)
        parts.add_placed(batch, placed, texts, used)


class _Sentences:
    """The chosen sentences of a corpus, put together."""

    def __init__(self, corpus: WordpieceCorpus, chosen: Ints, seed: int, epoch: int) -> None:
        self.lengths: Ints = corpus.lengths[chosen]
        self.positions: Ints = np.cumsum(self.lengths) - self.lengths
        self.pieces: Ints = corpus.pieces[spread(corpus.offsets[chosen], self.lengths)]
        self.keys: Keys = combine(combine(run_key(seed, epoch), corpus.documents[chosen]), corpus.sent_ids[chosen])
        begins, counts = corpus.entity_offsets[chosen], np.diff(corpus.entity_offsets)[chosen]
        rows = spread(begins, counts)
        self.numbers: Ints = corpus.numbers[rows]
        self.entities = Entities(
            sentence=np.repeat(np.arange(len(chosen)), counts),
            number=spread(np.zeros_like(counts), counts),
            start=corpus.starts[rows],
            end=corpus.ends[rows],
            type=corpus.types[rows],
            rank=corpus.ranks[rows],
        )


def _counter(pairs: Pairs, entities: Entities) -> Ints:
    """A number for each pair that is its own within its sentence."""
    return entities.number[pairs.first] * (1 << 20) + entities.number[pairs.second]


def _nothing(columns: int) -> Ints:
    return np.zeros((0, columns), dtype=np.int64)


class _Parts:
    """Sequences and instances as they are put together; instances name sequences by their rows here."""

    def __init__(self) -> None:
        self.met, self.mep, self.acd, self.pp = _nothing(5), _nothing(3), _nothing(5), _nothing(4)
        self.pairs = _nothing(5)
        self._ids: list[Ints] = []
        self._lengths: list[Ints] = []
        self._sentence: list[Ints] = []

    def add_sequences(self, ids: Ints, lengths: Ints, sentence: Ints) -> int:
        """Add sequences; returns how many there were before."""
        before = sum(len(group) for group in self._lengths)
        self._ids.append(ids)
        self._lengths.append(lengths)
        self._sentence.append(sentence)
        return before

    def add_placed(
        self, batch: _Sentences, placed: Placed, texts: Keys, used: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]"
    ) -> None:
        """Add the distinct sequences among the used views, and the distinct pairs on them."""
        sentence = placed.layout.sentence
        rows = np.flatnonzero(used)
        _, first, inverse = np.unique(_rows(sentence, texts)[rows], axis=0, return_index=True, return_inverse=True)
        distinct = rows[first]
        layout = Layout(sentence[distinct], placed.layout.starts[distinct], placed.layout.lengths[distinct])
        ids = batch.pieces[layout.gather(batch.positions)]
        before = self.add_sequences(ids, batch.lengths[layout.sentence], layout.sentence)
        pairs = np.concatenate([(before + inverse.reshape(-1))[:, None], placed.spans[rows]], axis=1)
        self.pairs, index = np.unique(pairs, axis=0, return_inverse=True)
        row_of = np.zeros(len(used), dtype=np.int64)
        row_of[rows] = index.reshape(-1)
        self.acd[:, :2] = row_of[self.acd[:, :2]]
        self.pp[:, 0] = row_of[self.pp[:, 0]]

    def view_batch(self, sentences: Ints) -> ViewBatch:
        """The batch; `sentences` are the corpus indices of its sentences."""
        nothing = np.zeros(0, dtype=np.int64)
        return ViewBatch(
            wordpieces=np.concatenate([nothing, *self._ids]),
            lengths=np.concatenate([nothing, *self._lengths]),
            sentence=sentences[np.concatenate([nothing, *self._sentence])],
            met=self.met,
            mep=self.mep,
            pairs=self.pairs,
            acd=self.acd,
            pp=self.pp,
        )


def _rows(sentence: Ints, texts: Keys) -> Ints:
    return np.stack([sentence, texts.view(np.int64)], axis=1)


def to_columns(batch: ViewBatch) -> dict[str, Ints]:
    """The batch as flat arrays, as a row of a table holds them."""
    return {field.name: getattr(batch, field.name).reshape(-1) for field in fields(ViewBatch)}


def from_columns(columns: dict[str, Ints]) -> ViewBatch:
    """The inverse of `to_columns`."""
    widths = {"met": 5, "mep": 3, "pairs": 5, "acd": 5, "pp": 4}
    return ViewBatch(
        **{
            name: values.reshape(-1, widths[name]) if name in widths else values
            for name, values in ((field.name, np.asarray(columns[field.name])) for field in fields(ViewBatch))
        }
    )
