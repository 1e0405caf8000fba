"""Undos after the model was cast, moved, sharded, parametrized, pruned or hooked."""

import copy
from itertools import permutations

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from families import batch, build
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from toy_surgeries import Double, Widen

from cadenza.algorithms import (
    apply_alibi,
    apply_glu,
    apply_low_precision_norm,
    apply_post_training_quantization,
    apply_quantization_aware_training,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.surgery import SurgeryError, history


def quantize(model):
    return apply_post_training_quantization(model, "nf4", keep_original=True)


TECHNIQUES = [apply_alibi, apply_glu, apply_vocab_padding, quantize, apply_quantization_aware_training]


def contents(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.parametrize("apply", TECHNIQUES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_comes_back_has_the_dtype_of_now(apply, dtype):
    model, stock = build("bert"), build("bert").to(dtype)
    report = apply(model)
    model.to(dtype)
    report.undo()
    expected = contents(stock)
    assert contents(model).keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in contents(model).items())
    model(**batch("bert"))


@pytest.mark.parametrize("apply", TECHNIQUES)
def test_what_comes_back_is_on_the_device_of_now(apply):
    model = build("bert")
    report = apply(model)
    model.to("meta")
    report.undo()
    assert {tensor.device.type for tensor in contents(model).values()} == {"meta"}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_any_order_of_undos_after_a_cast(order):
    model = build("bert")
    reports = [apply(model) for apply in (apply_vocab_padding, apply_alibi, apply_glu)]
    for cast, index in zip((torch.bfloat16, torch.float64, torch.float32), order, strict=True):
        model.to(cast)
        reports[index].undo()
        reports[index].undo()  # a second one does nothing
        assert {p.dtype for p in model.parameters()} == {cast}
    assert history(model) == []


def test_parts_of_two_dtypes_each_get_their_own():
    model = build("bert")
    report = apply_glu(model)
    model.bert.encoder.layer[1].to(torch.float64)
    report.undo()
    layers = model.bert.encoder.layer
    assert [{p.dtype for p in layer.parameters()} for layer in layers] == [{torch.float32}, {torch.float64}]


def test_a_gradient_goes_with_its_parameter():
    model = build("bert")
    model(**batch("bert")).loss.backward()
    report = apply_alibi(model)
    model.to(torch.float64)
    report.undo()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float64}


def test_a_buffer_comes_back_as_the_others_are():
    layer = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    mean = layer[0].running_mean

    def steps():
        del layer[0]._buffers["running_mean"]
        yield lambda: layer[0]._buffers.update(running_mean=mean)

    report = Double().operate(layer)
    report.undos.undo()
    report.undos.run(steps())
    layer.to(torch.float64)
    report.undos.undo()
    assert layer[0].running_mean.dtype == torch.float64


def test_values_that_were_never_there_are_not_made_up():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2))
    report = Widen().operate(model)
    model.to_empty(device="cpu")
    with pytest.raises(SurgeryError, match=r"0\.weight was on meta when it was removed"):
        report.undo()
    assert model[0].weight.shape == (9, 2)


