"""Masked entity typing (MET): the type of an entity whose words are masked or replaced (section 2.2)."""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from enpar.config import Views
from enpar.objectives.masking import Action, Entities
from enpar.wordpieces import Ints


def labels(entities: Entities, actions: Ints, settings: Views) -> Ints:
    """The entities whose types are predicted: the changed ones, or all.

    Returns:
        Row of the sentence, start, end, type and `Action` of each. Shape: (n, 5)
    """
    chosen = np.flatnonzero(actions != Action.KEEP) if settings.typing == "changed" else np.arange(len(actions))
    columns = entities.sentence, entities.start, entities.end, entities.type, actions
    return np.stack([column[chosen] for column in columns], axis=1)


class TypingHead(nn.Linear):
    """Classifies an entity's representation. Shape: (entities, width) → (entities, types)."""


def typing_loss(logits: Tensor, types: Tensor) -> Tensor:
    """The summed cross-entropy. Shape: (n, types), (n,) → ()."""
    return functional.cross_entropy(logits.float(), types, reduction="sum")
