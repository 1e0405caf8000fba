"""Reports name what stays in full precision because no layer of torch holds it."""

import pytest
import torch
import torch.nn.utils.prune as prune
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from cadenza.algorithms import apply_post_training_quantization, apply_quantization_aware_training
from cadenza.quantization.experts import expert_weights

SIZES = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
MIXTURES = {
    "olmoe": {"intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"intermediate_size": 64, "num_local_experts": 4, "num_key_value_heads": 4},
}


def quantize_all(model):
    pytest.importorskip("bitsandbytes")
    return apply_post_training_quantization(model, only=["*"])


def mixture(family):
    options = {**SIZES, **MIXTURES[family], "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **options))


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_of_a_mixture_are_named_with_their_size(family):
    model = mixture(family)
    reasons = expert_weights(model)
    assert set(reasons) == {name for name, p in model.named_parameters() if p.ndim == 3}
    assert len(reasons) == 2
    assert all("4 x " in why and "is no nn.Linear's weight" in why for why in reasons.values())
    report = str(apply_quantization_aware_training(model))
    assert all(f"left as it is: {path}, {why}" in report for path, why in reasons.items())


def test_tokens_and_convolutions_are_no_experts():
    model = nn.Sequential(nn.Conv1d(2, 3, 4), nn.ConvTranspose1d(2, 3, 4), nn.Linear(2, 3))
    model.cls_token, model.positions = nn.Parameter(torch.ones(1, 1, 8)), nn.Parameter(torch.ones(1, 7, 8))
    assert expert_weights(model) == {}
    model.stack = nn.Parameter(torch.ones(2, 7, 8))
    assert list(expert_weights(model)) == ["stack"]


def test_other_layers_with_weights_are_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.ConvTranspose2d(3, 4, 3), nn.LSTM(4, 4), nn.Bilinear(4, 4, 2))
    model.append(nn.MultiheadAttention(4, 2))
    report = str(apply_quantization_aware_training(model))
    for path, name in enumerate(("ConvTranspose2d", "LSTM", "Bilinear", "MultiheadAttention"), 1):
        assert f"left as it is: {path}, weights of {name} stay in full precision" in report


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("change", [lambda m: prune.l1_unstructured(m, "weight", 0.5), nn.utils.weight_norm])
@pytest.mark.parametrize("apply", [apply_quantization_aware_training, quantize_all])
def test_layers_whose_weight_is_computed_are_named(change, apply):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(3, 8)
    change(model[0])
    expected = model[0](x)
    report = apply(model)
    assert [change.path for change in report.changes] == ["2"]
    assert "its weight is computed from other tensors, as after pruning or weight_norm" in report.skipped["0"]
    assert torch.equal(model[0](x), expected)
    parametrized = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 16)), nn.Linear(16, 4))
    assert "ParametrizedLinear is not nn.Linear" in apply(parametrized).skipped["0"]
