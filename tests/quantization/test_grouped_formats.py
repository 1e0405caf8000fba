"""int4, mxfp4, nvfp4 and fp8 against loops over groups: codes bit by bit, bounds of errors, extremes."""

import sys

import grouped_reference as reference
import pytest
import torch
from few_bits import layer, matrix
from torch import nn

from cadenza.algorithms import apply_post_training_quantization
from cadenza.quantization.stored.elements import E2M1, E4M3, UINT4
from cadenza.quantization.stored.formats import FORMATS
from cadenza.quantization.stored.grouped import Grouped
from cadenza.surgery import SurgeryError

GROUPED = tuple(reference.GROUP)
every_format = pytest.mark.parametrize("name", GROUPED)
SHAPES = [(33, 65), (100, 7), (1, 1), (5, 64), (30, 130), (8, 256)]


def test_these_are_the_grouped_ones():
    assert tuple(name for name, form in FORMATS.items() if isinstance(form, Grouped)) == GROUPED
    assert all(FORMATS[name].name == name for name in GROUPED)


@every_format
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_and_statistics(name, dtype, shape):
    weight = matrix(shape, dtype)
    codes, statistics, whole, expected = reference.packed(name, weight)
    stored = FORMATS[name].pack(weight)
    assert tuple(stored) == ("weight", *reference.STATISTICS[name])
    assert not any(tensor.is_floating_point() for tensor in stored.values())
    found = stored[f"{name}_scale"].flatten()
    if name == "fp8":
        assert torch.equal(stored["weight"][..., 0].long(), codes)
        assert found.view(torch.float32).tolist() == [s[0] for s in statistics]
    else:
        assert torch.equal(stored["weight"][:, 0], reference.nibbles(codes))
    if name == "int4":
        assert found.view(torch.bfloat16).tolist() == [s[0] for s in statistics]
        zeros = reference.nibbles(torch.tensor([s[1] for s in statistics]))
        assert torch.equal(stored["int4_zero_point"][:, 0], zeros)
    if name in ("mxfp4", "nvfp4"):
        assert found.tolist() == [s[0] for s in statistics]
    if name == "nvfp4":
        assert stored["nvfp4_tensor_scale"].view(torch.float32) == whole
    unpacked = FORMATS[name].unpack(tuple(stored.values()), weight.shape, torch.float64)
    assert torch.allclose(unpacked, expected, rtol=2**-23, atol=0)


def test_e2m1_is_two_bits_of_exponent_and_one_of_mantissa():
    """Bias 1; torch names the type, and its layout of two in a byte, but casts to it nowhere."""
    values = [((code & 1) / 2 + (code >= 2)) * 2.0 ** (max(code >> 1, 1) - 1) for code in range(8)]
    assert list(E2M1.values) == values == reference.E2M1
    assert list(UINT4.values) == list(range(16))


def test_ties_are_even_and_large_numbers_saturate():
    middles = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, 1e30])
    both = torch.cat([middles, -middles])
    expected = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0])
    read = E2M1.read(E2M1.store(both), both.shape)
    assert read.tolist() == torch.cat([expected, -expected]).tolist()
    beside = middles[:7].nextafter(torch.tensor(9.0)), middles[:7].nextafter(torch.tensor(0.0))
    above, below = (E2M1.read(E2M1.store(x), x.shape) for x in beside)
    assert above.tolist() == reference.E2M1[1:]
    assert below.tolist() == reference.E2M1[:7]
    whole = torch.tensor([-3.0, 0.5, 1.5, 14.5, 15.5, 99.0])
    assert UINT4.read(UINT4.store(whole), whole.shape).tolist() == [0, 0, 2, 14, 15, 15]


def test_e4m3_is_torchs():
    table = torch.tensor(reference.e4m3())
    assert torch.equal(torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float(), table)
    x = torch.cat([(table[:-1] + table[1:]) / 2, table, torch.tensor([460.0, 1e6])])
    x = torch.cat([x, -x])
    codes = E4M3.store(x)
    assert torch.equal(codes[:, 0].long(), reference.signed(x.double(), reference.e4m3(), 128))
    inside = x.abs() <= 448
    assert torch.equal(codes[inside, 0], x[inside].to(torch.float8_e4m3fn).view(torch.uint8))


@pytest.mark.parametrize(
    ("name", "shape", "bits"),
    [
        ("int4", (64, 256), 4 + (16 + 4) / 128),
        ("mxfp4", (64, 256), 4 + 8 / 32),
        ("nvfp4", (64, 256), 4 + 8 / 16 + 32 / (64 * 256)),
        ("fp8", (64, 256), 8 + 32 / 256),
        # 2145 codes and two groups of 65 a row; 66 zero points.
        ("int4", (33, 65), (1073 * 8 + 33 * 16 + 17 * 8) / 2145),
        ("mxfp4", (33, 65), (1073 * 8 + 33 * 3 * 8) / 2145),
        ("nvfp4", (33, 65), (1073 * 8 + 33 * 5 * 8 + 32) / 2145),
        ("fp8", (33, 65), 8 + 32 / 65),
    ],
)
def test_bits_a_weight(name, shape, bits):
    linear, _ = layer(name, shape)
    assert 8 * linear.stored_bytes / linear.shape.numel() == pytest.approx(bits, rel=1e-12)
    assert f"{name}, {bits:.2f} bits a weight" in str(linear)


