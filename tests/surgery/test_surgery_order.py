"""Which surgeries may follow which, and what a surgery meets: hosts, wrappers, other algorithms."""

from dataclasses import dataclass

import pytest
from composer.algorithms import GradientClipping
from families import build
from torch import nn
from toy_surgeries import Double, Halve, Quantize, Widen

from cadenza.algorithms import MaskingSchedule
from cadenza.surgery import NoEffect, OrderError, Stage, Surgery, SurgeryError, in_order, sites


def test_other_algorithms_come_last_as_listed():
    one, two, quantize, halve, double = (
        MaskingSchedule(),
        GradientClipping("norm", 1.0),
        Quantize(),
        Halve(),
        Double(),
    )
    assert in_order([one, quantize, halve, two, double]) == [halve, double, quantize, one, two]


@pytest.mark.parametrize(
    "name", ["DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "OptimizedModule"]
)
def test_models_are_refused_by_the_name_of_their_wrapper(name):
    wrapped = type(name, (nn.Sequential,), {})(nn.Linear(2, 2))
    with pytest.raises(SurgeryError, match=f"before it is wrapped in {name}, not after"):
        Double().operate(wrapped)
    assert type(wrapped[0]) is nn.Linear


@dataclass(repr=False, eq=False)
class Elsewhere(Halve):
    stage = Stage.ATTENTION


def test_structure_may_come_after_what_is_not_quantized_and_go_before_it():
    model = nn.Sequential(nn.Linear(2, 9))
    Elsewhere().operate(model)
    report = Widen().operate(model)
    report.undo()
    assert list(model[0].surgeries) == ["Elsewhere"]
    widened = Widen().operate(model)
    quantized = Quantize().operate(model)
    with pytest.raises(OrderError, match=r"^0: Quantize\(\) is in place; undo it before Widen\(\)$"):
        widened.undo()
    assert len(widened) == 1
    quantized.undo()
    widened.undo()
    Quantize().operate(model)
    with pytest.raises(OrderError, match=r"^0: Quantize\(\) is in place; apply Widen\(\) before it$"):
        Widen().operate(model)


def test_a_surgery_has_to_say_what_it_edits():
    with pytest.raises(NotImplementedError):
        Mute().operate(nn.Linear(2, 2))
    assert not Surgery.keeps_outputs
    assert Surgery.required_on_load()
    assert Surgery().strict


def test_the_host_is_the_outermost_model():
    model = nn.ModuleDict({"wrapped": build("bert", num_hidden_layers=1), "beside": nn.Linear(2, 2)})
    hosts = {site.path: site.host for site in sites(model)}
    assert hosts.pop("") is None
    assert hosts.pop("beside") is None
    assert all(host is model["wrapped"] for host in hosts.values())
    alone = {site.path: site.host for site in sites(model["wrapped"])}
    assert all(host is model["wrapped"] for host in alone.values())
    with pytest.raises(NoEffect, match=r"found nothing to change in BertForMaskedLM, LlamaForCausalLM$"):
        Missing().operate(nn.ModuleList([build("llama"), build("bert")]))


@dataclass(repr=False, eq=False)
class Missing(Double):
    def edit(self, site):
        return iter(())


@dataclass(repr=False, eq=False)
class Mute(Surgery):
    stage = Stage.PRECISION
