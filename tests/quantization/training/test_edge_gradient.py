"""The gradient at the ends of the range: that of a clip whose ties are halved, written plainly in float64."""

import pytest
import torch
from quantized_reference import plain_codes
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.quantization.training.fake_quantize import EPSILON, quantize, scale_of
from cadenza.surgery import SurgeryError


class Floor(torch.autograd.Function):
    """Rounds down; the gradient passes through."""

    @staticmethod
    def forward(ctx, x):
        return x.floor()

    @staticmethod
    def backward(ctx, grad):
        return grad


def clip(x, low, high):
    """JAX's: two comparisons, and torch's `maximum` halves a tie as JAX's does."""
    return torch.minimum(torch.maximum(x, torch.tensor(low).to(x)), torch.tensor(high).to(x))


def plain(x, bound, bits, signed):
    """AQT's order: signed numbers are clipped, then rounded; unsigned ones are rounded down, then clipped."""
    if signed:
        most = 2.0 ** (bits - 1) - 1
        scale = most / (bound + EPSILON)
        return Floor.apply(clip(x * scale, -most, most) + 0.5) / scale
    scale = 2.0**bits / (bound + EPSILON)
    return clip(Floor.apply(x * scale), 0.0, 2.0**bits - 1) / scale


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("shape", [(400,), (7, 3, 5, 1)])
def test_half_equals_a_clip_with_halved_ties(bits, signed, shape):
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x.view(-1)[:3] = torch.tensor(
        [0.0, 1.0, -1.0]
    ).double()  # with a bound of 1 - EPSILON the last two lie on it
    bound = torch.tensor([1 - EPSILON], dtype=torch.float64)
    grad = torch.randn(shape, generator=generator, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = quantize(ours, scale_of(bound, bits, signed), bits, signed, "half")
    expected = plain(theirs, bound, bits, signed)
    out.backward(grad)
    expected.backward(grad)
    assert torch.allclose(out, expected, rtol=1e-12)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12, atol=0)
    full = x.clone().requires_grad_()
    again = quantize(full, scale_of(bound, bits, signed), bits, signed)
    again.backward(grad)
    assert torch.equal(again, out), "outputs are the same"
    assert (full.grad != ours.grad).any(), "gradients aren't"


def test_which_codes_have_half_a_gradient():
    scale = scale_of(torch.tensor([1.0 - EPSILON]), 2, signed=False)  # a quarter
    x = torch.tensor([-0.1, 0.0, 0.1, 0.25, 0.6, 0.75, 0.99, 1.0, 1.3], requires_grad=True)
    quantize(x, scale, 2, False, "half").sum().backward()
    assert x.grad.tolist() == [0, 0.5, 0.5, 1, 1, 0.5, 0.5, 0, 0]
    scale = scale_of(torch.tensor([1.0 - EPSILON]), 2, signed=True)
    y = torch.tensor([-1.1, -1.0, -0.9, 0.0, 0.9, 1.0, 1.1], requires_grad=True)
    quantize(y, scale, 2, True, "half").sum().backward()
    assert y.grad.tolist() == [0, 0.5, 1, 1, 1, 0.5, 0]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 33), nn.ReLU(), nn.Linear(33, 5))


def test_layers_have_it_by_the_option():
    """A linear layer behind a ReLU: its input's gradient, in float64 by hand."""
    model, x = network().double(), torch.randn(40, 9, dtype=torch.float64)
    apply_quantization_aware_training(model, None, 3, None, edge_gradient="half")
    entering = torch.rand(40, 33, dtype=torch.float64) * torch.randint(0, 2, (40, 33))
    model(x)
    set_activation_bounds(model)
    layer = model[2]
    bound = (layer.input_scale() * 2**3 - EPSILON).double()
    ours, theirs = entering.clone().requires_grad_(), entering.clone().requires_grad_()
    layer(ours).sum().backward()
    nn.functional.linear(plain(theirs, bound, 3, False), layer.weight, layer.bias).sum().backward()
    # The scale is float32, so a number at the edge of two codes may fall on either side.
    assert (ours.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()
    layer.edge_gradient = "full"
    full = entering.clone().requires_grad_()
    layer(full).sum().backward()
    assert (full.grad - theirs.grad).norm() > 0.1 * theirs.grad.norm(), "the comparison can fail"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_its_dtype_and_the_shares(dtype):
    x = torch.rand(4, 33, generator=torch.Generator().manual_seed(1)).to(dtype)
    scale, grads = scale_of(torch.tensor([0.7]), 4, signed=False), []
    for each in (x, x.float()):
        leaf = each.clone().requires_grad_()
        quantize(leaf, scale, 4, False, "half").sum().backward()
        grads.append(leaf.grad)
    assert grads[0].dtype == dtype
    assert torch.equal(grads[0].float(), grads[1]), "shares are 0, a half and 1, which no cast rounds"


def test_an_unknown_one():
    with pytest.raises(SurgeryError, match="edge_gradient is 'none'; it must be full or half"):
        apply_quantization_aware_training(network(), edge_gradient="none")


def test_plain_codes_of_the_other_reference_are_the_same():
    x, bound = torch.linspace(-2, 2, 401, dtype=torch.float64), torch.tensor([1.25], dtype=torch.float64)
    for signed in (True, False):
        whole, step = plain_codes(x, bound, 4, signed)
        assert torch.allclose(plain(x, bound, 4, signed), whole * step, atol=1e-12)