def in_groups(name, weight):
    """(groups, group) of a matrix of whole groups, in float64."""
    return weight.double().view(-1, reference.GROUP[name] or weight.shape[1])


@every_format
def test_errors_are_within_half_a_gap_of_the_grid(name):
    """The widest gap: 2 of E2M1, 32 of E4M3, 1 of integers, in the scale.

    Beyond the largest element numbers saturate: in mxfp4 those from 6 to 8 times the scale. A scale that was
    rounded puts the largest number 2^-4 (E4M3) or 2^-9 (bfloat16) of itself beyond.
    """
    weight = matrix((64, 256))
    linear = nn.Linear(256, 64, bias=False)
    linear.weight.data.copy_(weight)
    apply_post_training_quantization(linear, name, only=["*"])
    exact, found = in_groups(name, weight), in_groups(name, linear.dequantized(torch.float64))
    top = exact.abs().amax(1, keepdim=True)
    if name == "int4":
        reach = exact.amax(1, keepdim=True).clamp(min=0) - exact.amin(1, keepdim=True).clamp(max=0)
        bound = (0.5 + 15 * 2**-9) * reach / 15 * (1 + 2**-8)
    elif name == "mxfp4":
        scale = 2 ** (top.log2().floor() - 2)
        bound = torch.maximum(scale, exact.abs() - 6 * scale)
    else:
        bound = {"nvfp4": (1 + 2**-4) * top / 6, "fp8": 16 * top / 448}[name]
    error = (found - exact).abs()
    assert (error <= bound * (1 + 2**-20)).all()
    assert error.max() > 0.4 * bound.max(), "the bound isn't far above"


@every_format
def test_zeros_stay_zeros(name):
    weight = matrix((8, 256))
    weight[:, ::3] = 0
    weight[2] = 0
    weight[4, :128] = 0
    stored = FORMATS[name].pack(weight)
    found = FORMATS[name].unpack(tuple(stored.values()), weight.shape, torch.float32)
    assert found.isfinite().all()
    assert (found[weight == 0] == 0).all()
    assert (found[2] == 0).all()


@every_format
def test_subnormal_groups_beside_others_vanish_or_keep_their_size(name):
    weight = matrix((4, 256))
    weight[1] *= 1e-42
    stored = FORMATS[name].pack(weight)
    found = FORMATS[name].unpack(tuple(stored.values()), weight.shape, torch.float64)
    assert found.isfinite().all()
    assert (found[1] - weight[1].double()).abs().max() <= weight[1].abs().max()


def test_a_small_group_of_nvfp4_has_the_smallest_scale():
    """Rounded to nearest, its scale would be 0 and so would be all its weights."""
    weight = torch.zeros(2, 16)
    weight[0, 0] = 2688.0  # the tensor's scale is 1 then
    weight[1, 0] = 6 * 2**-10.5
    stored = FORMATS["nvfp4"].pack(weight)
    assert stored["nvfp4_scale"].tolist() == [[126], [1]]
    found = FORMATS["nvfp4"].unpack(tuple(stored.values()), weight.shape, torch.float64)
    assert found[:, 0].tolist() == [2688.0, 2 * 2**-9]
    assert (found[:, 1:] == 0).all()


def test_mxfp4_saturates_what_is_near_the_next_power():
    weight = torch.zeros(1, 64)
    weight[0, 0], weight[0, 1], weight[0, 32] = 7.99, 1.0, 6.01
    stored = FORMATS["mxfp4"].pack(weight)
    found = FORMATS["mxfp4"].unpack(tuple(stored.values()), weight.shape, torch.float32)
    assert found[0, [0, 1, 32]].tolist() == [6.0, 1.0, 6.0]
    assert stored["mxfp4_scale"].tolist() == [[127, 127]]


@every_format
def test_they_need_no_library(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    linear, weight = layer(name, bias=False)
    x = matrix((4, 65)).double()
    assert (linear(x) - x @ weight.T).abs().max() < 1e-5
    with pytest.raises(SurgeryError, match=r"nf4 needs bitsandbytes: .* without it there are int4, mxfp4"):
        apply_post_training_quantization(nn.Linear(64, 8), "nf4", only="*")


@every_format
def test_a_report_says_that_products_are_simulated(name):
    report = apply_post_training_quantization(nn.Linear(64, 8), name, only="*")
    assert f"simulated: no kernel here multiplies {name}; each product unpacks the weight" in str(report)
    assert "simulated" not in str(apply_post_training_quantization(nn.Linear(64, 8), "nf4", only="*"))
