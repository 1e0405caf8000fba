"""torch.compile of operated layers, and of FlexAttention: equal numbers, and no graph for each new batch."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from cases import CASES
from families import batch, build
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention

from cadenza.algorithms import apply_flash_attention, apply_quantization_aware_training, set_activation_bounds
from cadenza.algorithms.alibi import AlibiBias
from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import flex
from cadenza.attention.kernels.table import KERNELS, choose
from cadenza.recipe.parallelism import is_layer

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MOSAIC = ["alibi", "glu", "low_precision_norm", "unpadding", "sparse_prediction"]
MODELS = {  # family, techniques, and whether the model is compiled as a whole
    "mosaicbert": ("bert", MOSAIC, False),
    "mosaicbert as a whole": ("bert", MOSAIC, True),
    "long context": ("llama", ["bf16_safe_rope", "low_precision_norm", "unpadding"], False),
    "rows by kernel": ("bert", ["flash_attention"], False),
    "4-bit weights": ("llama", ["post_training_quantization"], False),
}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "names", "whole"), MODELS.values(), ids=MODELS)
def test_a_model_is_compiled_once_for_all_batches(family, names, whole, fresh_graphs):
    counter = CompileCounterWithBackend("aot_eager")
    ours, plain = (build(family, **(STILL if family == "bert" else {})).train() for _ in range(2))
    for name in names:
        CASES[name].apply(ours)
        CASES[name].apply(plain)
    for part in [ours] if whole else filter(is_layer, ours.modules()):
        part.compile(dynamic=True, backend=counter)
    graphs = []
    for rows, length in ((6, 25), (3, 17), (4, 20), (5, 30), (2, 9)):
        assert_same_step(ours, plain, batch(family, rows=rows, length=length), 1e-6)
        graphs.append(counter.frame_count)
    assert graphs[0] > 0, "nothing was compiled"
    assert graphs[0] == graphs[-1]


def assert_same_step(ours, plain, inputs, tolerance):
    ours.zero_grad()
    plain.zero_grad()
    assert (step(ours, inputs) - step(plain, inputs)).abs() < tolerance
    for mine, theirs in zip(gradients(ours), gradients(plain), strict=True):
        assert torch.allclose(mine, theirs, atol=tolerance)


def step(model, inputs):
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach()


def gradients(model):
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4])
def test_a_layer_in_few_bits_keeps_its_gradients(bits, fresh_graphs):
    """The whole model is one graph."""
    torch.manual_seed(0)
    ours, plain = (nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 5)) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    for model in (ours, plain):
        apply_quantization_aware_training(model, 4, bits, None)
        model(torch.randn(5, 9, generator=torch.Generator().manual_seed(1)))
        if bits:
            set_activation_bounds(model)
    counter = CompileCounterWithBackend("aot_eager")
    ours.compile(backend=counter)
    x = torch.randn(3, 9)
    ours(x).square().sum().backward()
    plain(x).square().sum().backward()
    for mine, theirs in zip(gradients(ours), gradients(plain), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert counter.frame_count == 1


@pytest.fixture
def flex_graphs(fresh_graphs, monkeypatch):
    """FlexAttention as it's compiled on CUDA, but for the backend, which counts."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    compiled = flex._compiled.__wrapped__()
    monkeypatch.setattr(flex, "_flex_attention", lambda _: compiled)
    return counter


@pytest.fixture
def flex_on_cpu(monkeypatch):
    """FlexAttention in layers on a CPU, which torch refuses in training."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setitem(KERNELS, "flex", replace(KERNELS["flex"], dtypes={"cpu": ("float32",)}))
    choose.cache_clear()
    yield
    choose.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("bert", MOSAIC),
        ("bert", ["unpadding", "sliding_window"]),
        ("modernbert", ["unpadding"]),
        ("llama", []),
    ],
)
def test_a_layer_is_one_graph_with_its_attention(family, names, flex_on_cpu, fresh_graphs):
    ours, plain = (build(family, **(STILL if family == "bert" else {})).train() for _ in range(2))
    for name in names:
        CASES[name].apply(ours)
        CASES[name].apply(plain)
    apply_flash_attention(ours, "flex", prove=False)
    for layer in filter(is_layer, ours.modules()):
        layer.compile(dynamic=True, backend="aot_eager", fullgraph=True)
    for rows, length in ((6, 25), (3, 17), (9, 30)):
        assert_same_step(ours, plain, batch(family, rows=rows, length=length), 1e-5)


def flex_of(lengths, alibi, anchored):
    """The output of documents of these lengths."""
    anchors = (0,) * len(lengths) if anchored else ()
    documents = Documents(lengths, torch.device("cpu"), anchors=anchors)
    qkv = [torch.randn(1, sum(lengths), heads, 16) for heads in (4, 2, 2)]
    bias = AlibiBias() if alibi else None
    return flex.flex(AttentionCall(None, bias, documents, True, None, 0.0, None), *qkv)


@pytest.mark.slow
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("anchored", [False, True])
def test_flex_is_compiled_for_all_batches(alibi, anchored, flex_graphs):
    """Two graphs at most: one for batches of one block of 128 tokens, one for all others."""
    for lengths in ((130, 3, 40), (12, 200, 7, 180), (300, 1, 1), (64, 64, 64, 64, 64), (129,)):
        for _layer in range(2):
            flex_of(lengths, alibi, anchored)
    assert 1 <= flex_graphs.frame_count <= 2


@pytest.mark.slow
def test_flex_never_runs_uncompiled_in_silence(flex_graphs, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    flex_of((130, 3), alibi=False, anchored=False)
    with pytest.raises(FailOnRecompileLimitHit):
        flex_of((130, 3), alibi=True, anchored=False)
