"""The engine: order, conflicts, shared modules, optimizers, reports."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from families import batch, build
from torch import nn
from torch.nn import Parameter

from cadenza.algorithms import GLU, ALiBi, apply_alibi, apply_glu, apply_low_precision_norm
from cadenza.surgery import Conflict, NoEffect, OrderError, Stage, Surgery, SurgeryError, in_order, mix
from cadenza.surgery.attention import claim, is_attention
from cadenza.surgery.parameters import replace_parameter, take_parameter
from cadenza.surgery.retype import chain


class Doubled:
    def forward(self, x):
        return 2 * super().forward(x)


class Halved:
    def forward(self, x):
        return super().forward(x) / 2


@dataclass(repr=False, eq=False)
class Double(Surgery):
    stage = Stage.PRECISION

    def edit(self, site):
        return mix(site.module, Doubled) if isinstance(site.module, nn.Linear) else None


@dataclass(repr=False, eq=False)
class Halve(Double):
    def edit(self, site):
        return mix(site.module, Halved) if isinstance(site.module, nn.Linear) else None


@dataclass(repr=False, eq=False)
class Quantize(Double):
    stage = Stage.QUANTIZE


@dataclass(repr=False, eq=False)
class Widen(Surgery):
    """Replaces each Linear's weight, and adds a parameter that no name stood for."""

    stage = Stage.STRUCTURE

    def edit(self, site):
        if not isinstance(site.module, nn.Linear):
            return None
        old = site.module.weight
        site.module.register_parameter("gain", Parameter(torch.ones(1)))
        put_back = replace_parameter(site.module, old, Parameter(torch.zeros(9, old.shape[1])))

        def undo():
            put_back()
            del site.module.gain

        return undo


def test_the_root_and_shared_modules_are_edited_once():
    x = torch.ones(1, 2)
    root = nn.Linear(2, 2)
    expected = 2 * root(x)
    assert len(Double().operate(root)) == 1
    assert torch.equal(root(x), expected)
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, shared)
    expected = 2 * shared(2 * shared(x))
    assert len(Double().operate(model)) == 1
    assert torch.equal(model(x), expected)


def test_mixins_stack_and_come_off_in_any_order():
    model, x = nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2)
    before = model(x)
    first, second = Double().operate(model), Halve().operate(model)
    assert torch.equal(model(x), before)
    assert model[0]._get_name() == "DoubledHalvedLinear"
    first.undo()
    assert torch.equal(model(x), before / 2)
    second.undo()
    assert type(model[0]) is nn.Linear
    second.undo()
    assert torch.equal(model(x), before)


def test_nothing_changes_beneath_a_quantized_layer():
    model = build("bert")
    Quantize().operate(model)
    before = model(**batch("bert")).logits
    where = r"bert\.encoder\.layer\.0\.intermediate\.dense: Quantize\(\) is in place"
    with pytest.raises(OrderError, match=rf"^{where}; apply GLU\(.*\) before it$"):
        apply_glu(model)
    assert torch.equal(before, model(**batch("bert")).logits)


def test_in_order_sorts_by_stage():
    quantize, alibi, glu, double = Quantize(), ALiBi(), GLU(), Double()
    assert in_order([quantize, double, alibi, glu]) == [glu, alibi, double, quantize]
    assert [stage.name for stage in sorted(Stage)] == ["STRUCTURE", "ATTENTION", "PRECISION", "QUANTIZE"]


def test_other_options_conflict():
    model = build("bert")
    apply_glu(model)
    with pytest.raises(Conflict, match="undo it before GLU"):
        apply_glu(model, intermediate_size=24)


def test_two_claims_of_one_field_conflict():
    @dataclass(repr=False, eq=False)
    class OtherBias(ALiBi):
        def edit(self, site):
            return claim(site.module, bias=print) if is_attention(site.module) else None

    model = build("bert")
    apply_alibi(model)
    with pytest.raises(Conflict, match="attention bias is taken by alibi"):
        OtherBias().operate(model)


