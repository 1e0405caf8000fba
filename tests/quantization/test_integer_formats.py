"""Integers of a quantized network: bytes, keys and bounds by hand, and what a check leaves as it was."""

import pytest
import torch
from families import batch, build
from few_bits import trained
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.quantization.training.integers import check_converted, convert, load_converted, unpack
from cadenza.surgery import CheckpointError, SurgeryError


def with_weight(rows, bits):
    """A linear layer of these weights, whose activations stay as they are."""
    weight = torch.tensor(rows, dtype=torch.float32)
    layer = nn.Linear(weight.shape[1], len(weight))
    layer.weight.data.copy_(weight)
    apply_quantization_aware_training(layer, bits, None, None)
    return layer


def test_two_codes_in_a_byte_by_hand():
    integers = convert(with_weight([[1.0, -1.0, 3.0]], 3))
    assert integers.keys() == {"weight", "weight_scale", "bias"}, "of a root without a name"
    assert integers["weight"].tolist() == [(1 + 8) + 16 * (-1 + 8), (3 + 8) + 16 * 8]
    assert integers["weight_scale"].tolist() == pytest.approx([1.0])
    assert unpack(integers["weight"], (1, 3)).tolist() == [[1, -1, 3]]
    assert unpack(torch.tensor([0, 255], dtype=torch.uint8), (2, 2)).tolist() == [[-8, -8], [7, 7]]


def test_a_scale_for_each_output():
    integers = convert(with_weight([[127.0, -127.0], [0.0, 254.0]], 8))
    assert integers["weight"].tolist() == [[127, -127], [0, 127]]
    assert integers["weight_scale"].tolist() == pytest.approx([1.0, 2.0])
    assert integers["weight_scale"].dtype == torch.float32


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_four_bits_and_fewer_are_packed(bits):
    layer = with_weight([[0.3, -0.1, 0.2], [0.5, 0.1, 0.2], [0.0, -0.7, 0.1]], bits)
    packed = convert(layer)["weight"]
    found = packed.dtype, tuple(packed.shape)
    assert found == ((torch.uint8, (5,)) if bits <= 4 else (torch.int8, (3, 3)))
    other = with_weight([[1.0, 2.0, 3.0]] * 3, bits)
    load_converted(other, convert(layer))
    x = torch.randn(2, 3)
    assert torch.allclose(other(x), layer(x), atol=1e-6)


def test_a_float64_layer_keeps_its_dtype():
    layer = with_weight([[0.3, -0.1]], 8).double()
    other = with_weight([[1.0, 2.0]], 8).double()
    load_converted(other, convert(layer))
    assert other.weight.dtype == torch.float64


def spoiled(state, **changes):
    """`state` with other values under keys, or without those that are None."""
    changed = {**state, **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"0__weight": None}, "0: weight and weight_scale in the integers don't fit"),
        ({"0__weight_scale": None}, "0: weight and weight_scale in the integers don't fit"),
        (
            {"0__weight": torch.zeros(80, dtype=torch.uint8)},
            r"0\.weight is torch\.uint8, \(80,\); in 4 bits it",
        ),
        (
            {"0__weight": torch.zeros(81, dtype=torch.int8)},
            r"0\.weight is torch\.int8, \(81,\); in 4 bits it",
        ),
        ({"0__bias": None}, r"another network: 0\.bias doesn't fit"),
        ({"0__bias": torch.zeros(7)}, r"another network: 0\.bias doesn't fit"),
        ({"1__bias": torch.zeros(7)}, r"another network: 1\.bias doesn't fit"),
    ],
)
def test_integers_that_do_not_fit(changes, said):
    model = trained(4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=said):
        load_converted(model, spoiled(convert(model), **changes))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_layer_with_activations_alone_takes_no_scale_of_weights():
    model = trained(None, 4)
    integers = convert(model)
    assert {key for key in integers if key.endswith("scale")} == {f"{n}.input_scale" for n in (0, 2, 4)}
    with pytest.raises(CheckpointError, match="0: weight and weight_scale in the integers"):
        load_converted(model, {**integers, "0.weight_scale": torch.ones(6)})


def test_the_tolerance_is_of_the_largest_output():
    model = trained(4)
    x = torch.randn(3, 3, 7, 7)
    largest = model(x).abs().max().item()
    integers = convert(model)
    integers["4.bias"] = integers["4.bias"] + 1.5e-4 * largest
    with pytest.raises(SurgeryError, match=r"off by 0\.00015 of the largest output, beyond 0\.0001"):
        check_converted(model, integers, x)
    off = check_converted(model, integers, x, tolerance=2e-4)
    assert off == pytest.approx(1.5e-4, rel=0.05)
    assert check_converted(model, integers, x, tolerance=off) == off
    integers["4.bias"] = integers["4.bias"] * torch.nan
    with pytest.raises(SurgeryError, match="off by nan"):
        check_converted(model, integers, x)


def test_a_check_leaves_modes_weights_and_averages_as_they_were():
    model = trained(4).train()
    model[1].eval()  # as of a norm that is kept from learning
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    integers = convert(model)
    check_converted(model, integers, torch.randn(2, 3, 7, 7))
    with pytest.raises(RuntimeError):
        check_converted(model, integers, torch.randn(2, 4, 7, 7))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_only_shared_weights_become_a_layers_own():
    model = build("bert", tie_word_embeddings=True).train()
    model.get_input_embeddings().weight.requires_grad_(False)
    apply_quantization_aware_training(model, 8, 8)
    model(**batch("bert"))
    set_activation_bounds(model)
    inner, head = model.bert.encoder.layer[0].output.dense, model.get_output_embeddings()
    kept, shared = inner.weight, head.weight
    load_converted(model, convert(model))
    assert inner.weight is kept
    assert head.weight is not shared
    assert not head.weight.requires_grad
    assert model.get_input_embeddings().weight is shared


def test_shared_weights_that_are_not_quantized_stay_shared():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    apply_quantization_aware_training(model, None, 4)
    model(torch.randn(4, 3))
    set_activation_bounds(model)
    load_converted(model, convert(model))
    assert model[0].weight is model[1].weight
