"""A user's own classes in a stock model: their code isn't bypassed, and what a model keeps is kept."""

import pytest
from families import build
from torch import nn
from transformers import BertConfig, BertModel, LlamaForCausalLM
from transformers.models.bert import modeling_bert

from cadenza.algorithms import apply_glu, apply_quantization_aware_training, apply_unpadding
from cadenza.surgery import NoEffect, SurgeryError
from cadenza.surgery.retype import is_stock

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}


class BertIntermediate(modeling_bert.BertIntermediate):
    """Named as transformers' class, with a forward pass of its own."""

    def forward(self, hidden_states):
        return 2 * super().forward(hidden_states)


class BertOutput(modeling_bert.BertOutput):
    """The same."""


class BertPooler(nn.Module):
    """Of the mean of all tokens, and named as one of the first token."""

    def forward(self, hidden_states):
        return hidden_states.mean(1)


class Mean(BertPooler):
    """The same under a name of its own."""


def test_a_class_of_the_same_name_is_not_the_stock_one():
    config = BertConfig(**SIZES)
    stock = modeling_bert.BertIntermediate(config)
    assert is_stock(stock, "BertIntermediate", "BertOutput")
    assert not is_stock(stock, "BertOutput")
    assert not is_stock(BertIntermediate(config), "BertIntermediate", "BertOutput")


def test_a_feed_forward_of_the_same_name_is_left():
    model = build("bert")
    for layer in model.bert.encoder.layer:
        layer.intermediate = BertIntermediate(model.config)
        layer.output = BertOutput(model.config)
    with pytest.raises(NoEffect):
        apply_glu(model)


@pytest.mark.parametrize("pooler", [BertPooler, Mean])
def test_another_pooler_is_refused(pooler):
    model = BertModel(BertConfig(**SIZES))
    model.pooler = pooler()
    with pytest.raises(SurgeryError, match=f"pooler: {pooler.__name__} is not a pooler of the first token"):
        apply_unpadding(model)
    model.pooler = None
    assert apply_unpadding(model).changes


def test_what_a_model_keeps_in_float32_is_not_quantized(monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "_keep_in_fp32_modules", ["down_proj"])
    model = build("llama")
    report = apply_quantization_aware_training(model)
    kept = {path for path, why in report.skipped.items() if why == "the model keeps it in float32"}
    assert kept == {f"model.layers.{n}.mlp.down_proj" for n in range(2)}
    changed = {change.path for change in report.changes}
    every = {
        path for path, module in model.model.named_modules(prefix="model") if isinstance(module, nn.Linear)
    }
    assert every - changed == kept
