"""Quantized layers under autocast, checkpointing, torch.func, tracers and on meta."""

import pytest
import torch
import torch.nn.functional as F
from few_bits import layer, matrix
from torch.utils.checkpoint import checkpoint

from cadenza.quantization.stored.formats import FORMATS
from cadenza.surgery import SurgeryError

every_format = pytest.mark.parametrize("name", FORMATS)


@every_format
@pytest.mark.parametrize("compute", ["float32", "float16"])
def test_the_compute_dtype_holds_under_autocast(name, compute):
    linear, _ = layer(name, compute_dtype=compute, bias=False)
    dtype, x = getattr(torch, compute), matrix((4, 65)).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear.train()(x)
    exact = F.linear(x.to(dtype), linear.dequantized(dtype))
    assert torch.equal(out, exact.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):  # a backward within, as some training loops have it
        out.backward(torch.ones_like(out))
    assert torch.equal(x.grad, (torch.ones(4, 33, dtype=dtype) @ linear.dequantized(dtype)).float())


def test_autocast_leaves_float64_alone():
    linear, weight = layer("nf4", bias=False)
    x = matrix((4, 65)).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear(x)
    assert out.dtype == torch.float64
    assert (out - x @ weight.T).abs().max() < 1e-5


@every_format
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(name, reentrant):
    linear, _ = layer(name)
    one, two = (matrix((4, 65)).requires_grad_() for _ in range(2))
    linear(one).square().sum().backward()
    checkpoint(linear, two, use_reentrant=reentrant).square().sum().backward()
    assert torch.equal(one.grad, two.grad)


@every_format
def test_torch_func(name):
    linear, _ = layer(name)
    linear.train()
    x = matrix((4, 65))
    expected = linear.dequantized().sum(0).expand(4, 65)
    assert torch.allclose(torch.func.grad(lambda x: linear(x).sum())(x), expected, atol=1e-5)
    jacobian = torch.func.jacrev(linear)(x[0])
    assert torch.allclose(jacobian, linear.dequantized(), atol=1e-6)
    for dim in (0, 1):
        found = torch.func.vmap(linear, in_dims=dim)(x if dim == 0 else x.T)
        assert torch.allclose(found, linear(x), atol=1e-5)


def test_codes_are_not_mapped():
    linear, _ = layer("nf4")
    stacked, x = {name: buffer[None] for name, buffer in linear.named_buffers()}, matrix((4, 65))
    with pytest.raises(SurgeryError, match="vmap over the codes"):
        torch.func.vmap(lambda buffers: torch.func.functional_call(linear, buffers, x))(stacked)


@every_format
def test_torch_jit_cannot_trace(name):
    linear, _ = layer(name)
    with pytest.raises(SurgeryError, match=r"torch\.jit\.trace can't trace a quantized layer"):
        torch.jit.trace(linear, matrix((4, 65)))


@every_format
@pytest.mark.parametrize("training", [True, False])
def test_a_call_on_meta_gives_the_shape(name, training):
    linear, _ = layer(name)
    out = linear.to("meta").train(training)(torch.empty(2, 4, 65, device="meta"))
    assert (out.shape, out.device.type) == ((2, 4, 33), "meta")
