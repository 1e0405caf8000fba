"""The engine: order, conflicts, shared modules, optimizers, reports."""

from dataclasses import dataclass

import pytest
import torch
from families import batch, build
from torch import nn
from toy_surgeries import Double, Doubled, Halve, Halved, Quantize, Widen

from cadenza.algorithms import GLU, ALiBi, apply_alibi, apply_glu, apply_low_precision_norm
from cadenza.attention.modules import is_attention
from cadenza.attention.plan import claim
from cadenza.surgery import Conflict, NoEffect, OrderError, Stage, SurgeryError, in_order, mix
from cadenza.surgery.parameters import take_parameter


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
            if is_attention(site.module):
                yield claim(site.module, positions=print)

    model = build("bert")
    apply_alibi(model)
    with pytest.raises(Conflict, match="attention positions: taken by alibi"):
        OtherBias().operate(model)


@pytest.mark.parametrize("hook", ["survey", "prepare", "edit", "finish", "late edit"])
def test_an_operation_is_all_or_nothing(hook):
    """Whatever hook raises, and however late."""
    done = []

    @dataclass(repr=False, eq=False)
    class Fails(Double):
        def step(self, name, module=None):
            if hook == name or (hook == f"late {name}" and module is model[1]):
                raise SurgeryError(hook)

        def survey(self, model):
            self.step("survey")
            return "seen"

        def prepare(self, model):
            yield take_parameter(model[0], "bias")
            done.append("prepared")
            self.step("prepare")

        def edit(self, site):
            assert site.survey == "seen"
            if isinstance(site.module, nn.Linear):
                yield take_parameter(site.module, "weight")
                yield mix(site.module, Doubled)
                done.append(site.path)
                self.step("edit", site.module)

        def finish(self, report, survey):
            assert survey == "seen"
            yield mix(report.model[0], Halved)
            done.append(len(report))
            self.step("finish")

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = dict(model.named_parameters())
    with pytest.raises(SurgeryError, match=hook):
        Fails().operate(model)
    assert {name: id(p) for name, p in model.named_parameters()} == {n: id(p) for n, p in before.items()}
    assert [type(module) for module in model] == [nn.Linear, nn.Linear]
    assert not any(vars(module).get("surgeries") for module in model.modules())
    steps = {"survey": [], "prepare": ["prepared"], "edit": ["prepared", "0"]}
    steps |= {"late edit": ["prepared", "0", "1"], "finish": ["prepared", "0", "1", 2]}
    assert done == steps[hook]


def test_one_mixin_comes_once():
    model = nn.Linear(2, 2)
    mix(model, Doubled)
    with pytest.raises(Conflict, match="Linear: double is in place already; undo it first"):
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
    assert lines[0] == (
        "GLU(variant='geglu', intermediate_size=None): 4 modules changed; "
        "2 new parameters (pass an optimizer that was made before as optimizers=)"
    )
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
    with pytest.raises(SurgeryError, match=r"hold no parameter of this model, so none can take 0\.gain"):
        Widen().operate(model, other)
    assert model[0].weight is before
    assert not hasattr(model[0], "gain")


def test_no_effect_leaves_no_trace():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(NoEffect):
        apply_low_precision_norm(model)
    assert vars(model[0]).get("surgeries") is None
