import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from encoders import tiny_encoder
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from enpar.config import Objectives, PretrainJob, PretrainTraining, Training, Views
from enpar.errors import RunError, UserError
from enpar.objectives.pretraining import PretrainingModel, to_tensors
from enpar.objectives.views import ViewMaker
from enpar.pretrained import checkpoint_settings, load_encoder, load_tokenizer, locate, new_encoder
from enpar.sentence import Entity, Sentence
from enpar.training.checkpoint import load_weights, save_model
from enpar.training.engine import TorchEngine
from enpar.training.loop import train_step
from enpar.training.optimizer import build_optimizer, build_schedule
from enpar.training.plan import WINDOW, Cut, Plan, divide, make_plan, total_steps, views_per_sentence
from enpar.training.pretrainer import build_model
from enpar.wordpieces import EntityPieces, WordpieceCorpus, build_corpus, document_key

WORDS = ["she", "moved", "to", "warsaw", "elizabeth", "washington", "in", "may", "ann", "."]
WEIGHTS = {"met": 1.0, "mep": 0.5, "acd": 1.0, "pp": 2.0}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """For tensors this small, threads that wait for each other are all that several would add."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- learning rates and weight decay --------------------------------------------------------------------------------


def rates(warmup, steps, peak=8.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = build_schedule(optimizer, warmup, steps)
    found = []
    for _ in range(steps + 2):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("warmup", "steps", "wanted"),
    [
        (0.4, 10, [2, 4, 6, 8, 8 * 6 / 7, 8 * 5 / 7, 8 * 4 / 7, 8 * 3 / 7, 8 * 2 / 7, 8 / 7, 0, 0]),
        (0.1, 10, [8, 7.2, 6.4, 5.6, 4.8, 4, 3.2, 2.4, 1.6, 0.8, 0, 0]),
        (0.0, 4, [8, 6, 4, 2, 0, 0]),
        (1.0, 4, [2, 4, 6, 8, 0, 0]),
        (0.5, 1, [8, 0, 0]),
    ],
)
def test_the_learning_rate_rises_to_its_peak_and_falls_to_0(warmup, steps, wanted):
    assert rates(warmup, steps) == pytest.approx(wanted)


def test_weight_decay_spares_biases_and_norms_and_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3))
    head = nn.Linear(2, 2)
    model[0].weight.requires_grad_(False)
    settings = Training(weight_decay=0.01)
    optimizer = build_optimizer({1e-4: model.parameters(), 1e-3: head.parameters()}, settings)
    names = {id(p): name for name, p in [*model.named_parameters("model"), *head.named_parameters("head")]}
    found = {
        (group["lr"], group["weight_decay"]): sorted(names[id(p)] for p in group["params"])
        for group in optimizer.param_groups
    }
    assert found == {
        (1e-4, 0.01): ["model.1.weight", "model.3.weight"],
        (1e-4, 0.0): ["model.1.bias", "model.2.bias", "model.2.weight", "model.3.bias"],
        (1e-3, 0.01): ["head.weight"],
        (1e-3, 0.0): ["head.bias"],
    }
    assert isinstance(optimizer, torch.optim.AdamW)


def test_a_group_that_is_frozen_altogether_is_no_group():
    frozen, trained = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2, bias=False)
    optimizer = build_optimizer({1.0: frozen.parameters(), 2.0: trained.parameters()}, Training())
    assert [group["lr"] for group in optimizer.param_groups] == [2.0]


# ---- the training step ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), WORDS, hidden=16)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def maker(tokenizer):
    draws = np.random.default_rng(1)
    made = []
    for number in range(12):
        tokens = draws.choice(WORDS, 4 + number % 5).tolist()
        places = [0] if number == 5 else [0, 2, 3]  # one has no pair
        entities = tuple(Entity(i, i + 1, "PGD"[i % 3]) for i in places)
        made.append(Sentence(tuple(tokens), entities, (), "d", number))
    corpus = build_corpus(made, tokenizer, 64)
    return ViewMaker(corpus, Views(pairs=2), Objectives(**WEIGHTS), tokenizer.mask_token_id, 1)


def micro_batches(maker, tokenizer, groups):
    special = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    return [to_tensors(maker.make(np.array(group), 0), *special) for group in groups]


def pretraining_model(folder, dropout=0.0):
    torch.manual_seed(1)
    return PretrainingModel(load_encoder(str(folder), dropout), 3, WEIGHTS, dropout).train()


def engine_of(model, rate=1.0, clip=1e9):
    """Plain descent at a constant rate, so that the change of the weights is the gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    return TorchEngine(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0), clip)


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def stepped(folder, tokenizer, maker, groups, dropout=0.0, seed=1, step=0, **engine):
    """Metrics, and the change of the weights, of one update in these micro-batches."""
    model = pretraining_model(folder, dropout)
    before = weights_of(model)
    batches = micro_batches(maker, tokenizer, groups)
    metrics = train_step(engine_of(model, **engine), step, batches, model, WEIGHTS, seed)
    return metrics, {name: before[name] - parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("groups", [[range(6), range(6, 12)], [[5], [0, 11, 3], [1], [2, 4, 6, 7, 8, 9, 10]]])
def test_the_cut_into_micro_batches_makes_no_difference(folder, tokenizer, maker, groups):
    whole, gradient = stepped(folder, tokenizer, maker, [range(12)])
    cut, pieces = stepped(folder, tokenizer, maker, groups)
    assert cut == pytest.approx(whole, rel=1e-4)
    assert all(change.abs().sum() > 0 for name, change in gradient.items() if "key.bias" not in name)
    for name, change in gradient.items():
        torch.testing.assert_close(pieces[name], change, atol=2e-5, rtol=1e-3, msg=lambda text, name=name: name + text)


def test_the_loss_is_the_weighted_sum_of_the_objectives_means(folder, tokenizer, maker):
    (batch,) = micro_batches(maker, tokenizer, [range(12)])
    model = pretraining_model(folder)
    sums, extra = model(batch)
    counts = batch.counts()
    means = {name: float(value.detach()) / counts[name] for name, value in sums.items()}
    sum(WEIGHTS[name] * sums[name] / counts[name] for name in WEIGHTS).backward()
    gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
    metrics, change = stepped(folder, tokenizer, maker, [range(12)])
    assert {name: metrics[f"loss/{name}"] for name in WEIGHTS} == pytest.approx(means, rel=1e-5)
    assert metrics["loss/total"] == pytest.approx(sum(WEIGHTS[name] * means[name] for name in WEIGHTS), rel=1e-5)
    assert {name: metrics[f"count/{name}"] for name in WEIGHTS} == counts
    assert {name: metrics[name] for name in extra} == {name: float(value) for name, value in extra.items()}
    for name, wanted in gradient.items():
        torch.testing.assert_close(change[name], wanted, atol=2e-5, rtol=1e-3)


def test_the_gradient_is_clipped_over_the_whole_update(folder, tokenizer, maker):
    groups = [[5], [0, 11, 3], [1, 2]]
    _, full = stepped(folder, tokenizer, maker, groups)
    _, clipped = stepped(folder, tokenizer, maker, groups, clip=0.25)
    norm = torch.stack([change.square().sum() for change in full.values()]).sum().sqrt()
    assert norm > 0.25
    for name, change in full.items():
        torch.testing.assert_close(clipped[name], change * 0.25 / norm, atol=1e-5, rtol=1e-3)


def test_dropout_depends_on_seed_and_step_alone(folder, tokenizer, maker):
    def loss(**more):
        torch.rand(3)  # whatever was drawn before
        return stepped(folder, tokenizer, maker, [range(6)], dropout=0.3, **more)[0]["loss/total"]

    same = loss(seed=1, step=4)
    assert loss(seed=1, step=4) == same
    assert len({same, loss(seed=2, step=4), loss(seed=1, step=5)}) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_weights(folder, tokenizer, maker, value, broken):
    model = pretraining_model(folder)
    before = weights_of(model)
    batches = micro_batches(maker, tokenizer, [range(4), range(4, 8)])
    engine = engine_of(model)

    def losses(batch):
        sums, extra = model(batch)
        if batch is batches[broken]:
            sums["acd"] = sums["acd"] * value
        return sums, extra

    with pytest.raises(RunError, match=r"step 18 .*acd (nan|inf)"):
        train_step(engine, 17, batches, losses, WEIGHTS, 1)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    metrics = train_step(engine, 17, batches, model, WEIGHTS, 1)  # nothing is left of it
    _, change = stepped(folder, tokenizer, maker, [range(4), range(4, 8)], step=17)
    assert np.isfinite(metrics["loss/total"])
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(before[name] - parameter.detach(), change[name])


def test_an_objective_without_items_in_the_update_has_loss_0(folder, tokenizer, maker):
    metrics, change = stepped(folder, tokenizer, maker, [[5]])
    assert metrics["count/acd"] == metrics["count/pp"] == metrics["loss/acd"] == metrics["loss/pp"] == 0
    assert metrics["loss/met"] > 0
    assert all(delta.isfinite().all() for delta in change.values())


# ---- the plan -------------------------------------------------------------------------------------------------------


def corpus_of(lengths, sentences_a_document=7):
    """A corpus of which only lengths and places matter."""
    n = len(lengths)
    nothing = np.zeros(0, dtype=np.int64)
    names = tuple(f"d{i // sentences_a_document}" for i in range(n))
    return WordpieceCorpus(
        pieces=np.zeros(sum(lengths), dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        entity_offsets=np.zeros(n + 1, dtype=np.int64),
        starts=nothing,
        ends=nothing,
        types=nothing,
        numbers=nothing,
        ranks=nothing,
        documents=np.array([document_key(name) for name in names], dtype=np.uint64),
        sent_ids=np.arange(n) % sentences_a_document,
        names=names,
        inventory=EntityPieces(nothing, np.zeros(2, dtype=np.int64)),
        type_names=(),
        left_out={},
    )


LENGTHS = np.random.default_rng(5).integers(3, 60, 1000).tolist()


@pytest.fixture(scope="module")
def corpus():
    return corpus_of(LENGTHS)


def epoch_of(plan, epoch):
    steps = range(epoch * plan.per_epoch, (epoch + 1) * plan.per_epoch)
    made = [plan.update(step) for step in steps]
    assert {number for number, _ in made} == {epoch}
    return [sentences.tolist() for _, sentences in made]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("per_update", [1, 3, 7, 13, 999, 1000])
def test_an_epoch_takes_each_sentence_once_but_for_the_remainder(corpus, grouped, per_update):
    train = np.arange(0, 1000)[::-1]
    plan = Plan(corpus, train, per_update, grouped, 1)
    assert len(plan) == 1000
    for epoch in (0, 2):
        updates = epoch_of(plan, epoch)
        assert {len(update) for update in updates} == {per_update}
        used = [sentence for update in updates for sentence in update]
        assert len(used) == len(set(used)) == 1000 - 1000 % per_update
        for update in updates:
            lengths = [LENGTHS[sentence] for sentence in update]
            assert lengths == sorted(lengths)


def test_only_the_sentences_to_train_on_are_used(corpus):
    train = np.arange(10, 500, 3)
    used = [sentence for update in epoch_of(Plan(corpus, train, 4, True, 1), 1) for sentence in update]
    assert set(used) <= set(train.tolist())


def test_grouping_uses_the_same_sentences_in_tighter_updates(corpus):
    for per_update in (10, 4):
        grouped, loose = (Plan(corpus, np.arange(1000), per_update, by_length, 1) for by_length in (True, False))
        for epoch in (0, 1):
            tight, wide = epoch_of(grouped, epoch), epoch_of(loose, epoch)
            assert Counter(chain(*tight)) == Counter(chain(*wide)) == Counter(range(1000))
            spread = [[LENGTHS[update[-1]] - LENGTHS[update[0]] for update in updates] for updates in (tight, wide)]
            assert max(spread[0]) < min(12, np.mean(spread[1]))
        # Short and long take turns.
        means = [np.mean([LENGTHS[sentence] for sentence in update]) for update in epoch_of(grouped, 0)[:WINDOW]]
        assert means != sorted(means)


def test_the_plan_is_a_function_of_seed_and_epoch(corpus):
    def made(seed, epoch, grouped=True):
        return json.dumps(sorted(map(sorted, epoch_of(Plan(corpus, np.arange(1000), 10, grouped, seed), epoch))))

    for grouped in (True, False):
        assert made(1, 0, grouped) == made(1, 0, grouped)
        assert len({made(seed, epoch, grouped) for seed in (1, 2, 3) for epoch in (0, 1)}) == 6


def test_updates_may_be_asked_for_in_any_order(corpus):
    plan, other = (Plan(corpus, np.arange(1000), 30, True, 1) for _ in range(2))
    steps = [50, 3, 99, 3, 0, 34, 33, 32]
    asked = {step: plan.update(step)[1].tolist() for step in steps}
    assert asked == {step: other.update(step)[1].tolist() for step in sorted(steps)}


def test_the_order_does_not_depend_on_the_order_of_the_corpus(corpus):
    train = np.arange(1000)
    backwards = epoch_of(Plan(corpus, train[::-1].copy(), 10, False, 1), 0)
    assert [sorted(update) for update in backwards] == [
        sorted(update) for update in epoch_of(Plan(corpus, train, 10, False, 1), 0)
    ]


@pytest.mark.parametrize(("per_update", "world", "accumulation"), [(30, 2, 1), (30, 3, 2), (31, 4, 2), (7, 2, 3)])
def test_the_pieces_of_an_update_are_those_of_any_cut(corpus, per_update, world, accumulation):
    plan = Plan(corpus, np.arange(1000), per_update, True, 1, Cut(least=accumulation))
    other = Plan(corpus, np.arange(1000), per_update, True, 1, Cut(least=world * accumulation))
    for step in (0, 5, plan.per_epoch):
        epoch, whole = plan.update(step)
        dealt = [plan.pieces(step, rank, world) for rank in range(world)]
        assert {number for number, _ in dealt} == {epoch}
        assert {len(pieces) for _, pieces in dealt} == {accumulation}
        all_pieces = [piece.tolist() for _, pieces in dealt for piece in pieces]
        assert sorted(chain(*all_pieces)) == sorted(whole.tolist())
        assert max(map(len, all_pieces)) - min(map(len, all_pieces)) <= 1
        _, alone = other.pieces(step, 0, 1)
        for rank, (_, pieces) in enumerate(dealt):  # in turn, so that each worker has short and long ones
            assert [piece.tolist() for piece in pieces] == [piece.tolist() for piece in alone[rank::world]]


@pytest.mark.parametrize("world", [1, 2])
def test_micro_batches_hold_about_as_many_wordpieces_as_they_may(corpus, world):
    plan = Plan(corpus, np.arange(1000), 40, True, 1, Cut(views=10, wordpieces=4096))
    counts = set()
    for step in range(plan.per_epoch):
        dealt = [plan.pieces(step, rank, world)[1] for rank in range(world)]
        assert len({len(pieces) for pieces in dealt}) == 1  # workers wait for each other after each
        counts.add(len(dealt[0]))
        for piece in chain(*dealt):
            longest = max(LENGTHS[sentence] + 2 for sentence in piece)
            assert 10 * sum(LENGTHS[sentence] + 2 for sentence in piece) <= 4096 + 10 * longest
    assert len(counts) > 1  # fewer for short sentences
    one = Plan(corpus, np.arange(1000), 4, True, 1, Cut(views=10, wordpieces=1))
    assert [len(piece) for piece in one.pieces(0, 0, 2)[1]] == [1, 1]  # a sentence is not cut


def job(**more):
    train = {"steps": 10, "batch_size": 96, **more.pop("train", {})}
    return PretrainJob(data="d", output="o", train=PretrainTraining(**train), **more)


def test_a_batch_of_views_is_a_whole_number_of_sentences(corpus):
    assert views_per_sentence(Views(n_p=4, pairs=1), Objectives()) == 1 + 1 + 5 + 3
    assert views_per_sentence(Views(n_p=4, pairs=3), Objectives()) == 1 + 1 + 3 * (5 + 3)
    assert views_per_sentence(Views(n_p=4, pairs=3), Objectives(acd=0)) == 1 + 1 + 3 * 3
    assert views_per_sentence(Views(n_p=4, pairs=3), Objectives(met=0, mep=0, pp=0)) == 1 + 3 * 5
    assert views_per_sentence(Views(n_p=4, pairs=3), Objectives(acd=0, pp=0, met=0)) == 1
    assert make_plan(corpus, np.arange(1000), job()).per_update == 10  # 96 / 10
    plan = make_plan(corpus, np.arange(1000), job(train={"steps": None, "epochs": 1.5}))
    assert total_steps(plan, PretrainTraining(epochs=1.5)) == 150
    assert total_steps(plan, PretrainTraining(steps=7)) == 7


def test_an_update_that_cannot_be_is_refused(corpus):
    with pytest.raises(UserError, match=r"train\.batch_size.* set it to 120 or more"):
        make_plan(corpus, np.arange(1000), job(train={"accumulation": 4}, scaling={"num_workers": 3}))
    make_plan(corpus, np.arange(1000), job(train={"accumulation": 4, "batch_size": 120}, scaling={"num_workers": 3}))
    with pytest.raises(UserError, match="data: 9 sentences"):
        make_plan(corpus, np.arange(9), job())
    make_plan(corpus, np.arange(10), job())


# ---- what is held out and what is used ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_whole_documents_are_held_out_and_fractions_are_nested(corpus, seed):
    everything = set(range(1000))
    before = set()
    for fraction in (0.1, 0.25, 0.5, 1.0):
        division = divide(corpus, fraction, 100, seed)
        heldout, train = set(division.heldout.tolist()), set(division.train.tolist())
        assert not heldout & train
        assert 100 <= len(heldout) < 107  # documents of seven
        assert heldout == {i for i in everything if corpus.names[i] in {corpus.names[j] for j in heldout}}
        assert len(train) == round(fraction * (1000 - len(heldout)))
        assert before <= train
        assert division.train.tolist() == sorted(train)
        assert division.heldout.tolist() == sorted(heldout)
        before = train
    assert before | heldout == everything


def test_the_division_depends_on_the_seed_and_not_on_the_order(corpus):
    def made(corpus, seed):
        division = divide(corpus, 0.3, 50, seed)
        return [
            {(corpus.names[i], int(corpus.sent_ids[i])) for i in part} for part in (division.train, division.heldout)
        ]

    assert made(corpus, 1) == made(corpus, 1)
    assert made(corpus, 1) != made(corpus, 2)
    order = np.random.default_rng(1).permutation(1000)
    columns = {**vars(corpus), "names": tuple(corpus.names[i] for i in order)}
    columns |= {"documents": corpus.documents[order], "sent_ids": corpus.sent_ids[order]}
    assert made(WordpieceCorpus(**columns), 1) == made(corpus, 1)


def test_nothing_need_be_held_out(corpus):
    division = divide(corpus, 1.0, 0, 1)
    assert division.heldout.tolist() == []
    assert division.train.tolist() == list(range(1000))


@pytest.mark.parametrize("heldout", [1000, 5000])
def test_something_must_be_left_to_train_on(corpus, heldout):
    with pytest.raises(UserError, match=rf"train\.heldout: of 1000 sentences, {heldout} held out leave none"):
        divide(corpus, 1.0, heldout, 1)


# ---- the model's folder ---------------------------------------------------------------------------------------------


def test_a_model_is_saved_and_loaded(folder, tokenizer, maker, tmp_path):
    model = pretraining_model(folder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    settings = {"kind": "pretrained", "entity_types": ["D", "G", "P"]}
    save_model(tmp_path, model.encoder, model.parts(), tokenizer, settings, "# A card\n")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "# A card\n"
    assert checkpoint_settings(str(tmp_path)) == settings
    assert checkpoint_settings(str(folder)) is None
    assert not [file for file in tmp_path.iterdir() if file.suffix in {".bin", ".pt", ".pkl"}]

    torch.manual_seed(9)
    again = PretrainingModel(new_encoder(model.encoder.config), 3, WEIGHTS, 0.0).eval()
    load_weights(tmp_path, again.encoder, again.parts())
    for (name, parameter), (other, loaded) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(parameter, loaded), name
    (batch,) = micro_batches(maker, tokenizer, [range(12)])
    with torch.no_grad():
        before, after = model(batch), again(batch)
    for wanted, found in zip(before, after, strict=True):
        torch.testing.assert_close(found, wanted)

    ids = tokenizer(["she moved to warsaw ."], return_tensors="pt")
    with torch.no_grad():
        wanted = model.encoder(**ids).last_hidden_state
        for encoder in (AutoModel.from_pretrained(tmp_path), load_encoder(str(tmp_path), 0.0)):
            torch.testing.assert_close(encoder.eval()(**ids).last_hidden_state, wanted)
    same = load_tokenizer(str(tmp_path))
    text = [["elizabeth", "moved", "to", "washington"]]
    assert same(text, is_split_into_words=True).input_ids == tokenizer(text, is_split_into_words=True).input_ids
    assert same.mask_token_id == tokenizer.mask_token_id


def test_a_checkpoint_goes_on_with_its_encoders_and_heads(folder, tokenizer, tmp_path):
    settings = {"kind": "pretrained", "entity_types": ["D", "G", "P"], "objectives": ["acd", "met", "pp"]}
    before = PretrainingModel(load_encoder(str(folder), 0.0), 3, WEIGHTS | {"mep": 0.0}, 0.0)
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_model(tmp_path, before.encoder, before.parts(), tokenizer, settings, "")
    old = weights_of(before)
    new = weights_of(build_model(job(encoder=str(folder)), ("D", "G", "P")))
    taken = weights_of(build_model(job(encoder=str(tmp_path)), ("D", "G", "P")))
    assert all(torch.equal(taken[name], old[name] if name in old else new[name]) for name in new)
    assert {name.split(".")[1] for name in set(new) - set(old)} == {"mep"}
    # Other entity types: other classes.
    types = ("D", "G", "P", "Q")
    taken, fresh = (weights_of(build_model(job(encoder=str(place)), types)) for place in (tmp_path, folder))
    heads = [name for name in taken if name.startswith("heads.met.")]
    assert heads and all(torch.equal(taken[name], fresh[name]) for name in heads)
    assert all(torch.equal(taken[name], old[name]) for name in old if name not in heads)


@pytest.mark.parametrize("change", ["lacks", "shape"])
def test_weights_that_do_not_fit_are_refused(folder, tokenizer, tmp_path, change):
    model = pretraining_model(folder)
    save_model(tmp_path, model.encoder, model.parts(), tokenizer, {}, "")
    weights = load_file(tmp_path / "model.safetensors")
    name = "enpar.heads.pp.weight"
    weight = weights.pop(name)
    if change == "shape":
        weights[name] = weight[:7].contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: .*weight"):
        load_weights(tmp_path, model.encoder, model.parts())


def test_a_folder_without_safe_weights_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"no weights \(model\.safetensors\)"):
        locate(str(tmp_path))
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    for load in (locate, load_encoder):
        with pytest.raises(UserError, match="pickled weights are not read"):
            load(str(tmp_path))
    assert locate(str(tmp_path), weights=False) == str(tmp_path)


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        locate(str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        locate(str(tmp_path / "nowhere"))
