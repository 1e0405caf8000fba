"""torch.compile of operated layers, and of FlexAttention: equal numbers, and no graph for each new batch."""

import pytest
import torch
from cases import CASES
from families import batch, build
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.algorithms.alibi import AlibiBias
from cadenza.recipe.parallelism import is_layer
from cadenza.surgery import varlen
from cadenza.surgery.documents import Documents

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MOSAIC = ["alibi", "glu", "low_precision_norm", "unpadding", "sparse_prediction"]
MODELS = {
    "mosaicbert": ("bert", MOSAIC),
    "long context": ("llama", ["bf16_safe_rope", "low_precision_norm", "unpadding"]),
    "rows by kernel": ("bert", ["flash_attention"]),
    "4-bit weights": ("llama", ["post_training_quantization"]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "names"), MODELS.values(), ids=MODELS)
def test_layers_are_compiled_for_all_batches(family, names, fresh_graphs):
    compiles_for_all_batches(family, names, lambda model: filter(is_layer, model.modules()))


@pytest.mark.slow
def test_a_whole_model_is_compiled_for_all_batches(fresh_graphs):
    compiles_for_all_batches("bert", MOSAIC, lambda model: [model])


def compiles_for_all_batches(family, names, parts):
    counter = CompileCounterWithBackend("aot_eager")
    ours, plain = (build(family, **(STILL if family == "bert" else {})).train() for _ in range(2))
    for name in names:
        CASES[name].apply(ours)
        CASES[name].apply(plain)
    for part in parts(ours):
        part.compile(dynamic=True, backend=counter)
    graphs = []
    for rows, length in ((6, 25), (3, 17), (4, 20), (5, 30), (2, 9)):
        inputs = batch(family, rows=rows, length=length)
        ours.zero_grad()
        plain.zero_grad()
        assert (step(ours, inputs) - step(plain, inputs)).abs() < 1e-6
        for mine, theirs in zip(gradients(ours), gradients(plain), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-6)
        graphs.append(counter.frame_count)
    assert graphs[0] > 0, "nothing was compiled"
    assert graphs[0] == graphs[-1]


def step(model, inputs):
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach()


def gradients(model):
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4])
def test_a_layer_in_few_bits_keeps_its_gradients(bits, fresh_graphs):
    """Each graph ends at its weight, which is quantized behind the stock forward's back."""
    torch.manual_seed(0)
    ours, plain = (nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 5)) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    for model in (ours, plain):
        apply_quantization_aware_training(model, 4, bits, None)
        model(torch.randn(5, 9, generator=torch.Generator().manual_seed(1)))
        if bits:
            set_activation_bounds(model)
    ours.compile(backend="aot_eager")
    x = torch.randn(3, 9)
    ours(x).square().sum().backward()
    plain(x).square().sum().backward()
    for mine, theirs in zip(gradients(ours), gradients(plain), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("anchored", [False, True])
def test_flex_is_compiled_for_all_batches(alibi, anchored, fresh_graphs, monkeypatch):
    """Two graphs at most: one for batches of one block of 128 tokens, one for all others."""
    from torch.nn.attention.flex_attention import flex_attention

    counter = CompileCounterWithBackend("aot_eager")
    flex = torch.compile(flex_attention, dynamic=True, fullgraph=True, backend=counter)
    monkeypatch.setattr(varlen, "_flex_attention", lambda compiled: flex)
    bias = AlibiBias() if alibi else None
    for lengths in ((130, 3, 40), (12, 200, 7, 180), (300, 1, 1), (64, 64, 64, 64, 64), (129,)):
        anchors = (0,) * len(lengths) if anchored else ()
        documents = Documents(lengths, torch.device("cpu"), anchors=anchors)
        qkv = [torch.randn(1, sum(lengths), heads, 16) for heads in (4, 2, 2)]
        call = varlen.Varlen(None, bias, documents, True, None, 0.0, None)
        for _layer in range(2):
            varlen.flex(call, *qkv)
    assert 1 <= counter.frame_count <= 2
