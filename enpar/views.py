"""`enpar views`: what the encoder would be trained on, one JSON line a view, so that a person can check it."""

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from enpar.config import ViewsJob
from enpar.objectives.context import KINDS
from enpar.objectives.masking import Action
from enpar.objectives.permutation import PERMUTATIONS
from enpar.objectives.views import ViewBatch, ViewMaker
from enpar.wordpieces import Ints, WordpieceCorpus, read_corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BATCH = 256


def run(job: ViewsJob) -> None:
    """Print the views of the sentences of `job.data`, sentence by sentence.

    Raises:
        UserError: the data, the tokenizer or room for the workers is missing.
    """
    corpus, tokenizer = read_corpus(job.data, job.encoder, job.views.max_wordpieces)
    maker = ViewMaker(corpus, job.views, job.objectives, tokenizer.mask_token_id, job.seed)
    shown = np.arange(min(len(corpus), job.limit or len(corpus)))
    batches = [shown[start : start + _BATCH] for start in range(0, len(shown), _BATCH)]
    writer = _Writer(maker, corpus, tokenizer, job.epoch)
    for text in _on_ray(writer, batches, job.num_workers, job.wait) if job.num_workers else map(writer.text, batches):
        sys.stdout.write(text)


class _Writer:
    """Makes the views of sentences and writes them as JSON lines."""

    def __init__(
        self, maker: ViewMaker, corpus: WordpieceCorpus, tokenizer: "PreTrainedTokenizerFast", epoch: int
    ) -> None:
        self._maker, self._corpus, self._tokenizer, self._epoch = maker, corpus, tokenizer, epoch

    def text(self, sentences: Ints) -> str:
        """The lines of these sentences."""
        lines = show(self._maker.make(sentences, self._epoch), self._corpus, self._tokenizer)
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _on_ray(writer: _Writer, batches: list[Ints], workers: int, wait: float) -> Iterator[str]:
    """The texts of all batches in order, made by Ray Data's workers."""
    import ray

    from enpar import cluster
    from enpar.capacity import require

    require([{"CPU": 1.0}] * workers, f"num_workers: {workers} workers are {workers} CPUs", wait)
    cluster.connect()
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    shared = ray.put(writer)

    def write(row: dict[str, Any]) -> dict[str, Any]:
        worker: _Writer = ray.get(shared)
        return {"text": worker.text(np.asarray(row["sentences"], dtype=np.int64))}

    rows = ray.data.from_items([{"sentences": batch.tolist()} for batch in batches], override_num_blocks=len(batches))
    for row in rows.map(write, compute=ray.data.TaskPoolStrategy(size=workers)).iter_rows():
        yield row["text"]


def show(batch: ViewBatch, corpus: WordpieceCorpus, tokenizer: "PreTrainedTokenizerFast") -> Iterator[dict[str, Any]]:
    """One line for each instance (for ACD one for the original of a pair and one for each negative), by sentence."""
    lines = _Lines(batch, corpus, tokenizer)
    yield from sorted(
        [*lines.typing(), *lines.prediction(), *lines.context(), *lines.permutation()],
        key=lambda line: line.pop("order"),
    )


class _Lines:
    """The lines of a batch; `order` is the sentence they belong to."""

    def __init__(self, batch: ViewBatch, corpus: WordpieceCorpus, tokenizer: "PreTrainedTokenizerFast") -> None:
        self._batch, self._corpus, self._tokenizer = batch, corpus, tokenizer
        self._ends = np.cumsum(batch.lengths)

    def _line(self, sequence: int, objective: str, kind: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        sentence = int(self._batch.sentence[sequence])
        end = int(self._ends[sequence])
        ids = self._batch.wordpieces[end - int(self._batch.lengths[sequence]) : end]
        return {
            "order": sentence,
            "doc_id": self._corpus.names[sentence],
            "sent_id": int(self._corpus.sent_ids[sentence]),
            "objective": objective,
            "kind": kind,
            "wordpieces": self._tokenizer.convert_ids_to_tokens(ids.tolist()),
            **more,
        }

    def typing(self) -> Iterator[dict[str, Any]]:
        for sequence in np.unique(self._batch.met[:, 0]).tolist():
            items = self._batch.met[self._batch.met[:, 0] == sequence]
            label = [
                {
                    "start": start,
                    "end": end,
                    "type": self._corpus.type_names[type_],
                    "action": Action(action).name.lower(),
                }
                for _, start, end, type_, action in items.tolist()
            ]
            yield self._line(sequence, "met", "masked", label=label)

    def prediction(self) -> Iterator[dict[str, Any]]:
        for sequence in np.unique(self._batch.mep[:, 0]).tolist():
            items = self._batch.mep[self._batch.mep[:, 0] == sequence]
            names = self._tokenizer.convert_ids_to_tokens(items[:, 2].tolist())
            positions = items[:, 1].tolist()
            label = [{"position": p, "wordpiece": name} for p, name in zip(positions, names, strict=True)]
            yield self._line(sequence, "mep", "masked", label=label)

    def context(self) -> Iterator[dict[str, Any]]:
        shown = set()
        for positive, negative, kind, first, second in self._batch.acd.tolist():
            sentence = int(self._batch.sentence[self._batch.pairs[positive, 0]])
            if (sentence, first, second) not in shown:
                shown.add((sentence, first, second))
                yield self._pair(positive, "acd", KINDS[0], first, second, label=1)
            yield self._pair(negative, "acd", KINDS[kind], first, second, label=0)

    def permutation(self) -> Iterator[dict[str, Any]]:
        for row, class_, first, second in self._batch.pp.tolist():
            order = PERMUTATIONS[class_].tolist()
            yield self._pair(row, "pp", "permutation", first, second, label=class_, permutation=order)

    def _pair(self, row: int, objective: str, kind: str, first: int, second: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        sequence, s1, e1, s2, e2 = self._batch.pairs[row].tolist()
        return self._line(sequence, objective, kind, entities=[first, second], pair=[[s1, e1], [s2, e2]], **more)