def test_a_chain_is_all_or_nothing():
    model = nn.Linear(2, 2)
    weight = model.weight
    with pytest.raises(Conflict):
        chain(
            partial(mix, model, Halved),
            partial(take_parameter, model, "weight"),
            partial(mix, model, Halved),
        )
    assert type(model) is nn.Linear
    assert model.weight is weight


def test_one_mixin_comes_once():
    model = nn.Linear(2, 2)
    mix(model, Doubled)
    with pytest.raises(Conflict, match="DoubledLinear has Doubled already"):
        mix(model, Doubled)


@pytest.mark.slow
def test_wrapped_models_are_refused():
    with pytest.raises(SurgeryError, match="before it is wrapped in OptimizedModule"):
        apply_alibi(torch.compile(build("bert")))


def test_repr_is_the_call_that_made_it():
    assert repr(eval(repr(GLU("swiglu", 24)))) == "GLU(variant='swiglu', intermediate_size=24)"


def test_report_lists_every_edit():
    report = apply_glu(build("bert"))
    lines = str(report).splitlines()
    assert lines[0] == "GLU(variant='geglu', intermediate_size=None): 4 modules changed"
    assert "bert.encoder.layer.0.output: BertOutput -> DropoutFirstBertOutput" in lines[2]


def named(model):
    return torch.optim.AdamW(list(model.named_parameters()), lr=0.1)


def test_new_parameters_join_the_nearest_group():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    fast = [{"params": list(model["b"].parameters()), "lr": 1.0}]
    optimizer = torch.optim.SGD([{"params": list(model["a"].parameters())}, *fast], lr=0.1)
    report = Widen().operate(model, optimizer)
    slow, fast = (set(group["params"]) for group in optimizer.param_groups)
    assert slow == set(model["a"].parameters())
    assert fast == set(model["b"].parameters())
    report.undo()
    assert set(optimizer.param_groups[1]["params"]) == set(model["b"].parameters())
    assert len(list(model.parameters())) == 4


def test_several_optimizers_and_named_parameters():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    both = [named(model["a"]), named(model["b"])]
    Widen().operate(model, both)
    for optimizer, key in zip(both, "ab", strict=True):
        group = optimizer.param_groups[0]
        assert set(group["params"]) == set(model[key].parameters())
        assert len(group["param_names"]) == len(group["params"]) == 3


def test_undo_brings_optimizer_state_back():
    model = build("bert").train()
    optimizer = torch.optim.AdamW(model.parameters())
    model(**batch("bert")).loss.backward()
    optimizer.step()
    table = model.bert.embeddings.position_embeddings.weight
    momentum = optimizer.state[table]["exp_avg"].clone()
    report = apply_alibi(model, optimizers=optimizer)
    assert table not in optimizer.state
    report.undo()
    assert torch.equal(optimizer.state[table]["exp_avg"], momentum)


def test_a_frozen_or_left_out_parameter_stays_out():
    model = build("bert")
    dense = model.bert.encoder.layer[0].intermediate.dense
    dense.weight.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    apply_glu(model, optimizers=optimizer)
    assert not dense.weight.requires_grad
    members = {p for group in optimizer.param_groups for p in group["params"]}
    assert dense.weight not in members
    assert members == {p for p in model.parameters() if p.requires_grad}


def test_optimizers_of_another_model_are_said():
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    model = nn.Sequential(nn.Linear(3, 3))
    before = model[0].weight
    with pytest.raises(SurgeryError, match=r"hold no parameter of this model: where to put 0\.gain"):
        Widen().operate(model, other)
    assert model[0].weight is before
    assert not hasattr(model[0], "gain")


def test_no_effect_leaves_no_trace():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(NoEffect):
        apply_low_precision_norm(model)
    assert vars(model[0]).get("surgeries") is None
