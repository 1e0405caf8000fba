"""What an operation keeps by the rules of a CUDA device, though it is computed on shapes of a CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cadenza.recipe import load
from cadenza.recipe.memory import Setting, estimate
from cadenza.recipe.memory.cuda_rules import CudaRules

RECIPE = """
model:
  config:
    {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 128}
tokenizer: {vocab_size: 600}
data: {max_seq_len: 256}
algorithms: {unpadding: {}}
train: {global_batch_size: 2, device_train_microbatch_size: 2, precision: amp_bf16}
"""


@pytest.fixture
def table(tmp_path):
    def table(*pairs, cuda=True):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE)
        return estimate(Setting.of(load([str(path)], list(pairs)), 1, cuda))

    return table


def kept(function, *inputs):
    """The dtypes of what is saved for backward."""
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.dtype) or t, lambda t: t):
        output = function(*inputs)
    return seen, output


def test_a_mask_of_dropout_is_bytes_and_nothing_is_kept_without_it():
    x = torch.ones(4, 8, requires_grad=True)
    with CudaRules():
        seen, output = kept(lambda x: F.dropout(x, 0.5), x)
        assert seen == [torch.bool]
        assert set(output.unique().tolist()) <= {0.0, 2.0}
        assert F.dropout(x, 0.5, training=False) is x


@pytest.mark.parametrize("function", [nn.LayerNorm(8), lambda x: x.softmax(-1), lambda x: x.pow(2)])
def test_autocast_computes_it_in_float32(function):
    half = torch.ones(4, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), CudaRules():
        assert function(half).dtype == torch.float32
        assert torch.relu(half).dtype == torch.bfloat16
    with CudaRules():
        assert torch.softmax(half, -1).dtype == torch.bfloat16


def test_attention_with_dropout_keeps_no_matrix_on_a_device(table):
    """On a CPU it keeps one of (length, length); see the masks of dropout of the 4 heads of each layer."""
    device, cpu = table(), table(cuda=False)
    assert cpu.parts["activations"] - device.parts["activations"] > 2 * 2 * 4 * 256 * 256
    longer = table("data.max_seq_len=512", "model.config.max_position_embeddings=512")
    assert longer.parts["activations"] == pytest.approx(2 * device.parts["activations"], rel=0.05)


def test_padded_rows_have_a_mask_and_unpadded_ones_do_not(table):
    padded = table("algorithms.unpadding=false").parts["activations"]
    assert padded - table().parts["activations"] >= 2 * 256 * 256
