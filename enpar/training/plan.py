"""Which sentences make up each update: a function of the seed and the update's number, for any number of workers."""

from dataclasses import dataclass

import numpy as np

from enpar.config import Objectives, PretrainJob, PretrainTraining, Views
from enpar.errors import UserError
from enpar.objectives.draws import Purpose, combine, draw, run_key
from enpar.wordpieces import SPECIALS, Ints, Keys, WordpieceCorpus

# Updates among whose sentences neighbours in length are put together: enough for hardly any padding, and few
# enough that the updates of a window, in random order, stay a mixture of short and long.
WINDOW = 64
# Wordpieces in a micro-batch: on a CPU so many that a small encoder's worker stays within 2 GiB, on a GPU so many that
# BERT-base fits into 40 GiB and keeps it busy.
CPU_WORDPIECES, GPU_WORDPIECES = 4096, 65536


@dataclass(frozen=True)
class Division:
    """The corpus divided into held-out sentences and those that are trained on.

    Args:
        train: indices in the corpus. Shape: (n,)
        heldout: indices in the corpus. Shape: (m,)
    """

    train: Ints
    heldout: Ints


def divide(corpus: WordpieceCorpus, fraction: float, heldout: int, seed: int) -> Division:
    """Hold out whole documents until `heldout` sentences are reached, and take a share of the rest.

    The draws depend on document and sentence alone, so a smaller fraction is part of a larger one, and both leave
    out the same sentences.

    Raises:
        UserError: nothing would be left to train on.
    """
    key = run_key(seed, 0)
    documents = draw(combine(key, corpus.documents), Purpose.HELDOUT, np.zeros(len(corpus), dtype=np.int64))
    by_document = np.lexsort((corpus.sent_ids, corpus.documents, documents))
    if heldout >= len(corpus):
        raise UserError(f"train.heldout: of {len(corpus)} sentences, {heldout} held out leave none to train on")
    ordered = documents[by_document]
    cut = int(np.searchsorted(ordered, ordered[heldout - 1], side="right")) if heldout else 0
    rest = by_document[cut:]
    if not len(rest):
        raise UserError(
            "train.heldout: whole documents are held out, and that takes all of them; "
            "set train.heldout=0 or annotate more documents"
        )
    draws = draw(combine(combine(key, corpus.documents[rest]), corpus.sent_ids[rest]), Purpose.FRACTION, 0 * rest)
    count = round(fraction * len(rest))
    return Division(np.sort(rest[np.argsort(draws, kind="stable")[:count]]), np.sort(by_document[:cut]))


@dataclass(frozen=True)
class Cut:
    """How an update is cut into micro-batches.

    Args:
        views: sequences that the encoder reads for each sentence, at most.
        wordpieces: what a worker puts through the model at once, about; the views of one sentence may have more.
        least: micro-batches a worker takes for an update, at least.
    """

    views: int = 1
    wordpieces: int = 1 << 62
    least: int = 1


