"""Floating-point operations of training, against torch's own count of the products."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from cadenza.models import resnet
from cadenza.recipe.runs import flops

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
MODELS = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZES, intermediate_size=48)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=48)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=96)),
}
ROWS, LENGTH = 3, 16


def counted(model):
    """By torch, of the products of a step over whole rows; attention as plain matrix products."""
    model.set_attn_implementation("eager")
    ids = torch.randint(0, 96, (ROWS, LENGTH))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_a_step_takes_what_torch_counts(name):
    model = MODELS[name]()
    found = flops.per_token(model) * ROWS * LENGTH + flops.per_square(model.config) * ROWS * LENGTH**2
    assert found == pytest.approx(counted(model), rel=0.01)


def test_frozen_matrices_have_no_gradient_to_compute():
    model = MODELS["bert"]()
    whole = flops.per_token(model)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.requires_grad_(False)
    assert flops.per_token(model) * 6 == whole * 4


def test_models_with_other_weights_are_not_counted():
    assert flops.per_token(resnet("resnet10", 0.125, 10, 1, "small")) is None
    assert flops.per_square(None) is None


def test_squares_of_padded_rows_and_of_packed_ones():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert flops.squares({"attention_mask": mask}) == 9 + 1
    ids = torch.tensor([[1, 1, 2, -1], [1, 2, 2, 2]])
    assert flops.squares({"attention_mask": ids > 0, "document_ids": ids}) == 4 + 1 + 1 + 9


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_share_of_the_peak(device, peak, monkeypatch):
    assert flops.peak(device) == peak
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: device)
    share = flops.utilization(1e15, 10.0, "amp_bf16", 2)
    assert share == (None if peak is None else pytest.approx(1e14 / (2 * peak)))
    assert flops.utilization(1e15, 10.0, "fp32", 2) is None
    assert flops.utilization(None, 10.0, "amp_bf16", 2) is None


def test_a_cpu_has_no_known_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert flops.utilization(1e15, 10.0, "amp_bf16", 1) is None
