"""The product of gate and value, in Triton's interpreter on a CPU and compiled on a GPU, against float64."""

import pytest
import torch
import torch.nn.functional as F
from devices import off, on_devices
from families import build

from cadenza.algorithms import apply_glu
from cadenza.fused import gated as module
from cadenza.fused.gated import gated, gated_product, gated_product_backward
from cadenza.surgery import runtime
from cadenza.surgery.runtime import triton_runs

SHAPES = [(3, 5, 66), (2, 2048), (7, 6), (0, 8)]


def plain(projected, act):
    """`gated`, spelled out."""
    gate, value = projected[..., : projected.shape[-1] // 2], projected[..., projected.shape[-1] // 2 :]
    curve = {
        "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
        "silu": lambda x: x / (1 + torch.exp(-x)),
        "relu": lambda x: x * (x > 0),
    }
    return curve[act](gate) * value


def drawn(shape, dtype, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(shape, generator=generator)).to(dtype).to(device)


@on_devices
@pytest.mark.parametrize("act", module.ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_product_and_its_gradient(device, act, shape):
    """In float32 in the interpreter; on a GPU in bfloat16, rounded once."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    ours = drawn(shape, dtype, device).requires_grad_()
    theirs = ours.detach().cpu().double().requires_grad_()
    upstream = drawn((*shape[:-1], shape[-1] // 2), dtype)
    output, expected = gated_product(ours, act), plain(theirs, act)
    output.backward(upstream.to(device))
    expected.backward(upstream.double())
    assert output.shape == expected.shape
    if len(ours):
        assert off(output, expected) < torch.finfo(dtype).eps
        assert off(ours.grad, theirs.grad) < torch.finfo(dtype).eps


@pytest.mark.parametrize("act", module.ACTIVATIONS)
def test_elsewhere_torch_computes_it(act, monkeypatch):
    monkeypatch.setattr(module, "gated_product", lambda *_: pytest.fail("for CUDA alone"))
    x = drawn((3, 5, 66), torch.float64).requires_grad_()
    assert (gated(x, act) - plain(x, act)).abs().max() < 1e-12
    assert torch.autograd.gradgradcheck(
        lambda x: gated(x, act), drawn((2, 6), torch.float64).requires_grad_()
    )


@pytest.mark.parametrize("act", module.ACTIVATIONS)
def test_numbers_that_are_none(act):
    """As in torch a gate that isn't a number isn't hidden."""
    x = torch.tensor([[torch.nan, -0.0, 1.0, 1.0, 1.0, torch.nan]])
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    for each, function in ((ours, gated_product), (theirs, gated)):
        function(each, act).nansum().backward()
    assert torch.equal(gated_product(x, act).isnan(), gated(x, act).isnan())
    assert torch.allclose(ours.grad, theirs.grad, equal_nan=True)


def test_under_transforms_torch_computes_it(monkeypatch):
    monkeypatch.setattr(module, "_fuses", lambda *_: True)
    x = drawn((2, 6), torch.float64)
    _, ours = torch.func.jvp(lambda x: gated(x, "gelu"), (x,), (torch.ones_like(x),))
    _, theirs = torch.func.jvp(lambda x: plain(x, "gelu"), (x,), (torch.ones_like(x),))
    assert torch.allclose(ours, theirs)
    assert torch.func.grad(lambda x: gated(x, "gelu").sum())(x).abs().min() > 0


def test_a_gradient_of_the_gradient_is_refused():
    x = drawn((2, 6), torch.float32).requires_grad_()
    (gradient,) = torch.autograd.grad(gated_product(x, "gelu").sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="gated_product_backward"):
        torch.autograd.grad(gradient.sum(), x)


def test_torch_finds_no_fault_in_the_operators():
    x = drawn((3, 66), torch.float32).requires_grad_()
    torch.library.opcheck(gated_product, (x, "silu"))
    torch.library.opcheck(gated_product_backward, (x.detach()[:, :33], x.detach(), "silu"))


@pytest.mark.slow
@pytest.mark.parametrize("fuses", [False, True])
def test_a_compiled_feed_forward_is_one_graph(fuses, monkeypatch, fresh_graphs):
    """On a CPU in the interpreter, as on CUDA but for the backend."""
    monkeypatch.setattr(module, "HALF", (torch.float32,))
    asked, device = [], "cuda" if fuses else "cpu"
    monkeypatch.setattr(runtime, "has_triton", lambda: not asked.append("triton"))
    monkeypatch.setattr(module, "triton_runs", lambda _: triton_runs(device))
    model, x = build("bert"), torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    apply_glu(model)
    part = model.bert.encoder.layer[0].intermediate
    expected = part(x)
    part.compile(fullgraph=True, backend="aot_eager")
    assert (part(x) - expected).abs().max() < 1e-6
    assert asked == (["triton"] * 2 if fuses else [])


@pytest.mark.gpu
def test_a_model_with_glu_uses_it(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "gated_product", lambda x, act: (asked.append(act), gated_product(x, act))[1])
    model = build("bert")
    apply_glu(model, "swiglu")
    model.cuda().bfloat16()(torch.ones(2, 9, dtype=torch.long, device="cuda"))
    assert asked == ["silu"] * model.config.num_hidden_layers


def test_activations_are_those_of_torch():
    assert {"gelu": F.gelu, "silu": F.silu, "relu": F.relu} == module.ACTIVATIONS