class Plan:
    """The updates of a run over some sentences.

    An epoch is a random order of the sentences, cut into updates of equally many; what is left over at its end
    sits the epoch out. With `group_by_length`, a window of updates is sorted by length before it is cut, and the
    updates of the window are taken in random order.
    """

    def __init__(
        self,
        corpus: WordpieceCorpus,
        train: Ints,
        per_update: int,
        group_by_length: bool,
        seed: int,
        cut: Cut = Cut(),
    ) -> None:
        self._all_lengths = corpus.lengths
        self._lengths = self._all_lengths[train]
        self._keys: Keys = combine(corpus.documents[train], corpus.sent_ids[train])
        self._train = train
        self._grouped = group_by_length
        self._seed = seed
        self._cut_into = cut
        self.per_update = per_update
        self.per_epoch = len(train) // per_update
        self._last: tuple[int, list[Ints]] = (-1, [])

    def __len__(self) -> int:
        """How many sentences there are."""
        return len(self._train)

    def update(self, step: int) -> tuple[int, Ints]:
        """Epoch and sentences (by length) of an update, counted from 0."""
        epoch, number = divmod(step, self.per_epoch)
        if self._last[0] != epoch:
            self._last = epoch, self._make_epoch(epoch)
        return epoch, self._last[1][number]

    def pieces(self, step: int, rank: int, world: int) -> tuple[int, list[Ints]]:
        """Epoch and micro-batches of a worker's share of an update.

        The update is cut into a multiple of `world` pieces of neighbours in length, dealt out in turn: every worker
        takes as many micro-batches, and the two of one worker are those of two workers that take one each.
        """
        epoch, sentences = self.update(step)
        cut = self._cut_into
        wordpieces = cut.views * int((self._all_lengths[sentences] + SPECIALS).sum())
        each = max(cut.least, -(-wordpieces // (world * cut.wordpieces)))
        each = max(1, min(each, len(sentences) // world))
        return epoch, np.array_split(sentences, world * each)[rank::world]

    def _make_epoch(self, epoch: int) -> list[Ints]:
        keys = combine(run_key(self._seed, epoch), self._keys)
        order = np.argsort(draw(keys, Purpose.ORDER, np.zeros(len(keys), dtype=np.int64)), kind="stable")
        order = order[: self.per_epoch * self.per_update]
        size = self.per_update * WINDOW
        windows = [order[start : start + size] for start in range(0, len(order), size)]
        return [update for number, window in enumerate(windows) for update in self._cut(window, epoch, number)]

    def _cut(self, window: Ints, epoch: int, number: int) -> list[Ints]:
        if self._grouped:
            window = window[np.argsort(self._lengths[window], kind="stable")]
        updates = window.reshape(-1, self.per_update)
        updates = np.take_along_axis(updates, np.argsort(self._lengths[updates], axis=1, kind="stable"), axis=1)
        counter = np.arange(len(updates)) + number * WINDOW
        turn = np.argsort(draw(run_key(self._seed, epoch), Purpose.WINDOW, counter), kind="stable")
        return list(self._train[updates[turn]])


def views_per_sentence(views: Views, objectives: Objectives) -> int:
    """Sequences that the encoder reads for one sentence, if every shift has room and every text is different."""
    masked = 1 if objectives.met or objectives.mep else 0
    original = 1 if objectives.acd or objectives.pp else 0
    negatives = 5 if objectives.acd else 0
    permutations = views.n_p - 1 if objectives.pp else 0
    return masked + original + views.pairs * (negatives + permutations)


def sentences_an_update(settings: PretrainJob) -> int:
    """The sentences whose views come nearest to `train.batch_size`."""
    return max(1, round(settings.train.batch_size / views_per_sentence(settings.views, settings.objectives)))


def make_plan(corpus: WordpieceCorpus, train: Ints, settings: PretrainJob) -> Plan:
    """The plan of a `PretrainJob`.

    Raises:
        UserError: an update has too few sentences for its workers, or the corpus too few for an update.
    """
    training = settings.train
    each = views_per_sentence(settings.views, settings.objectives)
    per_update = sentences_an_update(settings)
    if per_update < (pieces := (settings.scaling.num_workers or 1) * training.accumulation):
        raise UserError(
            f"train.batch_size: {training.batch_size} views are {per_update} sentences of {each} views, too few for "
            f"{pieces} micro-batches (scaling.num_workers × train.accumulation); set it to {pieces * each} or more"
        )
    if len(train) < per_update:
        raise UserError(
            f"data: {len(train)} sentences to train on are too few for an update of {per_update}; "
            "lower train.batch_size or train.heldout, or annotate more text"
        )
    wordpieces = training.micro_batch_wordpieces or (GPU_WORDPIECES if settings.scaling.use_gpu else CPU_WORDPIECES)
    cut = Cut(each, wordpieces, training.accumulation)
    return Plan(corpus, train, per_update, training.group_by_length, settings.seed, cut)


def total_steps(plan: Plan, training: PretrainTraining) -> int:
    """Updates of the run."""
    return training.steps or max(1, round((training.epochs or 0) * plan.per_epoch))
