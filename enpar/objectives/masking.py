"""The masked copy of a sentence, which serves masked entity typing and masked entity prediction (section 2.3)."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from enpar.config import Views
from enpar.objectives.draws import Purpose, draw, uniform
from enpar.wordpieces import EntityPieces, Ints, Keys


class Action(IntEnum):
    """What happens to an entity in the masked copy."""

    KEEP = 0
    MASK = 1
    REPLACE = 2


@dataclass(frozen=True)
class Entities:
    """The entities of a batch of sentences; n of them.

    Args:
        sentence: row of each one's sentence in the batch. Shape: (n,)
        number: how many entities of its sentence begin before it. Shape: (n,)
        start: first wordpiece in the sentence. Shape: (n,)
        end: end (exclusive) in the sentence. Shape: (n,)
        type: entity type. Shape: (n,)
        rank: index among the corpus' distinct entities of as many wordpieces. Shape: (n,)
    """

    sentence: Ints
    number: Ints
    start: Ints
    end: Ints
    type: Ints
    rank: Ints


def choose_actions(entities: Entities, keys: Keys, settings: Views, inventory: EntityPieces) -> Ints:
    """Mask, replace or keep each entity, independently.

    A sentence in which all would be kept has one entity, drawn at random, masked or replaced all the same. An
    entity that no other of the corpus has the length of is masked where it would be replaced.

    Args:
        keys: the key of each sentence. Shape: (sentences,)

    Returns:
        An `Action` for each entity. Shape: (n,)
    """
    key = keys[entities.sentence]
    chance = uniform(key, Purpose.ACTION, entities.number)
    actions = np.where(chance < settings.mask, Action.MASK, Action.KEEP)
    actions = np.where((chance >= settings.mask) & (chance < settings.mask + settings.replace), Action.REPLACE, actions)
    forced = _forced(entities, keys, actions)
    share = settings.mask / (settings.mask + settings.replace)
    masks = uniform(key[forced], Purpose.FORCED_ACTION, entities.number[forced]) < share
    actions[forced] = np.where(masks, Action.MASK, Action.REPLACE)
    alone = inventory.count(entities.end - entities.start) < 2
    return np.where(alone & (actions == Action.REPLACE), Action.MASK, actions)


def _forced(entities: Entities, keys: Keys, actions: Ints) -> Ints:
    """One entity, drawn at random, of each sentence whose entities are all kept."""
    changed = np.bincount(entities.sentence, weights=actions != Action.KEEP, minlength=len(keys)) > 0
    order = draw(keys[entities.sentence], Purpose.FORCED, entities.number)
    by_draw = np.lexsort((order, entities.sentence))
    _, first = np.unique(entities.sentence[by_draw], return_index=True)
    drawn = by_draw[first]
    return np.asarray(drawn[~changed[entities.sentence[drawn]]])


def apply_actions(
    pieces: Ints, positions: Ints, entities: Entities, actions: Ints, keys: Keys, inventory: EntityPieces, mask_id: int
) -> Ints:
    """The wordpieces with masked and replaced entities.

    Args:
        pieces: wordpieces of the batch's sentences, one after the other. Shape: (P,)
        positions: where each sentence begins in `pieces`. Shape: (sentences,)

    Returns:
        The changed copy. Shape: (P,)
    """
    changed = pieces.copy()
    for action in (Action.MASK, Action.REPLACE):
        chosen = np.flatnonzero(actions == action)
        lengths = (entities.end - entities.start)[chosen]
        begins = positions[entities.sentence[chosen]] + entities.start[chosen]
        where = spread(begins, lengths)
        if action is Action.MASK:
            changed[where] = mask_id
        else:
            changed[where] = inventory.ids[spread(_replacements(entities, chosen, keys, inventory), lengths)]
    return changed


def _replacements(entities: Entities, chosen: Ints, keys: Keys, inventory: EntityPieces) -> Ints:
    """Where in the inventory each chosen entity's replacement begins: any of its length but itself, equally likely."""
    lengths = (entities.end - entities.start)[chosen]
    others = inventory.count(lengths) - 1
    number = draw(keys[entities.sentence[chosen]], Purpose.REPLACEMENT, entities.number[chosen])
    rank = (number % others.astype(np.uint64)).astype(np.int64)
    rank += rank >= entities.rank[chosen]  # steps over the entity itself
    return np.asarray(inventory.first[lengths] + rank * lengths)


def spread(starts: Ints, lengths: Ints) -> Ints:
    """start, start + 1, … for each of several ranges, one after the other. Shape: (sum of lengths,)."""
    behind = np.cumsum(lengths) - lengths
    return np.repeat(starts - behind, lengths) + np.arange(int(lengths.sum()))
