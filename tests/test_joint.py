from dataclasses import replace

import numpy as np
import pytest
import torch
from encoders import tiny_encoder

from enpar.config import FinetuneJob
from enpar.extraction import Extraction, load, start
from enpar.model.joint import Labels
from enpar.model.windows import cut, windows_of
from enpar.pretrained import load_config, load_tokenizer
from enpar.scores import score
from enpar.sentence import Entity, Relation, Sentence
from enpar.settings import parse
from enpar.training.examples import Update, batches_of, examples_of, gold_share, losses
from enpar.training.fit import fit, layers_of, rates
from enpar.wordpieces import Pieces, limit_of

LABELS = Labels(("ORG", "PER"), ("employs", "works_for"))
EQUAL = {"entity": 1.0, "relation": 1.0}


def sentence(text, entities=(), relations=()):
    return Sentence(tuple(text.split(" ")), tuple(Entity(*e) for e in entities), tuple(Relation(*r) for r in relations))


CORPUS = [
    sentence("Ana works for Borealis .", [(0, 1, "PER"), (3, 4, "ORG")], [("works_for", 0, 1)]),
    sentence("Borealis hired Tomas Lindqvist yesterday .", [(0, 1, "ORG"), (2, 4, "PER")], [("employs", 0, 1)]),
    sentence("Dunmore Press pays Carla .", [(3, 4, "PER"), (0, 2, "ORG")], [("works_for", 0, 1)]),
    sentence("Nobody came .", [], []),
    sentence(
        "Elif and Farid run Granite Works .",
        [(0, 1, "PER"), (2, 3, "PER"), (4, 6, "ORG")],
        [("works_for", 0, 2), ("works_for", 1, 2)],
    ),
    sentence("Hana met Igor .", [(0, 1, "PER"), (2, 3, "PER")], []),
    sentence("Kestrel bought Lumen .", [(0, 1, "ORG"), (2, 3, "ORG")], []),
    sentence("At Marlin , Nadia leads .", [(1, 2, "ORG"), (3, 4, "PER")], [("works_for", 1, 0)]),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)  # the other core may be another test's
    words = [token for s in CORPUS for token in s.tokens]
    return str(tiny_encoder(tmp_path_factory.mktemp("encoder"), words, positions=64))


@pytest.fixture
def untrained(encoder) -> Extraction:
    torch.manual_seed(3)
    extraction = start(encoder, True, LABELS, 0.0, "fp32")
    with torch.no_grad():  # that it finds much
        extraction.model.entity_classifier.bias[0] = extraction.model.relation_classifier.bias[0] = -5
    return extraction


def job(**changes):
    settings = {"learning_rate": 3e-3, "span_learning_rate": 3e-3, "classifier_learning_rate": 3e-3, "batch_size": 4}
    settings |= {"precision": "fp32", "dropout": 0.0, "layer_decay": 1.0, **changes}
    arguments = [f"train.{name}={value}" for name, value in settings.items()]
    return parse(FinetuneJob, ["corpus.train=a", "corpus.dev=b", "output=c", *arguments])


# ---- The model ------------------------------------------------------------------------------------------------------


def test_shapes_and_gradients(untrained):
    model = untrained.model
    windows = [window for some in untrained.windows(CORPUS) for window in some]
    batch = untrained.batch(windows[:3])
    states = model.encode(batch)
    assert states.shape == (3 * batch.width, 32)
    assert model.tag_logits(batch, states).shape == (sum(len(s.tokens) for s in CORPUS[:3]), 5)
    spans = np.array([[0, 0, 2], [0, 1, 3], [2, 0, 2]])
    entities = model.entities(batch, states, spans)
    assert entities.shape == (3, 192)
    logits = model.relation_logits(batch, states, spans, entities, np.array([[0, 1]]))  # they overlap
    assert logits.shape == (1, 2 * 2 + 1)
    logits.sum().backward()
    assert model.pair_encoder.mlp[0].weight.grad.abs().sum() > 0


