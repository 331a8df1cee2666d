import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enpar.model.contexts import SharedContexts
from enpar.model.encoders import EntityEncoder, PairEncoder, Spans

ROWS = 23
SPANS = st.integers(0, ROWS).flatmap(lambda start: st.tuples(st.just(start), st.integers(0, ROWS - start)))


@pytest.mark.parametrize("kind", ["entity", "context"])
@settings(deadline=None, max_examples=30)
@given(spans=st.lists(SPANS, max_size=40), seed=st.integers(0, 99))
def test_contexts_together_are_what_each_is_alone(kind, spans, seed):
    torch.manual_seed(seed)
    encoder = EntityEncoder(6, 0.0) if kind == "entity" else PairEncoder(6, 0.0).context
    states = torch.randn(ROWS, 6)
    starts, lengths = torch.tensor(spans, dtype=torch.int64).view(-1, 2).T
    rows = Spans(starts, lengths)
    with torch.inference_mode():
        together = SharedContexts(encoder, states, ROWS)(rows)
        torch.testing.assert_close(together, encoder(states, rows), rtol=1e-4, atol=1e-5)
