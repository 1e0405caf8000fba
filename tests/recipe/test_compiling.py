"""`train.compile_layers`: the same training, in graphs that serve all batches."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from trainers import trained

from cadenza.models import resnet
from cadenza.recipe import RecipeError
from cadenza.recipe.compiling import GRAPHS, compile_layers

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 48,
                 hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, eval_fraction: 0.2}
algorithms: {alibi: , glu: , unpadding: , sparse_prediction: , flash_attention: , low_precision_norm: }
scheduler: {t_warmup: 1ba}
train: {max_duration: 3ba, global_batch_size: 8, eval_interval: 1dur, progress_bar: false, precision: fp32}
"""


@pytest.fixture
def counter(fresh_graphs, monkeypatch):
    """Counts the graphs, which no compiler of machine code gets."""
    counter, compile_ = CompileCounterWithBackend("aot_eager"), nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compile_(self, **options, backend=counter)
    )
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", torch._dynamo.config.recompile_limit)
    return counter


def weights(recipe):
    return [parameter.detach() for parameter in trained(recipe).state.model.parameters()]


@pytest.mark.slow
def test_training_is_the_same(recipe, counter):
    plain = weights(recipe("name=plain"))
    assert counter.frame_count == 0
    compiled = weights(recipe("train.compile_layers=true"))
    assert 0 < counter.frame_count < GRAPHS
    for ours, theirs in zip(compiled, plain, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_model_without_layers_is_refused():
    with pytest.raises(RecipeError, match=r"train\.compile_layers: the model has no layers"):
        compile_layers(resnet("resnet10", 0.125, 10, 1, "small"))