def test_training_is_kept_by_vocab_padding_and_lost_by_glu():
    model = build("bert")
    reports = [apply_vocab_padding(model), apply_glu(model)]
    before = copy.deepcopy(build("bert"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    for report in reports:
        report.undo()
    words, dense = "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(model.get_parameter(words), before.get_parameter(words) + 1)
    assert torch.equal(model.get_parameter(dense), before.get_parameter(dense))


@pytest.mark.parametrize("apply", [apply_low_precision_norm, apply_glu, apply_vocab_padding, apply_unpadding])
def test_a_parametrization_after_a_surgery_has_to_go_first(apply):
    model = build("bert")
    report = apply(model)
    for module in list(model.modules()):
        if isinstance(module, nn.Linear | nn.Embedding | nn.LayerNorm) and module.weight is not None:
            register_parametrization(module, "weight", nn.Identity())
    changed = [type(m) for m in model.modules()]
    if apply is apply_unpadding:  # it changes the base model, which has no parametrization
        report.undo()
        return
    with pytest.raises(SurgeryError, match="parametriz"):
        report.undo()
    assert [type(m) for m in model.modules()] == changed
    for module in model.modules():
        if hasattr(module, "parametrizations") and "weight" in module.parametrizations:
            remove_parametrizations(module, "weight")
    report.undo()
    assert history(model) == []


@pytest.mark.parametrize(
    "takes", [parametrizations.weight_norm, lambda m: prune.l1_unstructured(m, "weight", 0.5)]
)
def test_a_weight_that_was_taken_away_is_missed_before_anything_is_undone(takes):
    model = nn.Sequential(nn.Linear(3, 3))
    report = Widen().operate(model)
    takes(model[0])
    with pytest.raises(SurgeryError, match="0: weight was taken away after the surgery"):
        report.undo()
    assert hasattr(model[0], "gain")


def test_a_parametrization_before_a_surgery_stays():
    model = nn.Sequential(nn.Linear(8, 8))
    parametrizations.weight_norm(model[0])
    x = torch.randn(2, 8)
    expected, before = model(x), type(model[0])
    report = Double().operate(model)
    assert torch.equal(model(x), 2 * expected)
    report.undo()
    assert type(model[0]) is before
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("apply", [apply_glu, apply_vocab_padding])
def test_a_weight_that_is_computed_cannot_be_replaced(apply):
    model = build("bert")
    for module in (model.get_input_embeddings(), model.bert.encoder.layer[0].intermediate.dense):
        parametrizations.weight_norm(module)
    inputs = batch("bert")
    expected = model(**inputs).logits.nan_to_num()  # weight norm divides a row of zeros by zero
    with pytest.raises(SurgeryError, match="computed, by a parametrization, pruning or weight norm"):
        apply(model)
    assert torch.equal(model(**inputs).logits.nan_to_num(), expected)


HOOKED = [
    apply_low_precision_norm,
    apply_unpadding,
    apply_quantization_aware_training,
    apply_sparse_prediction,
]


@pytest.mark.parametrize("apply", [*HOOKED, apply_glu, apply_vocab_padding, apply_alibi, quantize])
def test_a_forward_of_the_module_itself_is_refused(apply):
    """As accelerate's hooks set it: the class of the module has no effect."""
    model = build("bert")
    for module in list(model.modules()):
        add_hook_to_module(module, ModelHook())
    before = [type(m) for m in model.modules()]
    with pytest.raises(
        SurgeryError, match=r"its forward is set on the module itself.*remove_hook_from_module"
    ):
        apply(model)
    assert [type(m) for m in model.modules()] == before
    remove_hook_from_module(model, recurse=True)
    apply(model)


@pytest.mark.parametrize("apply", HOOKED)
def test_hooks_that_were_set_later_have_to_go_before_an_undo(apply):
    model = build("bert")
    report = apply(model)
    for module in list(model.modules()):
        add_hook_to_module(module, ModelHook())
    with pytest.raises(
        SurgeryError, match=r"its forward is set on the module itself.*undo after it is removed"
    ):
        report.undo()
    assert history(model)
    remove_hook_from_module(model, recurse=True)
    report.undo()
    assert history(model) == []


def test_a_forward_that_no_surgery_changes_may_be_anywhere():
    model = build("bert")
    model.forward = model.forward  # as Accelerator.prepare does under mixed precision
    report = apply_glu(model)
    assert report.changes
    report.undo()


@pytest.mark.parametrize("path", ["", "1"])
def test_sharded_parts_are_refused_before_and_after(path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    report = Double().operate(model)
    part = model.get_submodule(path)
    part.__class__ = type(f"FSDP{type(part).__name__}", (FSDPModule, type(part)), {})
    sharded = type(part)
    with pytest.raises(SurgeryError, match="undo surgeries on the model before it is wrapped in FSDPModule"):
        report.undo()
    with pytest.raises(
        SurgeryError, match="operate on the model before it is wrapped in FSDPModule, not after"
    ):
        Double().operate(model)
    assert type(part) is sharded
    assert torch.equal(
        model[0](torch.ones(2)), 2 * nn.functional.linear(torch.ones(2), model[0].weight, model[0].bias)
    )
