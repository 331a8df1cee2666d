"""Masked entity prediction (MEP): restore the wordpieces of masked and replaced entities (section 2.2)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from enpar.objectives.masking import Action, Entities, spread
from enpar.wordpieces import Ints


def labels(pieces: Ints, positions: Ints, entities: Entities, actions: Ints) -> Ints:
    """The wordpieces to restore.

    Args:
        pieces: the original wordpieces of the batch's sentences, one after the other. Shape: (P,)
        positions: where each sentence begins in `pieces`. Shape: (sentences,)

    Returns:
        Row of the sentence, position in it and wordpiece of each. Shape: (n, 3)
    """
    chosen = np.flatnonzero(actions != Action.KEEP)
    lengths = (entities.end - entities.start)[chosen]
    sentence = np.repeat(entities.sentence[chosen], lengths)
    position = spread(entities.start[chosen], lengths)
    return np.stack([sentence, position, pieces[positions[sentence] + position]], axis=1)


class PredictionHead(nn.Module):
    """BERT's masked language model head, its output layer tied to the word embeddings (Devlin et al. 2019)."""

    def __init__(self, hidden: int, embedding: int, vocabulary: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(hidden, embedding), nn.GELU(), nn.LayerNorm(embedding))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: Tensor, embeddings: Tensor) -> Tensor:
        """Logits over the vocabulary. Shape: (n, hidden), (vocabulary, embedding) → (n, vocabulary)."""
        return functional.linear(self.transform(states), embeddings, self.bias)


def prediction_loss(logits: Tensor, wordpieces: Tensor) -> Tensor:
    """The summed cross-entropy. Shape: (n, vocabulary), (n,) → ()."""
    return functional.cross_entropy(logits.float(), wordpieces, reduction="sum")