def test_shared_contexts_give_what_the_pair_encoder_gives(untrained):
    from enpar.model.encoders import pair_contexts

    model = untrained.model.eval()
    batch = untrained.batch([window for some in untrained.windows(CORPUS[3:6]) for window in some])
    spans = np.array([[1, 0, 1], [1, 2, 3], [1, 4, 6], [2, 0, 1], [2, 2, 3]])
    pairs = np.array([[0, 1], [0, 2], [1, 2], [3, 4]])
    states = model.encode(batch)
    entities = model.entities(batch, states, spans)
    window, s1, e1 = batch.pieces(spans)[pairs[:, 0]].T
    _, s2, e2 = batch.pieces(spans)[pairs[:, 1]].T
    contexts = pair_contexts(
        torch.from_numpy(window * batch.width + 1),
        torch.from_numpy(batch.lengths[window]),
        torch.from_numpy(np.stack([s1, e1, s2, e2], axis=1)),
    )
    wanted = model.relation_classifier(
        model.pair_encoder(states, entities[pairs[:, 0]], entities[pairs[:, 1]], contexts)
    )
    found = model.relation_logits(batch, states, spans, entities, pairs)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    with torch.no_grad():  # in blocks, too
        import enpar.model.joint as joint

        pairs_at_once, joint._PAIRS = joint._PAIRS, 1
        try:
            blocks = model.relation_logits(batch, states, spans, entities, pairs)
        finally:
            joint._PAIRS = pairs_at_once
    torch.testing.assert_close(blocks, wanted, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing(untrained):
    together, alone = untrained.predict(CORPUS), [untrained.predict([s])[0] for s in CORPUS]
    assert sum(len(p.sentence.relations) for p in together) > 0
    for one, other in zip(together, alone, strict=True):
        assert one.sentence == other.sentence
        assert one.entity_scores == pytest.approx(other.entity_scores, abs=1e-5)
        assert one.relation_scores == pytest.approx(other.relation_scores, abs=1e-5)


def test_equal_lengths_need_no_mask(untrained):
    windows = untrained.windows([CORPUS[0], CORPUS[1], CORPUS[0]])
    assert untrained.batch([windows[0][0], windows[2][0]]).attention_mask is None
    assert untrained.batch([windows[0][0], windows[1][0]]).attention_mask.shape[0] == 2


def test_what_is_labelled_is_not_looked_at(untrained):
    blank = [replace(s, entities=(), relations=()) for s in CORPUS]
    assert untrained.predict(blank) == untrained.predict(CORPUS)


def test_given_entities_are_related_as_those_that_are_found(untrained):
    found = untrained.predict(CORPUS)
    turned = [replace(p.sentence, entities=p.sentence.entities[::-1], relations=()) for p in found]
    for one, other in zip(found, untrained.relate(turned), strict=True):
        last = len(one.sentence.entities) - 1
        assert other.sentence.entities == one.sentence.entities[::-1]
        assert set(other.entity_scores) <= {None}
        mirrored = [Relation(r.type, last - r.head, last - r.tail) for r in other.sentence.relations]
        assert mirrored == list(one.sentence.relations)
        assert other.relation_scores == pytest.approx(one.relation_scores, abs=1e-5)
    assert untrained.relate([]) == untrained.predict([]) == []


def test_what_is_loaded_predicts_as_what_was_saved(encoder, tmp_path):
    torch.manual_seed(3)
    extraction = start(encoder, True, LABELS, 0.1, "bf16")
    with torch.no_grad():
        extraction.model.entity_classifier.bias[0] = extraction.model.relation_classifier.bias[0] = -5
    extraction.save(tmp_path, {"precision": "bf16"}, "card")
    predicted = extraction.predict(CORPUS)
    assert sum(len(p.sentence.relations) for p in predicted) > 0
    assert load(tmp_path).predict(CORPUS) == predicted  # to the last bit, though its weights are cast beforehand


def test_the_size_of_a_batch_changes_no_more_than_padding(untrained):
    alone, together = untrained.predict(CORPUS, batch_wordpieces=1), untrained.predict(CORPUS, batch_wordpieces=10_000)
    assert [p.sentence for p in alone] == [p.sentence for p in together]


def test_a_batch_without_candidates_has_losses(untrained):
    [example] = examples_of(CORPUS[3], untrained.windows(CORPUS[3:4])[0], LABELS)
    update = Update(untrained.model, untrained.batch([example.window]), [example.gold], np.arange(0), EQUAL)
    assert update.counts() == {"span": 3, "entity": 0, "relation": 0}
    sums, _ = losses(update)
    torch.stack(list(sums.values())).sum().backward()
    assert sums["entity"].item() == sums["relation"].item() == 0.0


# ---- Windows --------------------------------------------------------------------------------------------------------


def test_windows_keep_every_token_that_has_wordpieces():
    starts = np.array([0, 2, 2, 3, 9, 10, 12])
    pieces = Pieces(np.arange(12), starts)
    windows = list(cut(pieces, 7, 4))
    assert [w.tokens.tolist() for w in windows] == [[0, 2], [3], [4, 5]]
    assert [w.ids.tolist() for w in windows] == [[0, 1, 2], [3, 4, 5, 6], [9, 10, 11]]  # a token is cut to the limit
    assert [w.starts.tolist() for w in windows] == [[0, 2, 3], [0, 4], [0, 1, 3]]
    assert list(cut(Pieces(np.arange(0), np.zeros(3, dtype=np.int64)), 0, 4)) == []


def test_predictions_of_windows_are_merged_in_the_sentences_tokens(untrained):
    limit = limit_of(untrained.model.encoder.config)
    assert limit == 62
    parts = [CORPUS[i % 8].tokens for i in range(40)]
    long = Sentence(tuple(token for part in parts for token in part))
    windows = untrained.windows([long])[0]
    assert len(windows) > 2
    assert np.concatenate([w.tokens for w in windows]).tolist() == list(range(len(long.tokens)))
    merged = untrained.predict([CORPUS[0], long, CORPUS[1]])[1].sentence
    expected, relations = [], 0
    for window in windows:
        part = untrained.predict([Sentence(tuple(long.tokens[t] for t in window.tokens))])[0].sentence
        expected += [(e.start + window.tokens[0], e.end + window.tokens[0], e.type) for e in part.entities]
        relations += len(part.relations)
    assert [(e.start, e.end, e.type) for e in merged.entities] == expected
    assert len(merged.relations) == relations > 0
    assert merged.problem() is None


def test_white_space_and_overlong_tokens_do_no_harm(untrained):
    texts = [("\n", "Ana", "\n", "works", "x" * 5000, "\t"), ("\n",), ("", " "), ("Ana",)]
    predictions = untrained.predict([Sentence(tokens) for tokens in texts])
    assert [p.sentence.tokens for p in predictions] == texts
    assert all(p.sentence.problem() is None for p in predictions)
    assert predictions[1].sentence.entities == predictions[2].sentence.entities == ()
    for entity in predictions[0].sentence.entities:
        assert texts[0][entity.start].strip() and texts[0][entity.end - 1].strip()


def test_special_positions_of_roberta_are_spared(encoder):
    config = load_config(encoder)
    config.model_type, config.pad_token_id = "roberta", 1
    assert limit_of(config) == 60


# ---- Examples -------------------------------------------------------------------------------------------------------


def examples(encoder, one, limit=62):
    tokenizer = load_tokenizer(encoder)
    return list(examples_of(one, next(windows_of(tokenizer, [one.tokens], limit)), LABELS))


def test_gold_of_a_window(encoder):
    [example] = examples(encoder, CORPUS[2])  # its entities are not in text order, and the relation goes backwards
    assert example.gold.spans.tolist() == [[0, 2], [3, 4]]
    assert example.gold.types.tolist() == [1, 2]
    assert example.gold.relations.tolist() == [[0, 2 + 2], [0, 0]]


def test_overlaps_white_space_and_what_crosses_windows(encoder):
    one = sentence(
        "Ana \n works for Borealis Press",
        [(0, 3, "PER"), (0, 1, "ORG"), (1, 2, "ORG"), (4, 6, "ORG"), (1, 3, "PER")],
        [("works_for", 0, 3), ("works_for", 1, 3), ("employs", 0, 3), ("employs", 0, 0)],
    )
    one = replace(one, tokens=("Ana", "\n", "works", "for", "Borealis", "Press"))
    [example] = examples(encoder, one)
    assert example.window.tokens.tolist() == [0, 2, 3, 4, 5]
    assert example.gold.spans.tolist() == [[0, 2], [3, 5]]
    assert example.gold.relations.tolist() == [[0, 2], [0, 0]]
    cut_up = examples(encoder, one, limit=4)  # Borealis is two wordpieces
    assert [e.gold.spans.tolist() for e in cut_up] == [[[0, 2]], [[0, 2]]]
    crossing = examples(encoder, one, limit=1)
    assert sum(len(e.gold.spans) for e in crossing) == 2  # (0, 1), and (1, 3) without the white space


def test_candidates_are_gold_and_what_is_detected(untrained):
    pairs = zip(CORPUS, untrained.windows(CORPUS), strict=True)
    all_examples = [example for s, windows in pairs for example in examples_of(s, windows, LABELS)]
    batch = untrained.batch([e.window for e in all_examples])
    gold = [e.gold for e in all_examples]
    pure = Update(untrained.model, batch, gold, np.arange(0), EQUAL).candidates
    assert pure.spans[:, 1:].tolist() == [span for g in gold for span in g.spans.tolist()]
    assert pure.types.tolist() == [kind for g in gold for kind in g.types]
    assert sorted(pure.relations[pure.relations > 0]) == [1, 2, 2, 2, 4, 4]
    mixed = Update(untrained.model, batch, gold, np.array([0, 3]), EQUAL).candidates
    extra = {tuple(span) for span in mixed.spans} - {tuple(span) for span in pure.spans}
    assert extra and {window for window, *_ in extra} <= {0, 3}
    assert sorted(mixed.types[mixed.types > 0]) == sorted(pure.types)
    assert sorted(mixed.relations[mixed.relations > 0]) == sorted(pure.relations[pure.relations > 0])
    assert all(mixed.types[i] == 0 for i, span in enumerate(mixed.spans) if tuple(span) in extra)


def test_what_is_none_counts_by_its_weight(untrained):
    """Against torch's own weighted cross-entropy, of which the mean is over the weights as well."""
    pairs = zip(CORPUS, untrained.windows(CORPUS), strict=True)
    all_examples = [example for s, windows in pairs for example in examples_of(s, windows, LABELS)]
    batch, gold = untrained.batch([e.window for e in all_examples]), [e.gold for e in all_examples]
    none = {"entity": 0.25, "relation": 0.5}
    update = Update(untrained.model, batch, gold, np.array([0, 3]), none)
    sums, _ = losses(update)
    candidates = update.candidates
    with torch.no_grad():
        entities = untrained.model.entities(batch, update.states, candidates.spans)
        logits = {
            "entity": untrained.model.entity_classifier(entities),
            "relation": untrained.model.relation_logits(
                batch, update.states, candidates.spans, entities, candidates.pairs
            ),
        }
    for name, classes in (("entity", candidates.types), ("relation", candidates.relations)):
        weights = torch.ones(logits[name].shape[1])
        weights[0] = none[name]
        mean = torch.nn.functional.cross_entropy(logits[name], torch.from_numpy(classes), weights)
        assert 0 < sum(classes == 0) < len(classes)
        assert sums[name].item() / update.counts()[name] == pytest.approx(mean.item(), rel=1e-5)


def test_scheduled_sampling_begins_with_gold_alone():
    assert [gold_share(epoch, 5, 3.0) for epoch in (1, 5)] == [1.0, 1.0]
    assert gold_share(8, 5, 3.0) == pytest.approx(3 / (3 + np.e))
    assert 0 <= gold_share(10_000, 5, 3.0) < 1e-9


def test_batches_are_a_draw_from_seed_and_epoch():
    lengths = np.random.default_rng(1).integers(3, 60, 100)
    first = batches_of(lengths, 16, 1, 1, by_length=True)
    assert sorted(np.concatenate(first)) == list(range(100))
    assert all((a == b).all() for a, b in zip(first, batches_of(lengths, 16, 1, 1, by_length=True), strict=True))
    assert any((a != b).any() for a, b in zip(first, batches_of(lengths, 16, 1, 2, by_length=True), strict=False))

    def padded(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    assert padded(first) < 0.75 * padded(batches_of(lengths, 16, 1, 1, by_length=False))


# ---- Learning -------------------------------------------------------------------------------------------------------


def test_a_model_learns_a_handful_of_sentences_by_heart(untrained):
    settings = job(epochs=60, patience=60, sampling_start=10, weight_decay=0, freeze_embeddings="false")
    fit(untrained, CORPUS, CORPUS, settings, lambda step, measured: None)
    scores = score(CORPUS, [p.sentence for p in untrained.predict(CORPUS)])
    assert {name: value["f1"] for name, value in scores.items()} == dict.fromkeys(scores, 1.0)


def test_learning_rates_fall_from_layer_to_layer(untrained):
    settings = job(learning_rate=1e-3, layer_decay=0.5, span_learning_rate=7e-3, classifier_learning_rate=9e-3).train
    model = untrained.model
    groups = rates(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    by_name = {names[id(parameter)]: rate for rate, group in groups.items() for parameter in group}
    assert by_name.keys() == set(names.values())
    wanted = {
        "encoder.encoder.layer.1.output.dense.weight": 1e-3,
        "encoder.encoder.layer.0.attention.self.query.bias": 5e-4,
        "encoder.embeddings.position_embeddings.weight": 2.5e-4,
        "entity_encoder.mlp.0.weight": 7e-3,
        "pair_encoder.context.convolutions.0.bias": 7e-3,
        "relation_classifier.weight": 9e-3,
        "span_classifier.bias": 9e-3,
    }
    assert {name: by_name[name] for name in wanted} == wanted
    assert len(layers_of(model.encoder)) == 2
    frozen = [names[id(p)] for p in model.parameters() if not p.requires_grad]
    assert frozen == ["encoder.embeddings.word_embeddings.weight"]
