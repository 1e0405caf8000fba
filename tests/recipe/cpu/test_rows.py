"""Rounded rows of linear layers: the same numbers and gradients, and products of few numbers of rows."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cadenza.recipe.cpu.autocast import bfloat16
from cadenza.recipe.cpu.rows import RoundedRows, linear


class Products(TorchDispatchMode):
    """The rows of each product, forward and backward."""

    def __init__(self):
        super().__init__()
        self.rows = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.rows |= {size for x in args[-2:] for size in x.shape}
        return func(*args, **(kwargs or {}))


def computed(function, shape, bias):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(size, generator=generator, requires_grad=True) for size in (shape, (3, 5), (3,))]
    x, weight, added = inputs if bias else [*inputs[:2], None]
    output = function(x, weight, added)
    output.float().square().sum().backward()
    return output.detach(), *(each.grad for each in inputs if each.grad is not None)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 5), (1, 63, 5), (64, 5), (2, 3, 11, 5), (5,), (0, 5)])
def test_outputs_and_gradients_are_those_of_as_many_rows(shape, bias):
    """To a rounding of bfloat16 in the gradients of weights, which are sums over the rows."""
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (computed(each, shape, bias) for each in (linear, F.linear))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        assert mine.shape == other.shape
        assert torch.allclose(
            mine, other, rtol=2**-7, atol=1e-6 + 2**-8 * float(other.abs().max() if other.numel() else 0)
        )


def test_rows_are_a_multiple_of_64_in_forward_and_backward():
    layer, seen = torch.nn.Linear(5, 3), Products()
    for rows in (1, 30, 64, 100, 127):
        with seen, bfloat16():
            loss = layer(torch.randn(rows, 5, requires_grad=True)).float().sum()
        with seen:
            loss.backward()
    assert seen.rows == {3, 5, 64, 128}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_autocast_nothing_is_rounded(dtype):
    layer, seen = torch.nn.Linear(5, 3, dtype=dtype), Products()
    with seen, RoundedRows():
        layer(torch.randn(30, 5, dtype=dtype))
    assert seen.rows == {3, 5, 30}


def test_float64_stays_float64_under_autocast():
    layer = torch.nn.Linear(5, 3).double()
    with bfloat16():
        assert layer(torch.randn(30, 5).double()).dtype == torch.float64
