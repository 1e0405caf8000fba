"""Metrics of a Composer model are those from logits; one that needs logits is refused by name."""

import copy

import pytest
import torch
from composer.metrics import LanguagePerplexity, MaskedAccuracy
from composer.models import HuggingFaceModel
from families import batch, build
from torchmetrics.classification import MulticlassAccuracy

from cadenza.algorithms import apply_chunked_loss
from cadenza.models import composer_model
from cadenza.surgery import SurgeryError


def with_a_hit(family):
    """A batch in which some labels are what the model predicts."""
    inputs = batch(family)
    logits = build(family)(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    labels, found = inputs["labels"], logits.argmax(-1)
    if family == "llama":
        found = found.roll(1, 1)
    labels[0, 1:6] = found[0, 1:6]
    return inputs


def updated(model, inputs, outputs=None, train=False):
    own = copy.deepcopy(inputs)
    outputs = model.eval_forward(own, outputs)
    metrics = model.get_metrics(is_train=train)
    for metric in metrics.values():
        metric.reset()
        model.update_metric(own, outputs, metric)
    assert "labels" not in own, "as Composer's own eval_forward leaves a batch"
    return {name: float(metric.compute()) for name, metric in metrics.items()}


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_metrics_in_evaluation_and_training(family):
    inputs = with_a_hit(family)
    stock, model = (composer_model(build(family), train_metrics=True) for _ in range(2))
    apply_chunked_loss(model, rows=4)
    with torch.no_grad():
        expected = updated(stock, inputs)
        assert expected["MaskedAccuracy"] > 0.1
        assert updated(model, inputs) == pytest.approx(expected, rel=1e-5)
    for each in (stock, model):
        each.train()
        for module in each.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    expected = updated(stock, inputs, stock(copy.deepcopy(inputs)), train=True)
    assert updated(model, inputs, model(copy.deepcopy(inputs)), train=True) == pytest.approx(
        expected, rel=1e-5
    )


def test_perplexity():
    inputs, found = batch("llama"), []
    for apply in (lambda model: None, apply_chunked_loss):
        model = HuggingFaceModel(build("llama"), use_logits=True, eval_metrics=[LanguagePerplexity()])
        apply(model)
        found.append(updated(model, inputs)["LanguagePerplexity"])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_smoothing_changes_the_loss_and_no_metric():
    inputs = batch("llama")
    plain, smooth = (composer_model(build("llama")) for _ in range(2))
    apply_chunked_loss(plain)
    apply_chunked_loss(smooth, label_smoothing=0.5, z_loss=0.1)
    assert updated(smooth, inputs) == updated(plain, inputs)
    assert smooth(dict(inputs)).loss > plain(dict(inputs)).loss + 0.1


def test_a_metric_that_needs_logits_is_refused_when_it_is_applied():
    metrics = [MulticlassAccuracy(90)]
    model = HuggingFaceModel(build("llama"), use_logits=True, eval_metrics=metrics)
    with pytest.raises(
        SurgeryError, match="metric MulticlassAccuracy needs logits; known without are Language"
    ):
        apply_chunked_loss(model)


def test_a_metric_that_needs_logits_is_refused_when_it_comes_later():
    model = composer_model(build("llama"))
    apply_chunked_loss(model)
    inputs = batch("llama")
    outputs = model.eval_forward(dict(inputs))
    with pytest.raises(SurgeryError, match="metric MulticlassAccuracy needs logits"):
        model.update_metric(inputs, outputs, MulticlassAccuracy(90))


def test_a_metric_that_ignores_another_label_is_refused():
    model = HuggingFaceModel(build("llama"), use_logits=True, eval_metrics=[MaskedAccuracy(ignore_index=0)])
    with pytest.raises(SurgeryError, match="metric MaskedAccuracy ignores 0, not -100"):
        apply_chunked_loss(model)


def test_outputs_of_an_earlier_call_are_an_error():
    model = composer_model(build("llama"))
    apply_chunked_loss(model)
    outputs = model(batch("llama"))
    model(batch("llama", seed=1))
    with pytest.raises(SurgeryError, match="aren't those of the model's last call"):
        model.eval_forward(batch("llama"), outputs)


def test_a_model_of_losses_is_evaluated_as_ever():
    """Without `use_logits` Composer's wrapper returns the outputs."""
    model = HuggingFaceModel(build("llama"), use_logits=False)
    expected = model.eval_forward(batch("llama")).loss
    apply_chunked_loss(model)
    assert abs(model.eval_forward(batch("llama")).loss - expected) < 1e-6 * expected


def test_undo_drops_the_scores_of_the_last_batch():
    model = composer_model(build("llama"))
    report = apply_chunked_loss(model)
    model(batch("llama"))
    assert model.model.row_scores is not None
    report.undo()
    assert not {"row_scores", "loss_reading", "loss_terms", "wants_hits"} & vars(model.model).keys()
