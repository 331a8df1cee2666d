"""The model that is pre-trained: three encoders and the heads of the objectives that have a weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from enpar.model.encoders import ENTITY_WIDTH, PAIR_WIDTH, EntityEncoder, PairEncoder, Spans, pair_contexts
from enpar.objectives.context import ContextHead, hinge
from enpar.objectives.permutation import IDENTITY, PermutationHead, permutation_loss
from enpar.objectives.prediction import PredictionHead, prediction_loss
from enpar.objectives.typing import TypingHead, typing_loss
from enpar.objectives.views import ViewBatch
from enpar.wordpieces import SPECIALS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from enpar.training.loop import Losses


@dataclass(frozen=True)
class ViewTensors:
    """A `ViewBatch` as the model reads it, sequences padded and with [CLS] and [SEP].

    Args:
        ids: wordpiece ids. Shape: (sequences, longest)
        mask: 1 for wordpieces, 0 for padding; None where nothing is padded. Shape: that of `ids`
        lengths: wordpieces of each sequence, [CLS] and [SEP] not counted. Shape: (sequences,)
        met, mep, pairs, acd, pp: as in `ViewBatch`.
    """

    ids: Tensor
    mask: Tensor | None
    lengths: Tensor
    met: Tensor
    mep: Tensor
    pairs: Tensor
    acd: Tensor
    pp: Tensor

    def counts(self) -> dict[str, int]:
        """Labelled items by objective."""
        return {name: len(getattr(self, name)) for name in ("met", "mep", "acd", "pp")}

    def to(self, device: torch.device) -> "ViewTensors":
        """The same on another device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = None if value is None else value.to(device)
        return ViewTensors(**moved)


def to_tensors(batch: ViewBatch, cls_id: int, sep_id: int, pad_id: int) -> ViewTensors:
    """Lay the sequences of a batch out for the encoder."""
    longest = int(batch.lengths.max(initial=0)) + SPECIALS
    columns = np.arange(longest)
    # No encoder takes a batch of no sequence (sentences without a pair, ACD and PP alone): it has an empty one then.
    lengths = batch.lengths if len(batch.lengths) else np.zeros(1, dtype=np.int64)
    ids = np.full((len(lengths), longest), pad_id, dtype=np.int64)
    ids[(columns > 0) & (columns <= lengths[:, None])] = batch.wordpieces
    ids[:, 0] = cls_id
    ids[np.arange(len(ids)), lengths + 1] = sep_id
    mask = columns < lengths[:, None] + SPECIALS
    labelled = {name: torch.from_numpy(getattr(batch, name)) for name in ("met", "mep", "pairs", "acd", "pp")}
    return ViewTensors(
        ids=torch.from_numpy(ids),
        mask=None if mask.all() else torch.from_numpy(mask.astype(np.int64)),
        lengths=torch.from_numpy(lengths),
        **labelled,
    )


