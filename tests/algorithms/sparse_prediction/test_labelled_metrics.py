"""Sparse prediction under Composer: metrics see the matching labels; logits are kept for them."""

import copy

import pytest
import torch
from composer.models import HuggingFaceModel
from families import ENCODERS, batch, build
from torch import nn

from cadenza.algorithms import apply_sparse_prediction, apply_unpadding
from cadenza.models import composer_model


def updated(model, inputs, outputs):
    """The metrics of a Composer model after one batch."""
    metrics = copy.deepcopy(model.get_metrics(is_train=False))
    outputs = model.eval_forward(dict(inputs), outputs)
    for metric in metrics.values():
        model.update_metric(inputs, outputs, metric)
    return {name: float(metric.compute()) for name, metric in metrics.items()}


@pytest.mark.parametrize("family", ENCODERS)
def test_composer_metrics_see_the_matching_rows(family):
    inputs = batch(family)
    stock = composer_model(build(family))
    model = composer_model(build(family))
    apply_unpadding(model)
    apply_sparse_prediction(model)
    with torch.no_grad():
        expected = updated(stock, inputs, None)
        assert updated(model, inputs, None) == pytest.approx(expected, rel=1e-5)


def test_training_metrics_keep_the_logits():
    inputs = batch("bert")
    model = composer_model(build("bert"), train_metrics=True)
    apply_sparse_prediction(model)
    outputs = model.train()(dict(inputs))
    assert outputs.logits.shape[1] == int((inputs["labels"] != -100).sum())
    updated(model, inputs, outputs)


def test_without_training_metrics_none_are_kept():
    model = composer_model(build("bert"), train_metrics=False)
    apply_sparse_prediction(model)
    assert model.train()(batch("bert")).logits is None


@pytest.mark.parametrize("labelled", [False, True])
def test_a_model_of_losses_is_evaluated_as_ever(labelled):
    """Without `use_logits` Composer's wrapper neither needs labels nor keeps them."""
    outputs = []
    for apply in (apply_sparse_prediction, lambda model: None):
        model = HuggingFaceModel(build("bert"), use_logits=False)
        apply(model)
        inputs = batch("bert")
        inputs = inputs if labelled else {k: v for k, v in inputs.items() if k != "labels"}
        outputs.append(model.eval_forward(inputs))
        assert model.labels is None
    ours, theirs = outputs
    if labelled:
        assert abs(ours.loss - theirs.loss) < 1e-6
    else:
        assert torch.equal(ours.logits, theirs.logits)


def test_outputs_that_are_there_are_not_computed_again():
    model = composer_model(build("bert"))
    apply_sparse_prediction(model)
    inputs = batch("bert")
    outputs = model(dict(inputs))
    model.forward = lambda batch: pytest.fail("computed again")
    assert torch.equal(model.eval_forward(dict(inputs), outputs), outputs.logits)
    assert model.labels.tolist() == [inputs["labels"][inputs["labels"] != -100].tolist()]


def test_evaluation_computes_no_dense_logits():
    model = composer_model(build("bert"))
    apply_sparse_prediction(model)
    inputs = batch("bert")
    decoder, seen = model.model.cls.predictions.decoder, []
    decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    model.eval_forward(dict(inputs))
    assert seen == [int((inputs["labels"] != -100).sum())]


def test_a_wrapper_around_a_model_is_no_composer_model():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = build("bert")

    wrapped = Wrapper()
    assert len(apply_sparse_prediction(wrapped)) > 0
    assert wrapped.model.train()(**batch("bert")).logits is None
