"""Adversarial context discrimination (ACD): tell a pair in its sentence from the same pair slightly displaced.

Section 2.2 of the paper: five negatives a pair, swapping the two entities or shifting one of them by n_s
wordpieces; the loss is max(0, 1 - s⁺ + s⁻).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from enpar.model.encoders import Mlp
from enpar.objectives.pairs import Pairs, Placed
from enpar.objectives.permutation import SWAP, permuted
from enpar.objectives.segments import exchanged
from enpar.wordpieces import Ints

KINDS = ("original", "swap", "e1_left", "e1_right", "e2_left", "e2_right")


@dataclass(frozen=True)
class Negatives:
    """The negatives of a batch of pairs.

    Args:
        placed: their views, with the spans of the pair in them.
        pair: the pair of each. Shape: (n,)
        kind: index in `KINDS`. Shape: (n,)
    """

    placed: Placed
    pair: Ints
    kind: Ints


def negatives(pairs: Pairs, n_s: int) -> Negatives:
    """The swap and the four shifts of each pair.

    A shift is cut to the room there is: it neither leaves the sentence nor crosses the other entity; without room
    it falls away. (A negative that equals its original is dropped later, when the texts are compared.)
    """
    s1, e1, s2, e2, n = pairs.start1, pairs.end1, pairs.start2, pairs.end2, pairs.length
    before, between, behind = (np.minimum(n_s, room) for room in (s1, s2 - e1, n - e2))
    every = np.arange(len(n))
    moves = [  # kind, how far, the two blocks that change places
        (2, -before, 0 * before, s1 - before, s1, e1),
        (3, between, 0 * between, s1, e1, e1 + between),
        (4, 0 * between, -between, s2 - between, s2, e2),
        (5, 0 * behind, behind, s2, e2, e2 + behind),
    ]
    parts = [Negatives(permuted(pairs, every, np.full(len(n), SWAP)), every, np.full(len(n), 1))]
    for kind, by1, by2, first, second, end in moves:
        room = np.flatnonzero(by1 + by2)
        layout = exchanged(pairs.sentence[room], n[room], first[room], second[room], end[room])
        spans = np.stack([s1 + by1, e1 + by1, s2 + by2, e2 + by2], axis=1)[room]
        parts.append(Negatives(Placed(layout, spans), room, np.full(len(room), kind)))
    return Negatives(
        Placed.join([part.placed for part in parts]),
        np.concatenate([part.pair for part in parts]),
        np.concatenate([part.kind for part in parts]),
    )


class ContextHead(nn.Module):
    """Scores an entity pair's representation: high in its own context."""

    def __init__(self, pair_width: int, dropout: float) -> None:
        super().__init__()
        self.mlp = Mlp(pair_width, pair_width, dropout)
        self.score = nn.Linear(pair_width, 1)

    def forward(self, pairs: Tensor) -> Tensor:
        """Scores. Shape: (pairs, width) → (pairs,)."""
        scores: Tensor = self.score(self.mlp(pairs)).squeeze(-1)
        return scores


def hinge(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """The summed hinge loss max(0, 1 - s⁺ + s⁻).

    Args:
        scores: of all pair representations. Shape: (pairs,)
        positive: index of each instance's original. Shape: (n,)
        negative: index of each instance's negative. Shape: (n,)

    Returns:
        The sum over the n instances. Shape: ()
    """
    scores = scores.float()
    return torch.relu(1 - scores[positive] + scores[negative]).sum()
