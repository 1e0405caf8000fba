"""The techniques of modern encoders against a plain encoder in float64, forward and backward."""

import pytest
import torch
from encoder_reference import Encoder, Parts
from families import batch, build
from transformers import AutoModel

from cadenza.algorithms import (
    apply_no_bias,
    apply_pre_norm,
    apply_qk_norm,
    apply_rms_norm,
    apply_rotary,
    apply_sliding_window,
)

EVERY = ("bert", "roberta", "electra", "distilbert", "albert")
HEADS, LAYERS = 4, 3
TECHNIQUES = {
    "pre_norm": (apply_pre_norm, {}, {"pre_norm": True}),
    "rms_norm": (apply_rms_norm, {}, {"rms": True}),
    "no_bias": (apply_no_bias, {}, {"bias": False}),
    "qk_norm": (apply_qk_norm, {"eps": 1e-3}, {"qk_eps": 1e-3}),
    "rotary": (apply_rotary, {"theta": 50.0}, {"thetas": (50.0,) * LAYERS}),
}
PAIRS = [
    (family, name) for family in EVERY for name in TECHNIQUES if (family, name) != ("albert", "pre_norm")
]
LEFT = "the padding on the left; RoBERTa's learned positions count real tokens alone"


def stock(family):
    own = {"n_layers": LAYERS} if family == "distilbert" else {}
    model = build(family, auto=AutoModel, num_hidden_layers=LAYERS, attention="eager", **own)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model.double()


def reference(family, model, parts):
    """The plain encoder, and its weights by stock name."""
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    act = getattr(model.config, "hidden_act", "gelu")
    eps = getattr(model.config, "layer_norm_eps", 1e-12)
    return Encoder(family, weights, HEADS, LAYERS, Parts(**parts), act, eps), weights


def compare(family, model, parameters, plain, weights, padding, length):
    """Hidden states and gradients; `parameters` are those of the stock model by name."""
    inputs = batch(family, padding=padding, length=length)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    found = model(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = plain(ids, mask)
    probe = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    probe = probe * mask[..., None]
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-12 * expected.abs().max().item())
    for name, parameter in parameters.items():
        gradient, right = parameter.grad, weights[name].grad
        if right is None:
            assert gradient is None, f"{name} is no part of the reference"
            continue
        scale = max(right.abs().max().item(), 1.0)
        torch.testing.assert_close(
            gradient, right, rtol=0, atol=1e-11 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("family", "name"), PAIRS)
@pytest.mark.parametrize(("padding", "length"), [("right", 13), (None, 7)])
def test_equals_the_reference(family, name, padding, length):
    apply, options, parts = TECHNIQUES[name]
    model = stock(family)
    plain, weights = reference(family, model, parts)
    parameters = dict(model.named_parameters())
    apply(model, **options)
    compare(family, model, parameters, plain, weights, padding, length)


@pytest.mark.parametrize("family", EVERY)
def test_the_reference_is_the_stock_model(family):
    model = stock(family)
    plain, weights = reference(family, model, {})
    compare(family, model, dict(model.named_parameters()), plain, weights, "right", 13)


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_all_together(family, attention):
    model = stock(family)
    model.set_attn_implementation(attention)
    names = [name for name in TECHNIQUES if (family, name) in PAIRS]
    parts = {key: value for name in names for key, value in TECHNIQUES[name][2].items()}
    windows = (None, 2, None) if family != "albert" else ()
    parts |= {"windows": windows, "thetas": (50.0, 9.0, 50.0) if windows else (50.0,) * LAYERS}
    plain, weights = reference(family, model, parts)
    parameters = dict(model.named_parameters())
    for name in reversed(names):
        apply, options, _ = TECHNIQUES[name]
        apply(model, **options, **({"window_theta": 9.0} if name == "rotary" else {}))
    if windows:
        apply_sliding_window(model, 2, global_every=2)
    compare(family, model, parameters, plain, weights, "right", 13)
