"""Labelled sentences to test on, by hand and at random."""

from hypothesis import strategies as st

from enpar.sentence import Entity, Relation, Sentence

TOKENS = tuple("abcdef")
ADA, ACME, BOB = Entity(0, 1, "PER"), Entity(2, 4, "ORG"), Entity(5, 6, "PER")


def sentence(entities=(), relations=()):
    return Sentence(TOKENS, tuple(entities), tuple(relations))


ENTITIES = st.builds(Entity, st.integers(0, 2), st.integers(3, 6), st.sampled_from("XY"))


@st.composite
def labelled(draw):
    entities = draw(st.lists(ENTITIES, max_size=4))
    indices = st.integers(0, max(len(entities) - 1, 0))
    relations = st.lists(st.builds(Relation, st.sampled_from("RS"), indices, indices), max_size=3)
    return sentence(entities, draw(relations) if entities else [])


# Gold and prediction of one sentence.
PAIRS = st.lists(st.tuples(labelled(), labelled()), min_size=1, max_size=4)
