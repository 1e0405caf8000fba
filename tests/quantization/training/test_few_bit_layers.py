"""A linear layer in few bits: options, what its checkpoints may hold, outliers, and what it says."""

import sys

import pytest
import torch
import torch.nn.functional as F
from families import build
from few_bits import layer, matrix
from torch import nn

from cadenza.algorithms import PostTrainingQuantization, apply_post_training_quantization
from cadenza.quantization.stored.elements import E2M1, E4M3, UINT4
from cadenza.quantization.stored.formats import FORMATS, FourBit, Int8
from cadenza.quantization.stored.grouped import Grouped
from cadenza.surgery import SurgeryError

DEFAULTS = "PostTrainingQuantization(format='nf4', only=None, except_=None, compute_dtype=None)"


def test_defaults():
    assert repr(PostTrainingQuantization()) == DEFAULTS
    report = apply_post_training_quantization(nn.Linear(64, 2))
    assert report.surgery == DEFAULTS
    with pytest.raises(SurgeryError, match="the weights weren't kept"):
        report.undo()
    model = nn.Linear(64, 2)
    with pytest.raises(SurgeryError, match="the weights weren't kept"):
        PostTrainingQuantization().operate(model).undo()


def test_the_functional_form_passes_every_option():
    options = ("fp4-dq", ["*"], ["1"], "float16")
    model = nn.Sequential(nn.Linear(64, 2), nn.Linear(2, 2, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    report = apply_post_training_quantization(model, *options, True, optimizers=optimizer)
    assert report.surgery == repr(PostTrainingQuantization(*options))
    assert report.surgery.endswith("(format='fp4-dq', only=['*'], except_=['1'], compute_dtype='float16')")
    assert len(optimizer.param_groups[0]["params"]) == 2
    report.undo()
    assert type(model[0]) is nn.Linear
    assert len(optimizer.param_groups[0]["params"]) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_each_compute_dtype(dtype):
    linear, _ = layer("nf4", compute_dtype=dtype)
    x = matrix((4, 65))
    low = getattr(torch, dtype)
    expected = F.linear(x.to(low), linear.dequantized(low)) + linear.bias.to(low)
    assert torch.equal(linear(x), expected.float())


def test_formats_are_what_they_are_called():
    assert {
        "nf4": FourBit("nf4", False),
        "nf4-dq": FourBit("nf4", True),
        "fp4": FourBit("fp4", False),
        "fp4-dq": FourBit("fp4", True),
        "int8": Int8(),
        "int4": Grouped("int4", UINT4, 128, torch.bfloat16, per_tensor=False),
        "mxfp4": Grouped("mxfp4", E2M1, 32, torch.float8_e8m0fnu, per_tensor=False),
        "nvfp4": Grouped("nvfp4", E2M1, 16, torch.float8_e4m3fn, per_tensor=True),
        "fp8": Grouped("fp8", E4M3, None, torch.float32, per_tensor=False),
    } == FORMATS
    assert [name for name, form in FORMATS.items() if getattr(form, "nested", None)] == ["nf4-dq", "fp4-dq"]


def test_the_library_is_asked_for_before_anything_changes(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    model = nn.Linear(64, 2)
    with pytest.raises(SurgeryError, match=r"pip install 'cadenza\[quantization\]'"):
        apply_post_training_quantization(model)
    assert type(model) is nn.Linear


def test_other_layers_are_spared_beside_those_of_the_user():
    surgery = PostTrainingQuantization("int8", ["*"], ["a"], "float16", keep_original=True)
    other = surgery.excluding(["b", "c"])
    assert repr(other) == repr(PostTrainingQuantization("int8", ["*"], ["a", "b", "c"], "float16"))
    assert other.keep_original
    assert PostTrainingQuantization().excluding(["b"]).except_ == ["b"]
    assert repr(surgery.excluding([])) == repr(surgery)
    assert surgery.except_ == ["a"]


@pytest.mark.parametrize("value", [6.0, 5.75])
def test_outliers_are_features_of_six_and_more(value):
    """Rounded to int8 with the others, they would take the others' bits: 5.75 / 127 is above all of those."""
    linear, weight = layer("int8", (48, 64), bias=False)
    x = 0.01 * matrix((5, 64), seed=3).sign()
    x[:, 7] = value
    small = linear.eval()(x).double() - x[:, 7:8].double() * weight[:, 7]
    exact = x.double().index_fill(1, torch.tensor([7]), 0.0) @ weight.T
    lost = (small - exact).norm() / exact.norm()
    assert (lost < 0.2) if value == 6.0 else (lost > 0.8)


def test_the_input_is_left_as_it_is():
    """Also for autograd: the library puts outliers aside and back in its input, which counts as a change."""
    linear, _ = layer("int8", (48, 64), bias=False)
    x = matrix((5, 64)).half()
    x[2, 7] = -30.0
    before, version = x.clone(), x._version
    linear.eval()(x)
    assert torch.equal(x, before)
    assert x._version == version


def test_errors_of_weights():
    linear, weight = nn.Linear(64, 8), matrix((8, 64))
    linear.weight.data.copy_(weight)
    apply_post_training_quantization(linear, "int8")
    wrong = (linear.dequantized() - weight).norm() / weight.norm()
    assert linear.weight_error == pytest.approx(wrong.item(), rel=1e-6)
    assert f"64, out_features=8, bias=True, int8, 8.50 bits a weight, error {wrong:.2%})" in str(linear)
    zeros = nn.Linear(64, 8)
    zeros.weight.data.zero_()
    apply_post_training_quantization(zeros, "nf4")
    assert zeros.weight_error == 0.0
    with torch.device("meta"):
        meta = nn.Linear(64, 8)
        apply_post_training_quantization(meta, "nf4")
    assert str(meta).endswith("nf4, 4.50 bits a weight)")


@pytest.mark.parametrize("name", ["nf4", "int8"])
def test_float64_weights_are_packed_as_float32(name):
    one, two = nn.Linear(64, 8), nn.Linear(64, 8).double()
    two.load_state_dict({key: value.double() for key, value in one.state_dict().items()})
    for linear in (one, two):
        apply_post_training_quantization(linear, name)
    assert torch.equal(one.dequantized(), two.dequantized())
    assert two.bytes_before == 2 * one.bytes_before == 2 * 4 * 512


def state_of(linear):
    return {key: value.clone() for key, value in linear.state_dict().items()}


SPOILED = {
    "another dtype": lambda s: s.update({"0.nf4_absmax": s["0.nf4_absmax"].float()}),
    "another shape": lambda s: s.update({"0.nf4_absmax": s["0.nf4_absmax"][:-1]}),
    "codes of another shape": lambda s: s.update({"0.weight": s["0.weight"][:-1]}),
    "no statistics": lambda s: s.pop("0.nf4_absmax"),
    "no codes": lambda s: s.pop("0.weight"),
    "one more": lambda s: s.update({"0.more": torch.ones(1)}),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("strict", [True, False])
def test_all_that_makes_the_weight_or_nothing(spoil, strict):
    mine, other = (nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 2)) for _ in range(2))
    for model in (mine, other):
        apply_post_training_quantization(model, "nf4")
    before, state = mine[0].dequantized(), state_of(other)
    spoil(state)
    with pytest.raises(RuntimeError, match=r"0 is in nf4, made of 0\.weight, 0\.nf4_absmax; found 0\."):
        mine.load_state_dict(state, strict=strict)
    assert torch.equal(mine[0].dequantized(), before)


def test_kind_and_shape_are_told():
    mine = nn.Sequential(nn.Linear(64, 8))
    apply_post_training_quantization(mine, "nf4", only=["*"])
    said = r"; found 0\.weight \(torch\.float32, \(8, 64\)\), 0\.extra \(torch\.int64, \(\)\)"
    with pytest.raises(RuntimeError, match=said):
        mine.load_state_dict({"0.weight": torch.zeros(8, 64), "0.extra": torch.tensor(1)}, strict=False)


def test_a_load_without_the_layer_is_left_to_torch():
    mine = nn.Sequential(nn.Linear(64, 8))
    apply_post_training_quantization(mine, "nf4", only=["*"])
    before = mine[0].dequantized()
    mine.load_state_dict({"0.bias": torch.ones(8)}, strict=False)
    assert torch.equal(mine[0].bias, torch.ones(8))
    assert torch.equal(mine[0].dequantized(), before)
    with pytest.raises(RuntimeError, match="Missing key"):
        mine.load_state_dict({"0.bias": torch.ones(8)})


def test_what_is_left_is_listed_where_it_was_asked_for():
    model = build("llama", num_hidden_layers=1)
    report = apply_post_training_quantization(model, "int8", except_=["lm_head"])
    assert report.skipped == {}
    again = apply_post_training_quantization(model, "int8", except_=["lm_head"])
    assert (len(again), again.already) == (0, 7)
