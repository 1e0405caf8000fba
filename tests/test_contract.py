"""The contract matrix: what every technique owes every model family that it claims."""

import copy
import itertools
import pickle
import random

import pytest
import torch
from cases import CASES, PAIRS, TOGETHER, claimed, honoured
from families import CONFIGS, batch, build

from cadenza.attention import attention_modules
from cadenza.surgery import ledger

every_pair = pytest.mark.parametrize(("name", "family"), PAIRS)
every_set = pytest.mark.parametrize(("family", "names"), TOGETHER)
every_family = pytest.mark.parametrize("family", CONFIGS)


def logits(model, family, context=CASES["alibi"].context, **kwargs):
    inputs = batch(family, **kwargs)
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), context():
        out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return out[real]


def snapshot(model):
    """Everything of a model that a surgery may change."""
    types = {path: type(module) for path, module in model.named_modules()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return types, parameters, list(model.state_dict()), model.config.to_dict()


def same(a, b):
    types, parameters, keys, config = a
    identical = parameters.keys() == b[1].keys() and all(p is b[1][n] for n, p in parameters.items())
    return types == b[0] and identical and keys == b[2] and config == b[3]


def grouped(model):
    """AdamW with decay and no-decay groups, over each parameter once."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-2)


def membership(optimizer):
    return sorted(id(p) for group in optimizer.param_groups for p in group["params"])


def some_orders(names, most=14):
    """All orders of few techniques; of more: there, back (each pair comes both ways), and random ones."""
    every = list(itertools.permutations(names)) if len(names) < 4 else []
    shuffled = random.Random(0)
    drawn = [tuple(shuffled.sample(names, len(names))) for _ in range(most - 2)]
    return every or [tuple(names), tuple(names[::-1]), *drawn]


@every_pair
def test_effect(name, family):
    case, model = CASES[name], build(family)
    before = case.effect(model, family, case.context)
    case.apply(model)
    after = case.effect(model, family, case.context)
    assert after.isfinite().all()
    assert after.shape != before.shape or (after - before).abs().max() > 1e-5


@every_pair
def test_idempotent(name, family):
    case, model = CASES[name], build(family)
    report = case.apply(model)
    once, state = logits(model, family, case.context), snapshot(model)
    again = case.apply(model)
    assert len(report) > 0
    assert len(again) == 0
    assert again.already == len(report)
    assert same(state, snapshot(model))
    assert torch.equal(once, logits(model, family, case.context))


@every_pair
def test_undo(name, family):
    case, model = CASES[name], build(family)
    optimizer = grouped(model)
    before, state, members = logits(model, family), snapshot(model), membership(optimizer)
    report = case.apply(model, optimizers=optimizer)
    report.undo()
    assert same(state, snapshot(model))
    assert members == membership(optimizer)
    assert torch.equal(before, logits(model, family))
    assert not any(ledger(module) for module in model.modules())
    assert not any("attention_plan" in vars(module) for module in attention_modules(model))


@pytest.mark.slow
@every_set
def test_any_order_gives_the_same_model(family, names):
    orders = [honoured(order) for order in some_orders(names)]
    results = []
    for order in orders:
        model = build(family)
        for name in order:
            CASES[name].apply(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = logits(model, family)
        results.append((logits(model, family), low, snapshot(model)))
    first = results[0]
    for order, (full, low, state) in zip(orders, results, strict=True):
        assert torch.equal(full, first[0]), order
        assert torch.equal(low, first[1]), order
        assert state[0] == first[2][0], order
        assert state[2] == first[2][2], order


@pytest.mark.slow
@every_set
def test_undo_in_any_order(family, names):
    for order in some_orders(names):
        model = build(family)
        optimizer = grouped(model)
        before, state, members = logits(model, family), snapshot(model), membership(optimizer)
        reports = {n: CASES[n].apply(model, optimizers=optimizer) for n in names}
        for name in honoured(order)[::-1]:
            reports[name].undo()
        assert same(state, snapshot(model)), order
        assert members == membership(optimizer), order
        assert torch.equal(before, logits(model, family)), order


@every_pair
def test_ties_stay(name, family):
    model = build(family, tie_word_embeddings=True)
    tied = model.get_output_embeddings()
    assert tied.weight is model.get_input_embeddings().weight
    CASES[name].apply(model)
    assert model.get_output_embeddings() is tied
    assert tied.weight is model.get_input_embeddings().weight


@every_pair
def test_parameters_stand_in_their_groups_once(name, family):
    model = build(family)
    optimizer = grouped(model)
    CASES[name].apply(model, optimizers=optimizer)
    trained = sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert membership(optimizer) == trained
    decay, rest = (group["params"] for group in optimizer.param_groups)
    assert all(p.ndim > 1 for p in decay)
    assert all(p.ndim <= 1 for p in rest)


@every_pair
def test_a_step_trains_every_parameter(name, family):
    model = build(family).train()
    optimizer = grouped(model)
    CASES[name].apply(model, optimizers=optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model(**batch(family, length=11)).loss.backward()
    optimizer.step()
    still = [n for n, p in model.named_parameters() if torch.equal(before[n], p)]
    assert still == [], "no gradient reached these"


@every_pair
def test_dtype_flags_and_hooks_are_kept(name, family):
    model = build(family).to(torch.float64).train()
    first = next(model.parameters())
    first.requires_grad_(False)
    seen = []
    for module in model.modules():
        module.register_forward_hook(lambda *_: seen.append(1))
    hooks = sum(len(m._forward_hooks) for m in model.modules())
    CASES[name].apply(model)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(module.training for module in model.modules())
    assert sum(len(m._forward_hooks) for m in model.modules()) == hooks
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert logits(model.eval(), family).dtype == torch.float64
    assert seen


@pytest.mark.slow
@every_pair
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_whole(name, family, clone):
    case, model = CASES[name], build(family)
    case.apply(model)
    copied = clone(model)
    expected = logits(model, family, case.context)
    assert torch.equal(expected, logits(copied, family, case.context))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(expected, logits(model, family, case.context))
    assert len(case.apply(copied)) == 0, "the ledger is copied too"


@pytest.mark.slow
@every_pair
def test_state_dict_round_trip(name, family):
    case, model, other = CASES[name], build(family), build(family, seed=1)
    case.apply(model)
    case.apply(other)
    other.load_state_dict(model.state_dict(), strict=True)
    expected = logits(model, family, case.context)
    assert torch.equal(expected, logits(other, family, case.context))


@every_family
def test_a_failed_surgery_changes_nothing(family, monkeypatch):
    for name in claimed(family):
        model = build(family)
        state, optimizer = snapshot(model), grouped(model)
        members = membership(optimizer)

        def fail(self, report, survey):
            raise RuntimeError("late failure")

        monkeypatch.setattr(CASES[name].cls, "finish", fail)
        with pytest.raises(RuntimeError, match="late failure"):
            CASES[name].apply(model, optimizers=optimizer)
        assert same(state, snapshot(model))
        assert members == membership(optimizer)
        monkeypatch.undo()
