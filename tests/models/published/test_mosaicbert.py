"""Stock BERT with alibi, glu and vocab_padding is MosaicBERT: numbers and sizes."""

import mosaicbert_reference as reference
import pytest
import torch
from families import POSITIONS, VOCABULARY, batch, build
from transformers import BertConfig, BertForMaskedLM

from cadenza.algorithms import apply_alibi, apply_glu, apply_vocab_padding

LAYERS = 2


def operated(heads):
    model = build("bert", num_attention_heads=heads, hidden_size=48)
    apply_alibi(model)
    apply_glu(model)
    apply_vocab_padding(model)
    return model


def relative(a, b):
    return ((a.double() - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("heads", [2, 4, 12])
@pytest.mark.parametrize("length", [13, POSITIONS + 9])
@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_equals_the_reference(heads, length, padding):
    model = operated(heads)
    inputs = batch("bert", length=length, padding=padding)
    out = model(**inputs)
    out.loss.backward()

    weights = {n: p.detach().double().requires_grad_() for n, p in model.named_parameters()}
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    sizes = {"heads": heads, "layers": LAYERS, "words": VOCABULARY}
    logits, loss = reference.mosaicbert(weights, ids, mask, labels, **sizes)
    loss.backward()

    real = mask.bool()
    assert relative(out.logits[real], logits[real]) < 1e-5
    assert relative(out.loss, loss) < 1e-5
    for name, parameter in model.named_parameters():
        expected = weights[name].grad
        if name.endswith("key.bias"):  # exactly zero in theory: a shift of all scores of a row
            assert expected.abs().max() < 1e-12
            continue
        assert relative(parameter.grad, expected) < 1e-5, name


def test_reference_notices_each_technique():
    """The reference isn't blind: without one of the techniques the comparison fails."""
    model = operated(4)
    inputs = batch("bert")
    weights = {n: p.detach().double() for n, p in model.named_parameters()}
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    sizes = {"heads": 4, "layers": LAYERS, "words": VOCABULARY}
    right, _ = reference.mosaicbert(weights, ids, mask, labels, **sizes)
    flat, reference_slopes = [0.0] * 4, reference.slopes
    try:
        reference.slopes = lambda heads: flat
        wrong, _ = reference.mosaicbert(weights, ids, mask, labels, **sizes)
    finally:
        reference.slopes = reference_slopes
    assert relative(wrong, right) > 1e-3
    for name in weights:
        if name.endswith("intermediate.dense.weight"):
            weights[name] = weights[name].roll(weights[name].shape[0] // 2, 0)
    swapped, _ = reference.mosaicbert(weights, ids, mask, labels, **sizes)
    assert relative(swapped, right) > 1e-4


@pytest.mark.parametrize(
    ("sizes", "stock", "mosaic"),
    [
        ({}, 109_514_298, 137_400_384),
        (
            {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
            335_174_458,
            435_221_312,
        ),
    ],
    ids=["base", "large"],
)
def test_parameter_counts(sizes, stock, mosaic):
    with torch.device("meta"):
        model = BertForMaskedLM(BertConfig(vocab_size=30522, **sizes))
    assert sum(p.numel() for p in model.parameters()) == stock
    apply_alibi(model)
    apply_glu(model)
    apply_vocab_padding(model)
    assert len(model.get_input_embeddings().weight) == 30528
    assert sum(p.numel() for p in model.parameters()) == mosaic
    saved = {id(t): t.numel() for t in model.state_dict(keep_vars=True).values()}
    assert sum(saved.values()) == mosaic, "no position table and no bias buffer is saved"
