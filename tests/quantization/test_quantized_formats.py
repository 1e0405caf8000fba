"""Each format against plain PyTorch: packed values bit by bit, products and gradients in float64."""

import bitsandbytes_reference as reference
import pytest
import torch
import torch.nn.functional as F
from few_bits import TABLES, layer, matrix
from torch import nn

from cadenza.algorithms import apply_post_training_quantization
from cadenza.quantization.stored.formats import FORMATS
from cadenza.quantization.stored.grouped import Grouped

SHAPES = [(1024, 1024), (33, 65), (100, 7), (1, 1), (5, 64), (300, 130)]
OF_THE_LIBRARY = [name for name, form in FORMATS.items() if not isinstance(form, Grouped)]
every_format = pytest.mark.parametrize("name", FORMATS)
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def floats(bits):
    return bits.view(torch.float32)


def test_the_tables():
    from bitsandbytes.functional import create_dynamic_map, get_4bit_type

    assert (reference.normal_float() - reference.NF4).abs().max() < 3e-7
    assert torch.equal(reference.NF4, get_4bit_type("nf4", "cpu"))
    assert torch.equal(reference.float4(), get_4bit_type("fp4", "cpu"))
    assert torch.equal(reference.dynamic8(), create_dynamic_map())


@every_shape
@every_dtype
@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_four_bit_codes_and_statistics(name, dtype, shape):
    weight = matrix(shape, dtype)
    codes, absmax = reference.four_bit(weight, TABLES[name])
    stored = FORMATS[name].pack(weight)
    assert torch.equal(stored["weight"], codes)
    assert torch.equal(floats(stored[f"{name}_absmax"]), absmax)
    again = FORMATS[f"{name}-dq"].pack(weight)
    small, top, mean = reference.nested(absmax)
    assert torch.equal(again["weight"], codes)
    assert torch.equal(floats(again[f"nested_{name}_absmax"]), top)
    assert floats(again[f"{name}_absmax_mean"]) == mean
    # The library's 8-bit kernel looks up 2^16 steps of [-1, 1]: so near the middle of two it takes either.
    table, theirs = reference.dynamic8(), again[f"{name}_absmax"]
    step = (table[theirs.long()] - table[small.long()]).abs()
    scale = top.repeat_interleave(256)[: len(small)]
    wrong = (absmax - mean - scale * table[theirs.long()]).abs()
    assert (wrong <= scale * (step / 2 + 2**-15))[theirs != small].all()


@every_shape
@every_dtype
def test_int8_codes_and_statistics(dtype, shape):
    codes, absmax = reference.rowwise_int8(matrix(shape, dtype))
    stored = FORMATS["int8"].pack(matrix(shape, dtype))
    assert torch.equal(stored["weight"], codes[..., None])
    assert torch.equal(floats(stored["int8_absmax"]), absmax)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_THE_LIBRARY)
@every_shape
def test_the_library_packs_the_same(name, shape):
    import bitsandbytes as bnb

    weight = matrix(shape)
    stored = FORMATS[name].pack(weight)
    if name == "int8":
        theirs = bnb.nn.Int8Params(weight.clone(), requires_grad=False).to("cpu")
        assert torch.equal(theirs.CB, stored["weight"][..., 0])
        assert torch.equal(theirs.SCB, floats(stored["int8_absmax"]))
        return
    options = {"quant_type": name[:3], "compress_statistics": name.endswith("dq")}
    theirs = bnb.nn.Params4bit(weight.clone(), requires_grad=False, **options).to("cpu")
    assert torch.equal(theirs.data, stored["weight"])
    form = FORMATS[name]
    mine = form.unpack(list(stored.values()), weight.shape, torch.float32)
    assert torch.equal(bnb.functional.dequantize_4bit(theirs.data, theirs.quant_state), mine)


