"""GLU against a plain float64 feed-forward; dropout, init, sizes."""

import pytest
import torch
from cases import CASES
from families import build
from mosaicbert_reference import gelu, layer_norm

from cadenza.algorithms import GLU, apply_glu
from cadenza.algorithms.glu import VARIANTS
from cadenza.surgery import Conflict, NoEffect, SurgeryError

FAMILIES = CASES["glu"].families
ACTIVATIONS = {
    "geglu": gelu,
    "swiglu": lambda x: x / (1 + torch.exp(-x)),
    "reglu": lambda x: x.clamp(min=0),
}


def blocks(model):
    """(first projection, second projection, dropout, callable feed-forward) of each layer."""
    for module in model.modules():
        name = type(module).__name__
        if name.endswith("FFN"):
            yield module.lin1, module.lin2, module.dropout, module
        elif name.endswith(("BertLayer", "RobertaLayer", "ElectraLayer")):
            yield module.intermediate.dense, module.output.dense, module.output.dropout, module


def stock_size(model):
    return getattr(model.config, "hidden_dim", None) or model.config.intermediate_size


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 7)])
def test_against_plain_formulas(family, variant, shape):
    model = build(family, initializer_range=0.5)  # gates of some units, where tanh isn't erf
    apply_glu(model, variant)
    first, second, _, module = next(blocks(model))
    x = torch.randn(*shape, first.in_features, requires_grad=True)
    out = module(x) if family == "distilbert" else module.feed_forward_chunk(x)
    out.square().sum().backward()

    exact = x.detach().double().requires_grad_()
    w1, w2, b2 = (p.detach().double().requires_grad_() for p in (first.weight, second.weight, second.bias))
    gate, value = (exact @ w1.T).chunk(2, -1)
    expected = (ACTIVATIONS[variant](gate) * value) @ w2.T + b2
    if family != "distilbert":
        norm = module.output.LayerNorm
        expected = layer_norm(expected + exact, norm.weight.double(), norm.bias.double())
    expected.square().sum().backward()

    def close(a, b):
        # Sums of 32 and 48 products in float32.
        assert (a.double() - b).abs().max() <= 1e-5 * max(b.abs().max(), 1)

    close(out, expected)
    close(x.grad, exact.grad)
    close(first.weight.grad, w1.grad)
    close(second.weight.grad, w2.grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_keys_and_shapes(family):
    model = build(family)
    keys = set(model.state_dict())
    projections = [second.weight for _, second, _, _ in blocks(model)]
    apply_glu(model)
    lost = keys - set(model.state_dict())
    assert set(model.state_dict()) < keys
    assert all(key.endswith(("intermediate.dense.bias", "lin1.bias")) for key in lost)
    for (first, second, _, _), projection in zip(blocks(model), projections, strict=True):
        assert first.weight.shape == (2 * stock_size(model), 32)
        assert second.weight is projection, "the output projection stays"
        assert first.bias is None


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_stands_before_the_output_projection(family):
    model = build(family).train()
    apply_glu(model)
    first, second, dropout, module = next(blocks(model))
    order = []
    for name, part in (("first", first), ("dropout", dropout), ("second", second)):
        part.register_forward_hook(lambda m, i, o, name=name: order.append((name, i[0].shape[-1])))
    module(torch.randn(1, 3, 32))
    size = stock_size(model)
    assert [entry for entry in order if entry[0] != "first"] == [("dropout", size), ("second", size)]


@pytest.mark.parametrize("family", FAMILIES)
def test_new_weights_are_drawn_by_the_models_init(family):
    model = build(family, hidden_size=256, dim=256, initializer_range=0.05)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    apply_glu(model)
    assert torch.equal(state, torch.get_rng_state()), "the global random state is left alone"
    weights = [first.weight for first, *_ in blocks(model)]
    for weight in weights:
        assert weight.std().item() == pytest.approx(0.05, rel=0.02)
        assert abs(weight.mean().item()) < 0.001
    assert not torch.equal(weights[0], weights[1]), "each layer draws its own"


@pytest.mark.parametrize("variant", ACTIVATIONS)
def test_activations_are_exact(variant):
    x = torch.linspace(-6, 6, 97, dtype=torch.float64)
    found = VARIANTS[variant]().gated(torch.stack([x, 1 + x.abs()], dim=-1))[..., 0]
    assert (found - ACTIVATIONS[variant](x) * (1 + x.abs())).abs().max() < 1e-12


SIZES = [(None, 48), (24, 24), (1, 1), (50, 50), (2 / 3, 32), (1.0, 48)]
# Fractions: 28.8, 26.4, 27.84 and 28.32 on both sides of 28; 4.8 and less are not fewer than 8.
SIZES += [(0.6, 32), (0.55, 24), (0.58, 24), (0.59, 32), (0.1, 8), (0.01, 8)]


@pytest.mark.parametrize(("size", "expected"), SIZES)
def test_intermediate_size(size, expected):
    model = build("bert")
    apply_glu(model, intermediate_size=size)
    first, second, *_ = next(blocks(model))
    assert first.weight.shape == (2 * expected, 32)
    assert second.weight.shape == (32, expected)
    assert model(torch.tensor([[4, 5, 6]])).logits.isfinite().all()


@pytest.mark.parametrize("size", [0, -8, 0.0, -0.5, 1.01, 24.0])
def test_sizes_that_are_none(size):
    right = "be a positive int or in" if size > 0 else "lie in"
    with pytest.raises(SurgeryError, match=f"intermediate_size is {size}; it must {right} "):
        GLU("geglu", size)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_size_draws_both_projections(family):
    model = build(family, hidden_size=256, dim=256, initializer_range=0.05)
    biases = [second.bias for _, second, *_ in blocks(model)]
    apply_glu(model, intermediate_size=120)
    for (first, second, *_), bias in zip(blocks(model), biases, strict=True):
        assert (first.weight.shape, second.weight.shape) == ((240, 256), (256, 120))
        assert second.weight.std().item() == pytest.approx(0.05, rel=0.02)
        assert (first.in_features, first.out_features) == (256, 240)
        assert (second.in_features, second.out_features) == (120, 256)
        assert second.bias is bias


def test_every_option_arrives():
    model = build("bert")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    report = apply_glu(model, "reglu", 24, optimizers=optimizer)
    assert report.surgery == repr(GLU("reglu", 24)) == "GLU(variant='reglu', intermediate_size=24)"
    assert report.undos.optimizers == (optimizer,)
    stock = "GLU(variant='geglu', intermediate_size=None)"
    assert apply_glu(build("bert")).surgery == repr(GLU()) == stock


def test_two_thirds_keep_the_parameter_count():
    stock, model = build("bert"), build("bert")
    apply_glu(model, intermediate_size=2 / 3)
    count = sum(p.numel() for p in model.parameters()) / sum(p.numel() for p in stock.parameters())
    assert count == pytest.approx(1, abs=0.01)


def test_what_does_not_fit_is_said():
    with pytest.raises(SurgeryError, match="'gelu'; it must be geglu, swiglu or reglu"):
        apply_glu(build("bert"), "gelu")
    with pytest.raises(NoEffect, match="found nothing to change in LlamaForCausalLM"):
        apply_glu(build("llama"))
    with pytest.raises(SurgeryError, match="pass the whole model"):
        apply_glu(build("bert").bert.encoder.layer[0].intermediate)
    model = build("bert")
    apply_glu(model)
    with pytest.raises(Conflict, match=r"GLU\(variant='geglu', intermediate_size=None\) is in place"):
        apply_glu(model, "swiglu")
    assert type(model.bert.encoder.layer[0].intermediate).act == "gelu"