class PretrainingModel(nn.Module):
    """Sentence, entity and pair encoder with the heads of the four objectives."""

    def __init__(self, encoder: "PreTrainedModel", types: int, weights: Mapping[str, float], dropout: float) -> None:
        super().__init__()
        config = encoder.config
        embeddings: Tensor = encoder.get_input_embeddings().weight
        self.encoder = encoder
        self.entity_encoder = EntityEncoder(config.hidden_size, dropout)
        self.pair_encoder = PairEncoder(config.hidden_size, dropout)
        heads: dict[str, Callable[[], nn.Module]] = {
            "met": lambda: TypingHead(ENTITY_WIDTH, types),
            "mep": lambda: PredictionHead(config.hidden_size, embeddings.shape[1], embeddings.shape[0]),
            "acd": lambda: ContextHead(PAIR_WIDTH, dropout),
            "pp": lambda: PermutationHead(PAIR_WIDTH),
        }
        self.heads = nn.ModuleDict({name: make() for name, make in heads.items() if weights[name]})

    def parts(self) -> dict[str, nn.Module]:
        """The modules besides the sentence encoder, by the names that a checkpoint gives them."""
        heads = {f"heads.{name}": head for name, head in self.heads.items()}
        return {"entity_encoder": self.entity_encoder, "pair_encoder": self.pair_encoder, **heads}

    def forward(self, batch: ViewTensors) -> "Losses":
        """Summed losses of the objectives, and counts of right answers.

        The counts: `right/met` and `right/mep` of their items; `right/acd` of originals scored above their
        negative, `right/swap` those among swaps and `count/swap` how many there are; `right/pp` and `count/pp_moved`
        without the identity, which alone would be right once in n_p.
        """
        output = self.encoder(input_ids=batch.ids, attention_mask=batch.mask)
        states = output.last_hidden_state
        rows = states.reshape(-1, states.shape[-1])
        width = states.shape[1]
        sums: dict[str, Tensor] = {}
        extra: dict[str, Tensor] = {}
        if "met" in self.heads:
            self._typing(rows, width, batch.met, sums, extra)
        if "mep" in self.heads:
            self._prediction(rows, width, batch.mep, sums, extra)
        if "acd" in self.heads or "pp" in self.heads:
            self._pairs(rows, width, batch, sums, extra)
        # With nothing to learn from in a micro-batch, every worker must still have a gradient for every parameter.
        anchor = sum((parameter.sum() * 0 for parameter in self._added()), rows.sum() * 0)
        first = next(iter(sums))
        sums[first] = sums[first] + anchor
        return sums, extra

    def _added(self) -> list[nn.Parameter]:
        return [parameter for part in self.parts().values() for parameter in part.parameters()]

    def _typing(
        self, rows: Tensor, width: int, items: Tensor, sums: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> None:
        sequence, start, end, types, _ = items.unbind(1)
        entities = self.entity_encoder(rows, Spans(sequence * width + 1 + start, end - start))
        logits = self.heads["met"](entities)
        sums["met"] = typing_loss(logits, types)
        extra["right/met"] = (logits.argmax(1) == types).sum()

    def _prediction(
        self, rows: Tensor, width: int, items: Tensor, sums: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> None:
        sequence, position, wordpieces = items.unbind(1)
        chosen = rows.index_select(0, sequence * width + 1 + position)
        logits = self.heads["mep"](chosen, self.encoder.get_input_embeddings().weight)
        sums["mep"] = prediction_loss(logits, wordpieces)
        extra["right/mep"] = (logits.argmax(1) == wordpieces).sum()

    def _pairs(
        self, rows: Tensor, width: int, batch: ViewTensors, sums: dict[str, Tensor], extra: dict[str, Tensor]
    ) -> None:
        sequence, spans = batch.pairs[:, 0], batch.pairs[:, 1:]
        begins = sequence * width + 1
        both = Spans(
            torch.cat([begins + spans[:, 0], begins + spans[:, 2]]),
            torch.cat([spans[:, 1] - spans[:, 0], spans[:, 3] - spans[:, 2]]),
        )
        first, second = self.entity_encoder(rows, both).chunk(2)
        contexts = pair_contexts(begins, batch.lengths[sequence], spans)
        pairs = self.pair_encoder(rows, first, second, contexts)
        if "acd" in self.heads:
            self._context(pairs, batch.acd, sums, extra)
        if "pp" in self.heads:
            self._permutation(pairs, batch.pp, sums, extra)

    def _context(self, pairs: Tensor, items: Tensor, sums: dict[str, Tensor], extra: dict[str, Tensor]) -> None:
        positive, negative, kind = items[:, 0], items[:, 1], items[:, 2]
        scores = self.heads["acd"](pairs)
        sums["acd"] = hinge(scores, positive, negative)
        above = scores[positive] > scores[negative]
        swap = kind == 1
        extra["right/acd"] = above.sum()
        extra["right/swap"], extra["count/swap"] = (above & swap).sum(), swap.sum()

    def _permutation(self, pairs: Tensor, items: Tensor, sums: dict[str, Tensor], extra: dict[str, Tensor]) -> None:
        row, classes = items[:, 0], items[:, 1]
        logits = self.heads["pp"](pairs.index_select(0, row))
        sums["pp"] = permutation_loss(logits, classes)
        moved = classes != IDENTITY
        extra["right/pp"] = ((logits.argmax(1) == classes) & moved).sum()
        extra["count/pp_moved"] = moved.sum()
