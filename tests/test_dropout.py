import pytest
import torch
from encoders import tiny_encoder
from torch import nn
from transformers import AutoModel

from enpar.model.dropout import Dropout, attention, dropout, replace_dropout
from enpar.pretrained import load_encoder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.03])
def test_each_element_is_dropped_with_its_probability_and_the_others_are_scaled(dtype, p):
    torch.manual_seed(1)
    n = 400_001  # no multiple of 4
    kept = dropout(torch.ones(n, dtype=dtype), p, True)
    scale = torch.tensor(1 / (1 - round(p * 65536) / 65536), dtype=dtype)
    assert torch.all((kept == 0) | (kept == scale))
    for part in (kept, kept[0::4], kept[1::4], kept[2::4], kept[3::4]):  # where in its 64 bits makes no difference
        dropped = int((part == 0).sum())
        assert abs(dropped - len(part) * p) < 5 * (len(part) * p * (1 - p)) ** 0.5
    neighbours = int(((kept[1:] == 0) & (kept[:-1] == 0)).sum())
    assert abs(neighbours - n * p * p) < 6 * (n * p * p) ** 0.5


def test_the_gradient_goes_where_the_value_went():
    values = torch.randn(30, 7, requires_grad=True)
    kept = dropout(values, 0.4, True)
    kept.backward(torch.ones_like(kept))
    torch.testing.assert_close(values.grad * values, kept)


def test_it_is_drawn_from_torchs_generator_anew_each_time():
    values = torch.ones(1000)
    torch.manual_seed(5)
    first, second = dropout(values, 0.5, True), dropout(values, 0.5, True)
    torch.manual_seed(5)
    assert torch.equal(dropout(values, 0.5, True), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_evaluation_or_with_0():
    values = torch.randn(5)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(dropout(values, 0.0, True), values)
    assert dropout(torch.zeros(0), 0.5, True).shape == (0,)


def test_dropout_is_replaced_in_all_parts():
    module = nn.Sequential(nn.Dropout(0.3), nn.ModuleList([nn.Linear(1, 1), nn.Dropout(0.2)]))
    replace_dropout(module)
    assert [(type(part), part.p) for part in module.modules() if isinstance(part, nn.Dropout)] == [
        (Dropout, 0.3),
        (Dropout, 0.2),
    ]


def test_attention_is_that_of_transformers(tmp_path):
    tiny_encoder(tmp_path, ["a", "b", "c"], hidden=16)
    ours = load_encoder(str(tmp_path), 0.1)
    assert ours.config._attn_implementation == "enpar"
    assert all(type(part) is Dropout for part in ours.modules() if isinstance(part, nn.Dropout))
    theirs = AutoModel.from_pretrained(tmp_path, attn_implementation="eager", add_pooling_layer=False).eval()
    ids = torch.tensor([[1, 3, 2, 4, 3], [3, 3, 1, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    for given in (mask, None):
        wanted = theirs(input_ids=ids, attention_mask=given).last_hidden_state
        torch.testing.assert_close(ours.eval()(input_ids=ids, attention_mask=given).last_hidden_state, wanted)
    ours.train()
    torch.manual_seed(1)
    one, other = (ours(input_ids=ids).last_hidden_state for _ in range(2))
    assert not torch.equal(one, other)


def test_attention_drops_its_weights():
    query = torch.randn(2, 3, 5, 4)
    _, weights = attention(nn.Identity().train(), query, query, query, None, dropout=0.5)
    _, whole = attention(nn.Identity().eval(), query, query, query, None, dropout=0.5)
    dropped = weights == 0
    assert 0 < dropped.sum() < weights.numel()
    torch.testing.assert_close(weights[~dropped], 2 * whole[~dropped])
