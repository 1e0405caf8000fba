"""`layer.weight` of a quantized layer: stock shape and dtype, numbers to read, no writes."""

import copy

import pytest
import torch
from few_bits import layer, matrix
from torch import nn
from transformers import (
    LongT5Config,
    LongT5ForConditionalGeneration,
    MambaConfig,
    MambaForCausalLM,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)

from cadenza.algorithms import apply_post_training_quantization, dequantize
from cadenza.models import load, save
from cadenza.quantization.stored.formats import FORMATS
from cadenza.surgery import NoEffect, SurgeryError, history

T5 = {"vocab_size": 90, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
T5 |= {"dropout_rate": 0.0, "decoder_start_token_id": 0}
SPARSE = {"num_experts": 2, "num_sparse_encoder_layers": 0, "num_sparse_decoder_layers": 0}
MAMBA = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}
READERS = {  # models that cast activations to the dtype of a weight
    "longt5": lambda: LongT5ForConditionalGeneration(LongT5Config(**T5)),
    "switch": lambda: SwitchTransformersForConditionalGeneration(SwitchTransformersConfig(**T5, **SPARSE)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(**MAMBA, tie_word_embeddings=False, use_mambapy=False)),
}
every_format = pytest.mark.parametrize("name", FORMATS)


def model_of(reader):
    torch.manual_seed(0)
    return READERS[reader]().eval()


@torch.no_grad()
def logits(model):
    ids = torch.randint(5, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    decoder = {"decoder_input_ids": ids[:, :5]} if hasattr(model.config, "d_kv") else {}
    return model(input_ids=ids, **decoder).logits


@pytest.mark.parametrize("reader", READERS)
def test_activations_are_cast_to_the_dtype_of_the_weight_before(reader):
    model = model_of(reader)
    apply_post_training_quantization(model, "nf4", only="*")
    floats = copy.deepcopy(model)
    dequantize(floats)
    assert torch.equal(logits(model), logits(floats))


@pytest.mark.parametrize("reader", ["longt5", "mamba"])
def test_transformers_loads_the_codes(reader, tmp_path):
    model = model_of(reader)
    apply_post_training_quantization(model, "nf4")
    save(model, tmp_path)
    assert torch.equal(logits(load(tmp_path).eval()), logits(model))


@every_format
def test_shape_and_dtype_are_those_before(name):
    linear, _ = layer(name, dtype=torch.bfloat16)
    assert linear.weight.shape == (33, 65)
    assert linear.weight.dtype == torch.bfloat16
    assert linear.half().weight.dtype == torch.float16
    assert linear.double().weight.dtype == torch.float64
    assert linear.weight.device == linear.bias.device


@every_format
def test_reading_unpacks(name):
    linear, weight = layer(name, bias=False)
    x = matrix((4, 65)).requires_grad_()
    out = nn.functional.linear(x, linear.weight)
    assert torch.equal(out, nn.functional.linear(x, linear.dequantized()))
    out.sum().backward()
    assert (x.grad - weight.sum(0)).abs().max() < 1e-4
    assert torch.equal(linear.weight[3:5], linear.dequantized()[3:5])
    assert (linear.weight.numpy() == linear.dequantized().numpy()).all()


def writes(weight):
    yield lambda: weight.data.add_(1)
    yield lambda: weight.copy_(torch.zeros(33, 65))
    yield lambda: setattr(weight, "data", torch.zeros(33, 65))
    yield lambda: weight.detach().zero_()
    yield lambda: nn.init.normal_(weight)
    yield lambda: weight.__setitem__(0, 1.0)


@every_format
def test_writing_is_refused(name):
    linear, _ = layer(name)
    before = linear.dequantized()
    for write in writes(linear.weight):
        with pytest.raises(SurgeryError, match=r"can't be changed in place; dequantize\(model\)"):
            write()
    assert torch.equal(linear.dequantized(), before)


@every_format
def test_dequantized_layers_are_stock(name):
    model = nn.Sequential(nn.Linear(65, 33), nn.Linear(33, 2)).bfloat16()
    apply_post_training_quantization(model, name)
    expected = model[0].dequantized(torch.bfloat16)
    assert dequantize(model) == 1
    assert type(model[0]) is nn.Linear
    assert list(model[0].state_dict()) == ["weight", "bias"]
    assert torch.equal(model[0].weight, expected)
    assert not model[0].weight.requires_grad
    assert not history(model)
    with pytest.raises(NoEffect, match="dequantize found no quantized layer in Sequential"):
        dequantize(model)
