"""GLU against a plain float64 feed-forward; dropout, init, sizes."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from families import build
from mosaicbert_reference import gelu, layer_norm

from cadenza.algorithms import apply_glu
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
    model = build(family)
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


@pytest.mark.parametrize(("size", "expected"), [(None, 48), (24, 24), (2 / 3, 32), (1.0, 48)])
def test_intermediate_size(size, expected):
    model = build("bert")
    apply_glu(model, intermediate_size=size)
    first, second, *_ = next(blocks(model))
    assert first.weight.shape == (2 * expected, 32)
    assert second.weight.shape == (32, expected)
    assert model(torch.tensor([[4, 5, 6]])).logits.isfinite().all()


def test_two_thirds_keep_the_parameter_count():
    stock, model = build("bert"), build("bert")
    apply_glu(model, intermediate_size=2 / 3)
    count = sum(p.numel() for p in model.parameters()) / sum(p.numel() for p in stock.parameters())
    assert count == pytest.approx(1, abs=0.01)


def test_what_does_not_fit_is_said():
    with pytest.raises(SurgeryError, match="'gelu' is not one of geglu, swiglu, reglu"):
        apply_glu(build("bert"), "gelu")
    with pytest.raises(NoEffect, match="found nothing to change in LlamaForCausalLM"):
        apply_glu(build("llama"))
    with pytest.raises(SurgeryError, match="pass the whole model"):
        apply_glu(build("bert").bert.encoder.layer[0].intermediate)
    model = build("bert")
    apply_glu(model)
    with pytest.raises(Conflict, match=r"GLU\(variant='geglu', intermediate_size=None\) is in place"):
        apply_glu(model, "swiglu")
    assert F.gelu is type(model.bert.encoder.layer[0].intermediate).act
