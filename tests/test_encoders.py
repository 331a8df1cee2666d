import numpy as np
import pytest
import torch
from encoders import tiny_encoder
from torch import nn
from torch.nn import functional
from transformers import AutoModel

from enpar.config import Objectives, Views
from enpar.model.dropout import Dropout
from enpar.model.encoders import (
    CONTEXT_KERNELS,
    CONTEXT_WIDTH,
    ENTITY_KERNELS,
    ENTITY_WIDTH,
    FILTERS,
    PAIR_WIDTH,
    EntityEncoder,
    Mlp,
    PairEncoder,
    SpanEncoder,
    Spans,
    pair_contexts,
)
from enpar.objectives.pretraining import PretrainingModel, to_tensors
from enpar.objectives.views import ViewMaker
from enpar.pretrained import load_tokenizer
from enpar.sentence import Entity, Sentence
from enpar.wordpieces import build_corpus

HIDDEN = 12
WORDS = ["she", "moved", "to", "warsaw", "elizabeth", "washington", "in", "may", "ann", "."]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """For tensors this small, threads that wait for each other are all that several would add."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spans(*pairs):
    return Spans(*torch.tensor(pairs).reshape(-1, 2).unbind(1))


def reference(encoder, kernels, states):
    """One span by itself: zeros of the kernel's width on both sides, the maximum over all positions, gelu, MLP."""
    pooled = []
    for kernel, convolution in zip(kernels, encoder.convolutions, strict=True):
        padded = functional.pad(states.t().unsqueeze(0), (kernel, kernel))
        windows = functional.conv1d(padded, convolution.weight, convolution.bias)
        assert windows.shape == (1, FILTERS, len(states) + kernel + 1)
        pooled.append(windows[0].amax(1))
    linear, _, norm, _ = encoder.mlp
    hidden = functional.gelu(linear(functional.gelu(torch.cat(pooled))))
    return functional.layer_norm(hidden, hidden.shape, norm.weight, norm.bias)


def seeded(make):
    torch.manual_seed(3)
    module = make()
    for parameter in module.parameters():  # biases and LayerNorm too, so that none is 0 or 1
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    return module


# ---- spans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [ENTITY_KERNELS, CONTEXT_KERNELS, (1,), (5, 2)])
def test_spans_against_a_convolution_over_each(kernels):
    encoder = seeded(lambda: SpanEncoder(HIDDEN, kernels, 20, 0.0))
    states = torch.randn(40, HIDDEN)
    chosen = [(0, 40), (0, 0), (39, 1), (40, 0), (5, 1), (5, 2), (6, 3), (3, 9), (0, 1), (5, 2), (17, 0)]
    encoded = encoder(states, spans(*chosen))
    assert encoded.shape == (len(chosen), 20)
    for (start, length), row in zip(chosen, encoded, strict=True):
        torch.testing.assert_close(row, reference(encoder, kernels, states[start : start + length]))
        torch.testing.assert_close(encoder(states, spans((start, length)))[0], row)  # alone as among others


