"""Parameters and buffers under a surgery: put, taken, drawn, and given back."""

import pytest
import torch
from families import build
from torch import nn
from torch.nn import Parameter

from cadenza.algorithms import apply_glu, apply_post_training_quantization, apply_quantization_aware_training
from cadenza.quantization.training.averages import BUFFERS
from cadenza.surgery.parameters import (
    add_buffers,
    leave_to_each_rank,
    new_weight,
    replace_parameter,
    set_attributes,
    store_instead,
    take_parameter,
)


def test_a_tied_parameter_is_replaced_in_all_places_and_nowhere_else():
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)])
    model[1].weight = model[0].weight
    old, third, new = model[0].weight, model[2].weight, Parameter(torch.zeros(3, 2))
    undo = replace_parameter(model, old, new)
    assert [m.weight is new for m in model] == [True, True, False]
    undo()
    assert [m.weight is old for m in model] == [True, True, False]
    assert model[2].weight is third


def test_what_is_taken_leaves_none():
    model = nn.Linear(2, 2)
    bias = model.bias
    undo = take_parameter(model, "bias")
    assert model.bias is None
    assert list(model.state_dict()) == ["weight"]
    undo()
    assert model.bias is bias


def test_buffers_stand_in_for_a_parameter_and_go_again():
    model = nn.Linear(2, 2)
    model.register_buffer("kept", torch.ones(1))
    weight, before = model.weight, list(model.state_dict())
    undo = store_instead(model, "weight", {"weight": torch.zeros(1), "scale": torch.ones(1)})
    assert set(model.state_dict()) == {"bias", "kept", "weight", "scale"}
    assert dict(model.named_parameters()).keys() == {"bias"}
    undo()
    assert model.weight is weight
    assert list(model.state_dict()) == before
    add_buffers(model, {"more": torch.ones(1)})()
    assert list(model.state_dict()) == before


def test_attributes_get_their_values_or_their_absence_back():
    model = nn.Linear(2, 2)
    model.known = None
    undo = set_attributes(model, known=1, fresh=2)
    assert (model.known, model.fresh) == (1, 2)
    undo()
    assert model.known is None
    assert not hasattr(model, "fresh")


def ignored(model):
    return getattr(model, "_ddp_params_and_buffers_to_ignore", None)


def test_ddp_is_told_what_to_leave_alone():
    """Under torch's own name for it, beside what others told it."""
    model = nn.Linear(2, 2)
    one, two = leave_to_each_rank(model, ["a", "b"]), leave_to_each_rank(model, ["c"])
    assert ignored(model) == ["a", "b", "c"]
    one()
    assert ignored(model) == ["c"]
    two()
    assert ignored(model) is None
    model._ddp_params_and_buffers_to_ignore = ["theirs"]
    leave_to_each_rank(model, ["a"])()
    assert ignored(model) == ["theirs"]


def test_torch_reads_that_name():
    module = nn.parallel.DistributedDataParallel
    model = nn.Linear(2, 2)
    module._set_params_and_buffers_to_ignore_for_model(model, ["a"])
    assert ignored(model) == ["a"]


@pytest.mark.parametrize("technique", ["ptq", "qat"])
def test_quantized_layers_keep_ddp_from_sending_their_buffers(technique):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    if technique == "qat":
        report = apply_quantization_aware_training(model)
        names = [f"{layer}.{name}" for layer in (0, 1) for name in BUFFERS]
    else:
        report = apply_post_training_quantization(model, "int8", only=["*"], keep_original=True)
        names = [f"{layer}.{name}" for layer in (0, 1) for name in ("weight", "int8_absmax")]
    assert ignored(model) == names
    assert set(names) <= set(dict(model.named_buffers()))
    report.undo()
    assert ignored(model) is None


def test_a_draw_is_of_the_weight_it_succeeds():
    host = build("bert", initializer_range=0.5)
    like = torch.ones(3, 2, dtype=torch.bfloat16)
    torch.manual_seed(0)
    one = new_weight(host, nn.Linear, (30, 20), like=like)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(new_weight(host, nn.Linear, (30, 20), like=like), one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(new_weight(host, nn.Linear, (30, 20), like=2 * like), one)
    assert (one.shape, one.dtype, one.requires_grad) == ((30, 20), torch.bfloat16, False)
    assert one.float().std().item() == pytest.approx(0.5, rel=0.1)
    rows = new_weight(host, nn.Embedding, (30, 20), like=like.float())
    assert (rows.shape, rows.dtype) == ((30, 20), torch.float32)
    assert rows.std().item() == pytest.approx(0.5, rel=0.1)


def test_nothing_is_drawn_on_meta():
    model = build("bert").to(device="meta", dtype=torch.bfloat16)
    apply_glu(model)
    dense = model.bert.encoder.layer[0].intermediate.dense
    assert dense.weight.is_meta
    assert (dense.weight.dtype, dense.weight.shape) == (torch.bfloat16, (96, 32))
