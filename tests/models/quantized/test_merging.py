"""Adapters merged into the quantized weights that they were trained on, against a reference in float64."""

import pytest
import torch
from families import batch, build
from peft import get_peft_model

from cadenza.algorithms import apply_post_training_quantization
from cadenza.models import ModelError, composer_model, merge_adapters
from cadenza.models.lora import lora_config
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import history

LORA = {"r": 4, "lora_alpha": 6, "init_lora_weights": False}
BITS = {"nf4": 0.12, "nf4-dq": 0.12, "int8": 0.01}  # more than the error of a format, less than the adapters


def adapted(format="nf4", dtype=torch.float32, **options):
    model = build("llama").to(dtype)
    apply_post_training_quantization(model, format)
    torch.manual_seed(3)
    return get_peft_model(model, lora_config({**LORA, **options}, causal=True))


def logits(model):
    with torch.no_grad():
        return model.train()(batch("llama")["input_ids"]).logits  # int8 rounds inputs in eval mode


def plain(model):
    """The merged weights in float64: W + (alpha / r) B A."""
    found = {}
    for path, layer in model.get_base_model().named_modules():
        if hasattr(layer, "lora_A"):
            a, b = (getattr(layer, name)["default"].weight.double() for name in ("lora_A", "lora_B"))
            base = layer.base_layer
            weight = base.dequantized(torch.float32) if isinstance(base, Quantized) else base.weight
            found[path] = weight.double() + LORA["lora_alpha"] / LORA["r"] * b @ a
    return found


@pytest.mark.parametrize("format", BITS)
def test_to_floating_point_nothing_is_lost(format):
    model = adapted(format)
    expected, weights = logits(model), plain(model)
    merged, report = merge_adapters(model, requantize=False)
    assert not any(isinstance(m, Quantized) or "lora" in p for p, m in merged.named_modules())
    assert not history(merged)
    assert torch.allclose(logits(merged), expected, atol=1e-5)
    for path, weight in weights.items():
        assert torch.allclose(merged.get_submodule(path).weight.double(), weight, atol=1e-6)
    assert set(report.errors.values()) == {0.0}
    assert min(report.change.values()) > 0.5


@pytest.mark.parametrize("format", BITS)
def test_quantized_again(format):
    model = adapted(format)
    expected, weights = logits(model), plain(model)
    merged, report = merge_adapters(model)
    assert type(merged).__name__ == "LlamaForCausalLM"
    (entry,) = history(merged)
    assert entry.options["format"] == format
    assert report.errors.keys() == weights.keys()
    for path, weight in weights.items():
        layer = merged.get_submodule(path)
        assert isinstance(layer, Quantized)
        error = float((layer.dequantized().double() - weight).norm() / weight.norm())
        assert error == pytest.approx(report.errors[path], rel=1e-3)
        assert 0 < error < BITS[format]
        assert layer.weight_error == pytest.approx(error, rel=1e-3)
    assert report.worst in str(report)
    moved = (logits(merged) - expected).abs().max()
    assert moved > 0, "the report says by how much the weights changed"


def test_layers_without_adapters_keep_their_codes():
    model = adapted(target_modules=["q_proj", "lm_head"])
    before = {k: v.clone() for k, v in model.get_base_model().state_dict().items() if "v_proj" in k}
    head = plain(model)["lm_head"]
    merged, report = merge_adapters(model)
    assert len(report.errors) == 2
    assert all(torch.equal(merged.state_dict()[key], tensor) for key, tensor in before.items())
    assert torch.allclose(merged.lm_head.weight.double(), head, atol=1e-6)


def test_dora_is_merged_too():
    model = adapted(use_dora=True)
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1.5
    expected = logits(model)
    merged, _ = merge_adapters(model, requantize=False)
    assert torch.allclose(logits(merged), expected, atol=1e-4)


def test_half_precision_is_rounded_once():
    model = adapted(dtype=torch.bfloat16)
    weights = plain(model)
    merged, report = merge_adapters(model, requantize=False)
    for path, weight in weights.items():
        found = merged.get_submodule(path).weight
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.double(), weight, rtol=2**-8, atol=1e-6)
    assert 0 < max(report.errors.values()) < 2**-8


def test_in_composer_s_wrapper():
    model = build("llama")
    made = composer_model(model, adapters=lora_config(LORA, causal=True))
    apply_post_training_quantization(made, "nf4")
    expected = logits(made.model)
    merged, _ = merge_adapters(made, requantize=False)
    assert torch.allclose(logits(merged), expected, atol=1e-5)


def test_what_has_nothing_to_merge():
    with pytest.raises(ModelError, match="LlamaForCausalLM holds 0 models of peft, not one"):
        merge_adapters(build("llama"))
    floats = get_peft_model(build("llama"), lora_config(LORA, causal=True))
    with pytest.raises(ModelError, match="no adapter is on a quantized layer; merge_and_unload"):
        merge_adapters(floats)