# Relative errors of a layer of 1024 x 1024 in PyTorch's own init, and its bytes (measured with the library).
@pytest.mark.parametrize(
    ("name", "of_weight", "of_output", "bits"),
    [
        ("nf4", 0.0913, 0.0916, 4.5),
        ("nf4-dq", 0.0913, 0.0916, 4 + 8 / 64 + 32 / (64 * 256)),
        ("fp4", 0.1110, 0.1108, 4.5),
        ("fp4-dq", 0.1110, 0.1108, 4 + 8 / 64 + 32 / (64 * 256)),
        ("int8", 0.0039, 0.0039, 8 + 32 / 1024),
        ("int4", 0.0660, 0.0660, 4 + (16 + 4) / 128),
        ("mxfp4", 0.1440, 0.1440, 4.25),
        ("nvfp4", 0.1016, 0.1016, 4.5),
        ("fp8", 0.0255, 0.0255, 8 + 32 / 1024),
    ],
)
def test_errors_and_bytes(name, of_weight, of_output, bits):
    torch.manual_seed(0)
    linear, x = nn.Linear(1024, 1024), torch.randn(128, 1024)
    exact = x @ linear.weight.detach().T
    apply_post_training_quantization(linear, name, only=["*"])
    error = (linear(x) - linear.bias - exact).norm() / exact.norm()
    assert linear.weight_error == pytest.approx(of_weight, rel=0.05)
    assert error.item() == pytest.approx(of_output, rel=0.05)
    one = 4 if name.endswith("dq") or name == "nvfp4" else 0  # of the tensor
    assert linear.stored_bytes == bits * 1024**2 / 8 + one


@every_format
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_products_and_gradients(name, shape):
    linear, weight = layer(name, shape)
    for dtype, bound in ((torch.float64, 2e-6), (torch.float32, 1e-5)):
        x = matrix((3, 2, shape[1]), seed=1).to(dtype).requires_grad_()
        grad = matrix((3, 2, shape[0]), seed=2).to(dtype)
        out = linear.train()(x)
        out.backward(grad)
        expected = F.linear(x.double(), weight, linear.bias.double())
        assert out.dtype == dtype
        assert (out - expected).abs().max() <= bound * (1 + expected.abs().max())
        back = grad.double() @ weight
        assert (x.grad - back).abs().max() <= bound * (1 + back.abs().max())
    assert not linear.weight.requires_grad
    assert torch.allclose(linear.bias.grad, 2 * matrix((3, 2, shape[0]), seed=2).sum((0, 1)), atol=1e-5)


@every_format
def test_bfloat16_leaves_weight_and_bias_as_they_are(name):
    linear, _ = layer(name)
    before = {key: value.clone() for key, value in linear.state_dict().items()}
    x = matrix((4, 65), torch.bfloat16)
    exact = linear.train()(x.float())
    assert linear(x).dtype == torch.bfloat16
    assert ((linear(x) - exact).norm() / exact.norm()) < 2**-7
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x.float()).dtype == torch.bfloat16
    assert linear.bias.dtype == torch.float32
    assert all(torch.equal(before[key], value) for key, value in linear.state_dict().items())


@every_format
@pytest.mark.parametrize("cast", ["bfloat16", "half", "double", "float"])
def test_casts_change_no_stored_number(name, cast):
    linear, _ = layer(name, bias=False)
    before = linear.dequantized()
    getattr(linear, cast)()
    assert torch.equal(before, linear.dequantized())


@every_format
def test_compute_dtype(name):
    linear, _ = layer(name, compute_dtype="bfloat16", bias=False)
    x = matrix((4, 65))
    out = linear.train()(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, F.linear(x.bfloat16(), linear.dequantized(torch.bfloat16)).float())


def test_int8_in_eval_mode_is_llm_int8():
    linear, weight = layer("int8", (48, 64), bias=False)
    x = matrix((5, 64), seed=3).clamp(-3, 3)
    x[:, 7] = 30.0
    exact = x.double() @ weight.T
    absmax = x.abs().masked_fill(x.abs() >= 6, 0).amax(1, keepdim=True).double()
    rounded = (x.double() * 127 / absmax).round().masked_fill(x.abs() >= 6, 0) * absmax / 127
    rounded[:, 7] = 30.0
    out = linear.eval()(x)
    assert (out - rounded @ weight.T).norm() < 2e-3 * exact.norm()  # float16 inside
    assert 1e-4 < (out - exact).norm() / exact.norm() < 0.01, "the outlier stays as it is"
    assert (linear.train()(x) - exact).norm() < 1e-6 * exact.norm()
    x.requires_grad_()
    linear.eval()(x).sum().backward()
    assert torch.allclose(x.grad.double(), weight.sum(0).expand_as(x), atol=1e-4)


@every_format
def test_no_rows(name):
    linear, _ = layer(name)
    assert linear.eval()(torch.empty(0, 65)).shape == (0, 33)
    assert linear.train()(torch.empty(2, 0, 65)).shape == (2, 0, 33)


@every_format
def test_rows_of_zeros(name):
    linear = nn.Linear(64, 8, bias=False)
    with torch.no_grad():
        linear.weight[3:].zero_()
    apply_post_training_quantization(linear, name, only=["*"])
    out = linear(torch.zeros(2, 64)), linear.eval()(matrix((2, 64)))
    assert (out[0] == 0).all()
    assert (out[1][:, 3:] == 0).all()
