"""Weights and activations of any size: right to the format's rounding, or refused with the layer's path."""

import bitsandbytes_reference as reference
import pytest
import torch
from few_bits import matrix
from torch import nn

from cadenza.algorithms import apply_post_training_quantization
from cadenza.quantization.stored.formats import FORMATS
from cadenza.surgery import SurgeryError

# The largest error of a row of normal numbers: half a step of integers, the widest gaps of others.
ROUNDING = {"nf4": 0.15, "nf4-dq": 0.15, "fp4": 0.2, "fp4-dq": 0.2, "int8": 0.015}
ROUNDING |= {"int4": 0.15, "mxfp4": 0.2, "nvfp4": 0.15, "fp8": 0.04}
every_format = pytest.mark.parametrize("name", FORMATS)


def quantized(weight, name):
    linear = nn.Linear(*weight.shape[::-1], bias=False).to(weight.dtype)
    linear.weight.data.copy_(weight)
    apply_post_training_quantization(linear, name, only=["*"])
    return linear.eval()


def row_errors(found, exact):
    return ((found - exact).norm(dim=1) / exact.norm(dim=1)).max().item()


@every_format
@pytest.mark.parametrize("scale", [1e-37, 1e-9, 1e-6, 1e5, 1e30])
def test_weights_of_any_size(name, scale):
    weight = matrix((8, 128)) * scale
    assert row_errors(quantized(weight, name).dequantized(torch.float64), weight.double()) < ROUNDING[name]


@every_format
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 1e-20), (torch.float16, 1e-4)])
def test_weights_in_low_precision(name, dtype, scale):
    weight = (matrix((8, 128)) * scale).to(dtype)
    assert row_errors(quantized(weight, name).dequantized(torch.float64), weight.double()) < ROUNDING[name]


@pytest.mark.parametrize(
    "name", ["nf4", "fp4", "int8", "int4", "mxfp4", "fp8"]
)  # others have one number for all
def test_rows_of_different_sizes(name):
    weight = matrix((8, 128)) * torch.logspace(-9, 6, 8)[:, None]
    assert row_errors(quantized(weight, name).dequantized(torch.float64), weight.double()) < ROUNDING[name]


def test_rows_in_the_range_of_float16_are_those_of_the_library():
    weight = matrix((6, 128)) * torch.tensor([1e-9, 1e-4, 1.0, 1e4, 0.0, 1e6])[:, None]
    linear = quantized(weight, "int8")
    codes, absmax = reference.rowwise_int8(weight[1:5])
    assert torch.equal(linear._buffers["weight"][1:5, :, 0], codes)
    assert torch.equal(linear.int8_absmax[1:5].view(torch.float32), absmax)


@every_format
def test_a_constant_weight_is_exact(name):
    weight = torch.full((8, 128), 0.5)
    rounded = {"int4": 2**-8}.get(name, 0.0)  # bfloat16 holds no 0.5 / 15
    assert torch.allclose(quantized(weight, name).dequantized(), weight, rtol=rounded, atol=0)


@every_format
@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_weights_that_float32_cannot_hold_are_refused(name, scale):
    model = nn.Sequential(nn.Linear(128, 8), nn.Linear(8, 2)).double()
    model[0].weight.data.copy_(matrix((8, 128)).double() * scale)
    with pytest.raises(
        SurgeryError, match=r"^0: .*(can't hold its weight|isn't finite everywhere in float32)"
    ):
        apply_post_training_quantization(model, name)
    assert type(model[0]) is nn.Linear


def test_a_mean_beyond_float32_is_refused():
    with pytest.raises(SurgeryError, match="nf4-dq can't hold its weight, of absolute values up to 3"):
        quantized(torch.full((8, 128), 3e38), "nf4-dq")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_format
def test_activations_of_any_size(name, dtype, training):
    linear = quantized(matrix((16, 128)), name).train(training)
    weight = linear.dequantized(torch.float64)
    for scale in (1e-30, 1e-12, 1e-6, 1e-3, 1e3, 1e5, 1e30):
        x = (matrix((4, 128), seed=1) * scale).to(dtype)
        assert row_errors(linear(x).double(), x.double() @ weight.T) < 0.02, scale


def test_tiny_rows_beside_outliers():
    linear = quantized(matrix((16, 128)), "int8")
    x = matrix((4, 128), seed=1)
    x[0] *= 1e-9
    x[2, 7] = 30.0
    assert row_errors(linear(x).double(), x.double() @ linear.dequantized(torch.float64).T) < 0.02


def test_what_is_not_a_number_stays_so():
    linear = quantized(matrix((16, 128)), "int8")
    x = matrix((4, 128))
    x[1, 3] = torch.nan
    assert linear(x).isnan().all(1).tolist() == [False, True, False, False]
