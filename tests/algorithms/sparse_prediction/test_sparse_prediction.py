"""Sparse prediction: equal loss and gradients, no dense logits, metrics on matching rows."""

import pytest
import torch
from families import ENCODERS, batch, build
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_glu,
    apply_sparse_prediction,
    apply_unpadding,
    apply_vocab_padding,
)
from cadenza.surgery import NoEffect, SurgeryError

WITH = {
    "alone": (),
    "unpadding": (apply_unpadding,),
    "everything": (apply_alibi, apply_vocab_padding, apply_flash_attention, apply_unpadding),
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
OFF = {"distilbert": {"dropout": 0.0, "attention_dropout": 0.0}, "modernbert": {}}
TOLERANCE = {"modernbert": 2e-6}  # its stock loss rounds float64 logits to float32


def trained(family, names, sparse, dtype=torch.float64):
    """Loss and gradients of a training step without dropout."""
    model = build(family, **OFF.get(family, NO_DROPOUT)).to(dtype).train()
    for apply in [*names, *([apply_sparse_prediction] if sparse else [])]:
        apply(model)
    output = model(**batch(family))
    output.loss.backward()
    return output, {n: p.grad.to_dense() for n, p in model.named_parameters()}


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("names", WITH)
def test_loss_and_gradients_are_equal(family, names):
    ours, gradients = trained(family, WITH[names], sparse=True)
    theirs, expected = trained(family, WITH[names], sparse=False)
    assert abs(ours.loss - theirs.loss) < TOLERANCE.get(family, 1e-12)
    assert ours.logits is None
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).abs().max() < TOLERANCE.get(family, 1e-12), name


def test_float32():
    """Sums over 90 words in another order: a few roundings of 6e-8."""
    ours, gradients = trained("bert", (apply_unpadding,), True, torch.float32)
    theirs, expected = trained("bert", (), False, torch.float64)
    assert abs(ours.loss - theirs.loss) < 1e-6 * theirs.loss
    flat = [torch.cat([g[n].flatten().double() for n in expected]) for g in (gradients, expected)]
    assert (flat[0] - flat[1]).norm() < 1e-6 * flat[1].norm()


@pytest.mark.parametrize("family", ENCODERS)
def test_logits_in_evaluation_are_those_of_the_labelled_rows(family):
    model, stock = build(family).double(), build(family).double()
    apply_unpadding(model)
    apply_sparse_prediction(model)
    inputs = batch(family)
    ours, theirs = model(**inputs), stock(**inputs)
    chosen = inputs["labels"] != -100
    assert ours.logits.shape == (1, int(chosen.sum()), 90)
    assert (ours.logits[0] - theirs.logits[chosen]).abs().max() < 1e-12
    assert abs(ours.loss - theirs.loss) < TOLERANCE.get(family, 1e-12)
    del inputs["labels"]
    assert model(**inputs).logits.shape == (3, 13, 90)


def rows_seen(model, layer, inputs):
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    model(**inputs)
    hook.remove()
    return seen


def test_head_and_last_layer_see_labelled_rows_only():
    model = build("bert").train()
    inputs = batch("bert")
    labelled, tokens = int((inputs["labels"] != -100).sum()), int(inputs["attention_mask"].sum())
    assert labelled < tokens
    apply_sparse_prediction(model)
    first, last = model.bert.encoder.layer
    assert rows_seen(model, model.cls.predictions.decoder, inputs) == [labelled]
    assert rows_seen(model, last.output.dense, inputs) == [labelled]
    assert rows_seen(model, last.attention.output.dense, inputs) == [labelled]
    assert rows_seen(model, last.attention.self.key, inputs) == [39]
    apply_unpadding(model)
    assert rows_seen(model, last.attention.self.key, inputs) == [tokens]
    assert rows_seen(model, first.output.dense, inputs) == [tokens]


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_the_last_layer_is_the_last_of_three(family):
    if family == "bert":
        model = build("bert", num_hidden_layers=3)
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
        model = XLMRobertaForMaskedLM(XLMRobertaConfig(vocab_size=90, pad_token_id=0, **sizes))
    inputs = batch("bert")
    labelled = int((inputs["labels"] != -100).sum())
    apply_sparse_prediction(model)
    *others, last = model.base_model.encoder.layer
    assert rows_seen(model.train(), last.output.dense, inputs) == [labelled]
    assert all(rows_seen(model, layer.output.dense, inputs) == [39] for layer in others)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_a_tied_embedding_has_a_dense_gradient(tied, asked):
    """Looked-up rows come as a sparse gradient, and the head's takes them up; untied ones stay."""
    model, seen = build("bert", tie_word_embeddings=tied).train(), []
    apply_sparse_prediction(model)
    words = model.get_input_embeddings()
    words.sparse = asked
    words.register_forward_pre_hook(lambda module, args: seen.append(module.sparse))
    model(**batch("bert")).loss.backward()
    assert seen == [tied or asked]
    assert words.weight.grad.is_sparse == (asked and not tied)
    assert words.sparse == asked


def test_a_failed_step_leaves_the_lookup_as_it_was():
    model = build("bert").train()
    apply_sparse_prediction(model)
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[90]]), labels=torch.tensor([[5]]))
    assert not model.get_input_embeddings().sparse


def test_training_mode_without_gradients_keeps_the_logits():
    """The loss then turns them into nothing."""
    model, stock = (build("bert", **NO_DROPOUT).train() for _ in range(2))
    apply_sparse_prediction(model)
    inputs = batch("bert")
    with torch.no_grad():
        ours, theirs = model(**inputs), stock(**inputs)
    assert (ours.logits[0] - theirs.logits[inputs["labels"] != -100]).abs().max() < 1e-6
    assert abs(ours.loss - theirs.loss) < 1e-6


def test_whether_logits_are_kept_stands_on_the_head_alone():
    model = build("bert")
    report = apply_sparse_prediction(model)
    assert [module for module in model.modules() if "keeps_logits" in vars(module)] == [model]
    report.undo()
    assert "keeps_logits" not in vars(model)


def test_a_head_without_a_base_to_lead_is_left_alone():
    model = build("bert")
    model.config.is_encoder_decoder = True
    with pytest.raises(NoEffect):
        apply_sparse_prediction(model)


def test_hidden_states_with_labels_are_refused():
    model = build("bert")
    apply_sparse_prediction(model)
    with pytest.raises(SurgeryError, match="output_hidden_states=True"):
        model(**batch("bert"), output_hidden_states=True)


def test_tuples():
    model, stock = build("bert"), build("bert")
    apply_sparse_prediction(model)
    apply_glu(model)
    apply_glu(stock)
    inputs = batch("bert")
    (loss,) = model.train()(**inputs, return_dict=False)
    assert isinstance(loss, torch.Tensor)
    assert model(**inputs, return_dict=True).loss.ndim == 0
    model.config.return_dict = False
    (loss,) = model(**inputs)
    assert loss.ndim == 0
    model.config.return_dict = True
    ours, theirs = model.eval()(**inputs, return_dict=False), stock(**inputs, return_dict=False)
    assert len(ours) == len(theirs) == 2
