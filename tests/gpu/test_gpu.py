"""Numbers that only a GPU shows: norms and quantizers under CUDA autocast, bitsandbytes' kernels; in float64.

What a CPU can do runs on one, too, which proves the tests themselves. Attention kernels are tested in
`test_flash_attention` and `test_anchor_kernels`.
"""

import copy

import pytest
import torch
from devices import off, on_devices
from few_bits import matrix
from norms import NORMS
from quantized_reference import Reference, made, plain_codes
from torch import nn

from cadenza.algorithms import (
    apply_low_precision_norm,
    apply_post_training_quantization,
    apply_quantization_aware_training,
    set_activation_bounds,
)
from cadenza.quantization.stored.formats import BLOCK, FORMATS, FourBit
from cadenza.quantization.training.fake_quantize import (
    EPSILON,
    quantize,
    quantize_weight,
    scale_of,
    weight_scale,
)

halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
formats = pytest.mark.parametrize("name", FORMATS)

SHAPES = [(33, 65), (100, 64), (130, 192)]  # out, in


def bound(dtype, eps):
    """So many eps of `dtype`: a rounding is 0.3 of one in the mean. In float32 hundreds are summed."""
    return torch.finfo(dtype).eps * (eps if dtype != torch.float32 else 32)


def upstream(shape, dtype):
    """A gradient to begin with."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(dtype)


def plain_norm(norm, x, weight, bias):
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    y = x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@on_devices
@halves
@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("shape", [(1, 9), (3, 5, 33), (2, 769)])
def test_norms_under_autocast(device, dtype, kind, shape):
    torch.manual_seed(0)
    norm = NORMS[kind](shape[-1])
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0, std=0.1)
    x, grad = torch.randn(shape), upstream(shape, dtype)
    rounded = [t if t is None else t.detach().to(dtype).double().requires_grad_() for t in leaves(norm, x)]
    expected = plain_norm(norm, *rounded)
    expected.backward(grad.double())
    model = nn.Sequential(norm).to(device)
    apply_low_precision_norm(model)
    ours = x.to(device).requires_grad_()
    with torch.autocast(device, dtype):
        out = model(ours)
    assert out.dtype == dtype
    out.backward(grad.to(device))
    assert off(out, expected.detach()) < bound(dtype, 1)
    for mine, exact in zip(leaves(norm, ours), rounded, strict=True):
        assert mine is None or off(mine.grad, exact.grad) < bound(dtype, 2)


def leaves(norm, x):
    return [x, norm.weight, getattr(norm, "bias", None)]


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_activations_are_rounded_to_codes(device, dtype, signed, bits):
    torch.manual_seed(0)
    x = torch.randn(5, 33, 7)
    x, limit, grad = (x if signed else x.abs()).to(dtype), torch.rand(33, 1) + 1, upstream(x.shape, dtype)
    ours = x.to(device).requires_grad_()
    out = quantize(ours, scale_of(limit.to(device), bits, signed), bits, signed)
    out.backward(grad.to(device))
    x, limit = x.double(), limit.double()
    whole, step = plain_codes(x, limit, bits, signed)
    clear = between_edges(x / step + 0.5 * signed)
    assert_close(out, whole * step, clear, 4 * torch.finfo(dtype).eps)
    inside = (x.abs() if signed else x) <= limit + EPSILON
    clear = ((x.abs() - limit).abs() > 1e-4).expand_as(x)
    assert_close(ours.grad, grad.double() * inside, clear, 0.0)
    assert not inside.all()


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_rounded_to_codes(device, dtype, bits):
    torch.manual_seed(0)
    weight, grad = torch.randn(7, 5, 3, 3).to(dtype), upstream((7, 5, 3, 3), dtype)
    ours = weight.to(device).requires_grad_()
    out = quantize_weight(ours, weight_scale(ours, bits), bits)
    out.backward(grad.to(device))
    exact = weight.double()
    whole, step = plain_codes(exact, exact.abs().amax((1, 2, 3), keepdim=True), bits, signed=True)
    assert_close(out, whole * step, between_edges(exact / step + 0.5), 4 * torch.finfo(dtype).eps)
    assert torch.equal(ours.grad.cpu(), grad)


def between_edges(scaled):
    """Where no step that is off by a few roundings of float32 moves a number to another code."""
    clear = (scaled - scaled.round()).abs() > 1e-3
    assert clear.double().mean() > 0.9
    return clear


def assert_close(ours, theirs, where, relative):
    wrong = (ours.detach().cpu().double() - theirs).abs() > relative * theirs.abs()
    assert not (wrong & where).any()


@on_devices
@halves
@pytest.mark.parametrize("kind", ["linear", "conv2d", "grouped"])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_layer_that_trains_in_few_bits_under_autocast(device, dtype, kind, unsigned, bits):
    model, x = made(kind, torch.float32)
    x = x.abs() if unsigned else x
    plain = Reference(copy.deepcopy(model[0]).double(), bits, True, unsigned)
    apply_quantization_aware_training(model.to(device), bits, bits, None)
    model[0].never_negative = model[0].unsigned = unsigned
    for step in range(4):
        if step == 2:
            assert set_activation_bounds(model) == 1
            plain.frozen = plain.bound()
            assert off(model[0].input_scale(), bounded_step(plain, model[0])) < 1e-6
        entering = ((1 + step) * x).to(device).requires_grad_()
        with torch.autocast(device, dtype):
            out = model(entering)
        assert out.dtype == dtype
        grad = upstream(out.shape, dtype)
        model.zero_grad()
        out.backward(grad.to(device))
        if step < 2:
            plain.observe((1 + step) * x.double())
        expected = plain((1 + step) * x.double(), grad.double())
        # Input or gradient, weight and result are each rounded once, which at random adds up to half an eps.
        for ours, theirs in zip((out, entering.grad, model[0].weight.grad), expected, strict=True):
            assert off(ours, theirs) < bound(dtype, 1), step


def bounded_step(plain, layer):
    """The step that follows from a reference's bound, in the shape of the layer's."""
    levels = 2**plain.bits if plain.unsigned else 2 ** (plain.bits - 1) - 1
    return ((plain.frozen + EPSILON) / levels).double().view(layer.input_scale().shape)


def quantized(name, shape, device):
    linear = nn.Linear(*shape[::-1], bias=False)
    linear.weight.data = matrix(shape)
    linear.to(device)
    apply_post_training_quantization(linear, name, only=["*"])
    return linear


@on_devices
@formats
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_quantized_products_and_gradients(device, name, dtype, shape):
    linear = quantized(name, shape, device).train()
    weight = linear.dequantized().cpu().double()
    for rows in (1, 3, 70):
        x, grad = matrix((rows, shape[1]), dtype, seed=rows), upstream((rows, shape[0]), dtype)
        ours = x.to(device).requires_grad_()
        out = linear(ours)
        out.backward(grad.to(device))
        # The weight and the result are rounded once.
        assert off(out, x.double() @ weight.T) < bound(dtype, 1)
        assert off(ours.grad, grad.double() @ weight) < bound(dtype, 1)
        if dtype != torch.float32:
            with torch.autocast(device, dtype):
                assert torch.equal(linear(x.float().to(device)), out)


@on_devices
@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if isinstance(form, FourBit)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_four_bit_products_never_unpack_on_cuda(device, name, dtype, monkeypatch):
    linear = quantized(name, (130, 192), device)
    weight, stored = linear.dequantized().cpu().double(), linear._stored()
    if device == "cuda":
        monkeypatch.delattr(FourBit, "unpack")
    for rows in (1, 5, 33):
        x = matrix((2, rows, 192), dtype, seed=rows)
        out = FORMATS[name].product(x.to(device), stored, linear.shape)
        assert off(out, x.double() @ weight.T) < bound(dtype, 1)


@on_devices
@halves
def test_int8_in_eval_mode_keeps_outliers(device, dtype):
    linear = quantized("int8", (48, 64), device).eval()
    x = matrix((5, 64), seed=3).clamp(-3, 3)
    x[:, 7] = 30.0
    x = x.to(dtype)
    exact = x.double() @ linear.dequantized().cpu().double().T
    assert 1e-4 < off(linear(x.to(device)), exact) < 0.01


@on_devices
@formats
def test_codes_are_the_same_wherever_a_model_is_quantized(device, name):
    moved, there = quantized(name, (300, 130), "cpu").to(device), quantized(name, (300, 130), device)
    for key, ours in moved.state_dict().items():
        theirs = there.state_dict()[key]
        assert ours.device.type == theirs.device.type == device
        if ours.dtype == torch.int32:  # the bits of float32
            assert torch.allclose(ours.view(torch.float32), theirs.view(torch.float32), rtol=1e-6)
    # Zero has two codes in fp4. And the library divides with a last bit to spare, which decides on an edge of
    # two codes, of a weight or of the absmax of a block.
    ours, theirs = moved.dequantized(), there.dequantized()
    differ = (ours != theirs).flatten()
    blocks = differ[: ours.numel() // BLOCK * BLOCK].view(-1, BLOCK).any(1)
    print(f"{name}: {int(differ.sum())} weights, in {int(blocks.sum())} of {len(blocks)} blocks, differ")
    assert blocks.double().mean() < 0.01
    assert off(ours, theirs.cpu().double()) < 0.005