def test_gradients_against_a_convolution_over_each():
    encoder = seeded(lambda: SpanEncoder(HIDDEN, ENTITY_KERNELS, 20, 0.0))
    chosen = [(0, 9), (4, 0), (8, 1), (2, 5), (3, 2)]
    direction = torch.randn(len(chosen), 20)

    def gradients(encode):
        encoder.zero_grad()
        states = torch.randn(9, HIDDEN, generator=torch.Generator().manual_seed(1)).requires_grad_()
        (encode(states) * direction).sum().backward()
        return [states.grad, *(parameter.grad.clone() for parameter in encoder.parameters())]

    ours = gradients(lambda states: encoder(states, spans(*chosen)))
    theirs = gradients(
        lambda states: torch.stack([reference(encoder, ENTITY_KERNELS, states[s : s + n]) for s, n in chosen])
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_span_sees_nothing_outside_itself():
    encoder = seeded(lambda: EntityEncoder(HIDDEN, 0.0))
    states = torch.randn(12, HIDDEN)
    changed = states.clone()
    changed[[0, 1, 2, 6, 7, 8, 9, 10, 11]] = 1e6
    torch.testing.assert_close(encoder(states, spans((3, 3))), encoder(changed, spans((3, 3))))


def test_an_empty_span_is_a_convolution_over_zeros():
    encoder = seeded(lambda: EntityEncoder(HIDDEN, 0.0))
    empty = encoder(torch.randn(5, HIDDEN), spans((2, 0), (0, 0), (5, 0)))
    bias = torch.cat([convolution.bias for convolution in encoder.convolutions])
    torch.testing.assert_close(empty, encoder.mlp(functional.gelu(bias)).expand(3, -1))


def test_no_spans_have_no_representations():
    nothing = spans()
    states = torch.randn(5, HIDDEN)
    assert EntityEncoder(HIDDEN, 0.0)(states, nothing).shape == (0, ENTITY_WIDTH)
    none = torch.zeros(0, ENTITY_WIDTH)
    assert PairEncoder(HIDDEN, 0.0)(states, none, none, nothing).shape == (0, PAIR_WIDTH)


def test_spans_under_bf16_autocast_are_near_those_in_fp32():
    encoder = seeded(lambda: EntityEncoder(HIDDEN, 0.0))
    states = torch.randn(20, HIDDEN, requires_grad=True)
    chosen = spans((0, 20), (3, 0), (4, 1), (5, 6))
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(states, chosen)
    torch.testing.assert_close(half.float(), encoder(states, chosen), atol=0.1, rtol=0.1)
    half.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_an_mlp_is_linear_gelu_norm_dropout():
    assert [type(layer) for layer in Mlp(3, 4, 0.1)] == [nn.Linear, nn.GELU, nn.LayerNorm, Dropout]


def test_sizes_are_the_papers():
    assert (FILTERS, ENTITY_KERNELS, ENTITY_WIDTH) == (100, (2, 3, 4), 192)
    assert (CONTEXT_KERNELS, CONTEXT_WIDTH, PAIR_WIDTH) == ((3, 4, 5), 128, 256)
    shapes = [tuple(layer.weight.shape) for layer in PairEncoder(HIDDEN, 0.1).context.convolutions]
    assert shapes == [(100, HIDDEN, kernel) for kernel in CONTEXT_KERNELS]


# ---- pairs ----------------------------------------------------------------------------------------------------------

# Row where the sequence begins, its length, and the two spans in it.
PAIRS = [(1, 9, (2, 3, 5, 8)), (1, 9, (0, 1, 1, 9)), (14, 6, (0, 2, 4, 6)), (14, 6, (1, 2, 2, 3))]


def contexts_of(pairs):
    return pair_contexts(
        torch.tensor([begin for begin, *_ in pairs]),
        torch.tensor([length for _, length, _ in pairs]),
        torch.tensor([span for *_, span in pairs]),
    )


def test_contexts_are_what_is_left_of_between_and_right_of_the_entities():
    rows = torch.arange(30)
    contexts = contexts_of(PAIRS)
    found = [rows[s : s + n].tolist() for s, n in zip(contexts.starts, contexts.lengths, strict=True)]
    wanted = []
    for begin, length, (s1, e1, s2, e2) in PAIRS:
        sequence = list(range(begin, begin + length))
        wanted += [sequence[:s1], sequence[e1:s2], sequence[e2:]]
    assert found == wanted


def test_pairs_against_the_parts_of_each():
    encoder = seeded(lambda: PairEncoder(HIDDEN, 0.0))
    states = torch.randn(30, HIDDEN)
    first, second = torch.randn(2, len(PAIRS), ENTITY_WIDTH).unbind(0)
    encoded = encoder(states, first, second, contexts_of(PAIRS))
    for i, (begin, length, (s1, e1, s2, e2)) in enumerate(PAIRS):
        sequence = states[begin : begin + length]
        left, middle, right = (
            reference(encoder.context, CONTEXT_KERNELS, part)
            for part in (sequence[:s1], sequence[e1:s2], sequence[e2:])
        )
        joined = torch.cat([left, first[i], middle, second[i], right])
        torch.testing.assert_close(encoded[i], encoder.mlp(joined))


# ---- the four losses ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), WORDS, hidden=16)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(str(folder))


SENTENCES = [
    (["she", "moved", "to", "warsaw", "in", "may"], [(0, 1, "P"), (3, 4, "G"), (5, 6, "D")]),
    (["elizabeth", "washington", "moved", "."], [(0, 1, "P"), (1, 2, "G")]),
    (["ann", "to", "elizabeth", "to", "may", "to", "she"], [(0, 1, "P"), (2, 3, "P"), (4, 5, "D"), (6, 7, "P")]),
]
LONELY = [(["she", "moved"], [(0, 1, "P")]), (["to", "warsaw", "."], [(1, 2, "G")])]
WEIGHTS = {"met": 1.0, "mep": 1.0, "acd": 1.0, "pp": 1.0}


def batch_of(tokenizer, chosen, views=None, weights=WEIGHTS):
    made = [
        Sentence(tuple(tokens), tuple(Entity(*entity) for entity in entities), (), "d", i)
        for i, (tokens, entities) in enumerate(chosen)
    ]
    corpus = build_corpus(made, tokenizer, 64)
    maker = ViewMaker(corpus, views or Views(pairs=2), Objectives(**weights), tokenizer.mask_token_id, 1)
    return maker.make(np.arange(len(corpus)), 0), corpus


def tensors_of(tokenizer, batch):
    return to_tensors(batch, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)


def model_of(folder, weights=WEIGHTS, dropout=0.0):
    torch.manual_seed(1)
    encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    encoder.config.hidden_dropout_prob = encoder.config.attention_probs_dropout_prob = dropout
    model = PretrainingModel(encoder, 3, weights, dropout).eval()
    for head in model.heads.values():  # larger weights, so that scores and logits lie apart
        for parameter in head.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
    return model


def sequences(batch):
    return np.split(batch.wordpieces, np.cumsum(batch.lengths)[:-1])


def cross_entropy(logits, label):
    return -torch.log(torch.exp(logits[label]) / torch.exp(logits).sum())


def test_sequences_are_laid_out_with_specials_and_padding(tokenizer):
    batch, _ = batch_of(tokenizer, SENTENCES)
    tensors = tensors_of(tokenizer, batch)
    longest = int(batch.lengths.max()) + 2
    for ids, mask, sequence in zip(tensors.ids, tensors.mask, sequences(batch), strict=True):
        padding = longest - len(sequence) - 2
        wanted = [tokenizer.cls_token_id, *sequence.tolist(), tokenizer.sep_token_id]
        assert ids.tolist() == wanted + [tokenizer.pad_token_id] * padding
        assert mask.tolist() == [1] * len(wanted) + [0] * padding
    assert tensors.lengths.tolist() == batch.lengths.tolist()
    assert tensors.counts() == batch.counts()
    one, _ = batch_of(tokenizer, SENTENCES[:1])
    assert tensors_of(tokenizer, one).mask is None  # all of one length


def test_losses_and_right_answers_against_loops(folder, tokenizer):
    batch, _ = batch_of(tokenizer, SENTENCES, Views(pairs=2, n_p=4, mask=0.5, replace=0.3))
    model = model_of(folder)
    sums, extra = model(tensors_of(tokenizer, batch))
    wanted = dict.fromkeys(WEIGHTS, 0.0)
    right = dict.fromkeys(["met", "mep", "acd", "swap", "pp"], 0)
    with torch.no_grad():
        states = []  # each sequence by itself, without padding
        for sequence in sequences(batch):
            ids = torch.tensor([[tokenizer.cls_token_id, *sequence.tolist(), tokenizer.sep_token_id]])
            states.append(model.encoder(input_ids=ids).last_hidden_state[0, 1:-1])

        def entity(sequence, start, end):
            return reference(model.entity_encoder, ENTITY_KERNELS, states[sequence][start:end])

        for sequence, start, end, type_, _ in batch.met.tolist():
            logits = model.heads["met"](entity(sequence, start, end))
            wanted["met"] += cross_entropy(logits, type_)
            right["met"] += int(logits.argmax()) == type_
        head, embeddings = model.heads["mep"], model.encoder.embeddings.word_embeddings.weight
        for sequence, position, piece in batch.mep.tolist():
            logits = embeddings @ head.transform(states[sequence][position]) + head.bias
            wanted["mep"] += cross_entropy(logits, piece)
            right["mep"] += int(logits.argmax()) == piece
        pairs = []
        for sequence, s1, e1, s2, e2 in batch.pairs.tolist():
            own = states[sequence]
            left, middle, right_ = (
                reference(model.pair_encoder.context, CONTEXT_KERNELS, part)
                for part in (own[:s1], own[e1:s2], own[e2:])
            )
            parts = [left, entity(sequence, s1, e1), middle, entity(sequence, s2, e2), right_]
            pairs.append(model.pair_encoder.mlp(torch.cat(parts)))
        head = model.heads["acd"]
        scores = [float(head.score(head.mlp(pair))) for pair in pairs]
        for positive, negative, kind, *_ in batch.acd.tolist():
            wanted["acd"] += max(0.0, 1 - scores[positive] + scores[negative])
            right["acd"] += scores[positive] > scores[negative]
            right["swap"] += kind == 1 and scores[positive] > scores[negative]
        for row, class_, *_ in batch.pp.tolist():
            logits = model.heads["pp"](pairs[row])
            wanted["pp"] += cross_entropy(logits, class_)
            right["pp"] += class_ != 0 and int(logits.argmax()) == class_
    for name, value in wanted.items():
        torch.testing.assert_close(sums[name].detach(), torch.as_tensor(value), atol=1e-3, rtol=1e-4)
    assert {name: int(extra[f"right/{name}"]) for name in right} == right
    assert int(extra["count/swap"]) == sum(kind == 1 for _, _, kind, *_ in batch.acd.tolist()) > 0
    assert int(extra["count/pp_moved"]) == sum(class_ != 0 for _, class_, *_ in batch.pp.tolist()) > 0


def test_padding_in_the_batch_changes_nothing(folder, tokenizer):
    model = model_of(folder)
    batch, corpus = batch_of(tokenizer, SENTENCES)
    together, _ = model(tensors_of(tokenizer, batch))
    maker = ViewMaker(corpus, Views(pairs=2), Objectives(), tokenizer.mask_token_id, 1)
    alone = [model(tensors_of(tokenizer, maker.make(np.array([i]), 0)))[0] for i in range(len(corpus))]
    for name, value in together.items():
        torch.testing.assert_close(sum(one[name] for one in alone), value, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("left", ["met", "mep", "acd", "pp"])
def test_only_objectives_with_a_weight_have_a_head_and_a_loss(folder, tokenizer, left):
    weights = dict.fromkeys(WEIGHTS, 0.0) | {left: 2.0}
    model = model_of(folder, weights)
    batch, _ = batch_of(tokenizer, SENTENCES, weights=weights)
    sums, _ = model(tensors_of(tokenizer, batch))
    assert list(sums) == list(model.heads) == [left]
    full, _ = model_of(folder)(tensors_of(tokenizer, batch_of(tokenizer, SENTENCES)[0]))
    assert sums[left].isfinite()
    assert set(full) == set(WEIGHTS)


@pytest.mark.parametrize("chosen", [SENTENCES, LONELY])
def test_every_parameter_has_a_gradient_with_and_without_pairs(folder, tokenizer, chosen):
    model = model_of(folder)
    batch, _ = batch_of(tokenizer, chosen)
    assert (len(batch.pairs) > 0) == (chosen is SENTENCES)
    sums, extra = model(tensors_of(tokenizer, batch))
    sum(sums.values()).backward()
    assert all(value.isfinite() for value in [*sums.values(), *extra.values()])
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    learnt = {name.split(".")[0] for name, p in model.named_parameters() if p.grad.abs().sum() > 0}
    assert learnt >= {"encoder", "entity_encoder", "heads"}
    assert ("pair_encoder" in learnt) == (chosen is SENTENCES)


def test_a_batch_without_any_view_still_has_gradients(folder, tokenizer):
    weights = WEIGHTS | {"met": 0.0, "mep": 0.0}
    model = model_of(folder, weights)
    batch, _ = batch_of(tokenizer, LONELY, weights=weights)
    assert len(batch.lengths) == 0
    sums, _ = model(tensors_of(tokenizer, batch))
    assert {name: float(value.detach()) for name, value in sums.items()} == {"acd": 0, "pp": 0}
    sum(sums.values()).backward()
    added = [parameter for part in model.parts().values() for parameter in part.parameters()]
    assert all(parameter.grad is not None for parameter in added)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_parts_are_all_that_is_not_the_sentence_encoder(folder):
    model = model_of(folder)
    parts = {id(parameter) for part in model.parts().values() for parameter in part.parameters()}
    assert parts == {id(p) for name, p in model.named_parameters() if not name.startswith("encoder.")}
    assert set(model.parts()) == {"entity_encoder", "pair_encoder", *(f"heads.{name}" for name in WEIGHTS)}
