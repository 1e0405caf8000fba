"""Chunked loss with other techniques, adapters, checkpointing and compiled models."""

import copy
import itertools

import pytest
import torch
from families import ENCODERS, batch, build
from peft import LoraConfig, get_peft_model
from torch import nn

from cadenza.algorithms import (
    apply_anchor_attention,
    apply_chunked_loss,
    apply_post_training_quantization,
    apply_quantization_aware_training,
    apply_sequence_packing,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.models import composer_model
from cadenza.surgery import SurgeryError


def still(family, **overrides):
    """A model in training mode without dropout."""
    model = build(family, **overrides).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def step(model, inputs):
    """The loss, and all gradients in one vector."""
    loss = model(**inputs).loss
    loss.backward()
    grads = [p.grad.to_dense().flatten() for p in model.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(grads)


def assert_same(ours, theirs, tolerance=1e-5):
    assert abs(ours[0] - theirs[0]) <= 1e-6 * abs(theirs[0])
    assert (ours[1] - theirs[1]).norm() <= tolerance * theirs[1].norm()


def both(family, *others, **overrides):
    """A model with `others`, and a copy with chunked loss as well."""
    stock = still(family, **overrides)
    for apply in others:
        apply(stock)
    ours = copy.deepcopy(stock)
    apply_chunked_loss(ours, rows=4)
    return ours, stock


SPARSE = [apply_sparse_prediction, apply_chunked_loss]


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("order", [SPARSE, SPARSE[::-1]], ids=["sparse first", "chunked first"])
def test_with_sparse_prediction(family, order):
    stock, inputs = still(family), batch(family)
    ours = copy.deepcopy(stock)
    for apply in order:
        apply(ours)
    assert_same(step(ours, inputs), step(stock, inputs))
    for mode in (ours.train(), ours.eval()):
        assert mode(**inputs).logits is None
    assert abs(ours(**inputs).loss - stock.eval()(**inputs).loss) < 1e-5


@pytest.mark.parametrize(("applied", "undone"), itertools.product([SPARSE, SPARSE[::-1]], [(0, 1), (1, 0)]))
def test_each_stays_when_the_other_one_is_undone(applied, undone):
    model, inputs = still("bert"), batch("bert")
    expected = model(**inputs).loss
    reports = [apply(model) for apply in applied]
    first = undone[0]
    reports[first].undo()
    assert abs(model(**inputs).loss - expected) < 1e-5
    assert (model.eval()(**inputs).logits is None) == (applied[first] is apply_sparse_prediction)
    reports[undone[1]].undo()
    assert model(**inputs).logits.shape == (3, 13, 90)


def test_metrics_with_sparse_prediction():
    inputs = batch("bert")
    found = []
    for applied in ([], SPARSE, SPARSE[::-1]):
        model = composer_model(build("bert"))
        for apply in applied:
            apply(model)
        own = copy.deepcopy(inputs)
        outputs = model.eval_forward(own)
        for metric in model.get_metrics().values():
            model.update_metric(own, outputs, metric)
        found.append([float(metric.compute()) for metric in model.get_metrics().values()])
    assert found[1] == found[2] == pytest.approx(found[0], rel=1e-5)


def test_weights_of_rows_need_all_rows():
    model = still("bert")
    for apply in SPARSE:
        apply(model)
    model.row_weights = lambda targets, document_ids: torch.ones_like(targets)
    with pytest.raises(SurgeryError, match="undo sparse_prediction"):
        model(**batch("bert"))


OTHERS = {
    "vocab_padding": apply_vocab_padding,
    "quantization_aware_training": apply_quantization_aware_training,
    "post_training_quantization": apply_post_training_quantization,
    "unpadding": apply_unpadding,
}


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_with_another_technique(family, other):
    ours, stock = both(family, other)
    assert_same(step(ours, batch(family)), step(stock, batch(family)))


def test_padding_that_comes_and_goes_later():
    model, inputs = still("llama"), batch("llama")
    expected = model(**inputs).loss
    apply_chunked_loss(model)
    report = apply_vocab_padding(model)
    assert abs(model(**inputs).loss - expected) < 1e-5
    report.undo()
    assert abs(model(**inputs).loss - expected) < 1e-5


def test_labels_on_padding_count_without_padding_too():
    ours, stock = both("bert", apply_unpadding)
    inputs = batch("bert")
    inputs["labels"][2, 12] = 5
    assert inputs["attention_mask"][2, 12] == 0
    assert_same(step(ours, inputs), step(stock, inputs))


@pytest.mark.parametrize(("packing", "first"), [(apply_sequence_packing, 1), (apply_anchor_attention, 0)])
def test_packed_documents_reach_the_model_and_the_weights(packing, first):
    ours, stock = both("llama", packing)
    inputs, seen = batch("llama", padding=None), []
    inputs["document_ids"] = torch.tensor([first, *[1] * 4, *[2] * 8]).expand(3, 13)
    ours.row_weights = lambda targets, document_ids: seen.append(document_ids)
    assert_same(step(ours, inputs), step(stock, inputs))
    assert torch.equal(seen[0], inputs["document_ids"])


def test_adapters_beside_the_output_layer():
    """The frozen output layer gets no gradient; adapters on it are refused."""
    stock = get_peft_model(still("llama"), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    ours = copy.deepcopy(stock)
    apply_chunked_loss(ours)
    assert_same(step(ours, batch("llama")), step(stock, batch("llama")))
    assert ours.get_base_model().lm_head.weight.grad is None
    on_head = get_peft_model(still("llama"), LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(
        SurgeryError, match=r"the output layer is Linear; chunked_loss needs a plain nn\.Linear"
    ):
        apply_chunked_loss(on_head)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_words(tied):
    ours, stock = both("llama", tie_word_embeddings=tied)
    assert_same(step(ours, batch("llama")), step(stock, batch("llama")))


def test_gradient_checkpointing():
    ours, stock = both("llama")
    ours.gradient_checkpointing_enable()
    assert_same(step(ours, batch("llama")), step(stock, batch("llama")))


def test_autocast():
    """To the precision of bfloat16; logits are rounded in both."""
    ours, stock = both("llama")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = step(ours, batch("llama")), step(stock, batch("llama"))
    assert abs(found[0] - expected[0]) < 1e-3 * expected[0]
    assert (found[1] - expected[1]).norm() < 0.02 * expected[1].norm()


@pytest.mark.slow
def test_a_compiled_model(fresh_graphs):
    """A graph ends at the output layer."""
    ours, stock = both("llama")
    compiled = torch.compile(ours, backend="eager")
    loss = compiled(**batch("llama")).loss
    loss.backward()
    assert abs(loss - stock(**batch("llama")).loss) < 1e-5


def test_an_encoder_decoder_is_refused():
    model = build("bert")
    model.config.is_encoder_decoder = True
    with pytest.raises(SurgeryError, match="BertForMaskedLM is an encoder-decoder"):
        apply_chunked_loss(model)
