"""exposure_weighting: loss and gradients against plain weights, alone, with chunked_loss, in parts."""

import copy

import pytest
import torch
from composer.metrics import LanguageCrossEntropy
from families import batch, build
from text_families import build as build_family
from text_families.sweep import tokens
from torch.nn.functional import cross_entropy

from cadenza.algorithms import (
    apply_anchor_attention,
    apply_chunked_loss,
    apply_exposure_weighting,
)
from cadenza.models import composer_model
from cadenza.surgery import NoEffect, SurgeryError

LENGTHS = ((9, 4, 10), (20, 3), (2, 2, 2, 2, 2, 2, 2, 2, 7))  # of the documents behind an anchor, in each row
FAMILIES = ("llama", "qwen3", "mistral", "gemma2", "cohere", "granite", "gpt_neox", "gpt2", "opt", "phi3")
OPTIONS = {"threshold": 3, "extra": 0.7, "largest": None}


def windows():
    """Windows of 24 tokens; the anchor and some tokens have no label."""
    numbers = [[0, *(n + 1 for n, size in enumerate(sizes) for _ in range(size))] for sizes in LENGTHS]
    documents, ids = torch.tensor(numbers), tokens(3, 24)
    labels = ids.masked_fill((documents == 0) | (tokens(3, 24, seed=9) % 5 == 0), -100)
    return {"input_ids": ids, "document_ids": documents, "labels": labels}


def contexts(documents):
    """Target by target: the tokens of its document before it."""
    return [[row[:i].count(number) for i, number in enumerate(row)] for row in documents.tolist()]


def plain_weights(context, labels, threshold, extra, largest):
    """A row's weights by the definition, for the targets that a causal LM has: not the first token."""
    targets = [i for i in range(1, len(labels)) if labels[i] != -100]
    buckets = {}
    for i in targets:
        if context[i] >= threshold:
            buckets.setdefault((context[i] // threshold).bit_length(), []).append(i)
    weights = [float(i in targets) for i in range(len(labels))]
    for members in buckets.values():
        for i in members:
            weights[i] += min(extra * len(targets) / len(buckets) / len(members), largest or float("inf"))
    return weights


def expected_loss(model, inputs, options=OPTIONS, documents=None, **others):
    """In float64, from the stock logits."""
    labels = inputs["labels"]
    known = inputs["document_ids"] if documents is None else documents
    pairs = zip(contexts(known), labels.tolist(), strict=True)
    weights = torch.tensor([plain_weights(*pair, **options) for pair in pairs], dtype=torch.float64)
    logits = model(input_ids=inputs["input_ids"], **others).logits.double()
    losses = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum() / (labels[:, 1:] != -100).sum()


def still(model):
    """In training, but without dropout."""
    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def close(found, expected, tolerance=1e-5):
    return (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("chunked", ["alone", "before", "after"])
def test_loss_and_gradients_equal_plain_weights(name, chunked):
    stock, inputs = still(build_family(name)), windows()
    ours = copy.deepcopy(stock)
    if chunked == "before":
        apply_chunked_loss(ours, rows=7)
    apply_exposure_weighting(ours, **OPTIONS)
    if chunked == "after":
        apply_chunked_loss(ours, rows=7)
    output, expected = ours(**inputs), expected_loss(stock, inputs)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (output.logits is None) == (chunked != "alone")
    assert abs(stock(input_ids=inputs["input_ids"], labels=inputs["labels"]).loss - output.loss) > 1e-3
    assert close(gradients(ours, output.loss), gradients(stock, expected))


@pytest.mark.parametrize("mode", ["full", "anchor", "intra_document"])
@pytest.mark.parametrize("first", ["anchor", "exposure"])
def test_documents_count_in_every_mode_of_anchor_attention(mode, first):
    model, inputs = still(build("llama")), windows()
    steps = [lambda: apply_anchor_attention(model, mode), lambda: apply_exposure_weighting(model, **OPTIONS)]
    for step in steps if first == "anchor" else steps[::-1]:
        step()
    found = model(**inputs).loss
    expected = expected_loss(model, inputs, document_ids=inputs["document_ids"])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("padding", ["left", "right", None])
def test_without_document_ids_each_row_is_one_document_beside_its_padding(padding):
    model, inputs = still(build("llama")), batch("llama", length=24, padding=padding)
    apply_exposure_weighting(model, **OPTIONS)
    mask = inputs["attention_mask"]
    expected = expected_loss(model, inputs, documents=mask, attention_mask=mask)
    assert model(**inputs).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    if padding is None:
        del inputs["attention_mask"]
        assert model(**inputs).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_a_long_target_and_in_evaluation_the_loss_is_stock():
    stock, inputs = still(build("llama")), windows()
    plain = {key: inputs[key] for key in ("input_ids", "labels")}
    expected = stock(**plain).loss.item()
    short, long = copy.deepcopy(stock), copy.deepcopy(stock)
    apply_exposure_weighting(short, threshold=21)
    apply_exposure_weighting(long, threshold=3)
    assert short(**inputs).loss.item() == pytest.approx(expected, rel=1e-6)
    assert abs(long(**inputs).loss.item() - expected) > 1e-3
    evaluated = long.eval()(**inputs)
    assert evaluated.loss.item() == pytest.approx(expected, rel=1e-6)
    assert evaluated.logits.shape == (3, 24, 90)


@pytest.mark.parametrize("chunked", [False, True])
def test_micro_batches_weighed_by_their_targets_are_the_whole_batch(chunked):
    model, inputs = still(build("llama")), windows()
    apply_exposure_weighting(model, **OPTIONS)
    if chunked:
        apply_chunked_loss(model)
    counts = (inputs["labels"][:, 1:] != -100).sum(1)
    rows = [{key: x[i : i + 1] for key, x in inputs.items()} for i in range(3)]
    shares = [model(**row).loss * count / counts.sum() for row, count in zip(rows, counts, strict=True)]
    counted = [model(**row, num_items_in_batch=counts.sum()).loss for row in rows]
    whole = gradients(model, model(**inputs).loss)
    assert close(gradients(model, sum(shares)), whole)
    assert close(gradients(model, sum(counted)), whole)


@pytest.mark.parametrize("chunked", [False, True])
def test_labels_that_are_shifted_already_or_ignored_by_another_number(chunked):
    model, inputs = still(build("llama")), windows()
    apply_exposure_weighting(model, **OPTIONS)
    if chunked:
        apply_chunked_loss(model)
    expected = model(**inputs).loss.item()
    labels = inputs["labels"]
    shifted = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], 1)
    assert model(**inputs, shift_labels=shifted).loss.item() == pytest.approx(expected, rel=1e-6)
    inputs["labels"] = labels.masked_fill(labels == -100, -1)
    assert model(**inputs, ignore_index=-1).loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_undo_in_any_order_keeps_the_way_of_document_ids(order):
    model = composer_model(still(build("llama")), None)
    inputs, names = windows(), set(model.model_forward_args)
    before = model(inputs).loss.item()
    reports = [
        apply_anchor_attention(model),
        apply_exposure_weighting(model, **OPTIONS),
        apply_chunked_loss(model),
    ]
    weighted = expected_loss(model.model, inputs, document_ids=inputs["document_ids"])
    assert model(inputs).loss.item() == pytest.approx(weighted.item(), rel=1e-5)
    for undone in order:
        reports[undone].undo()
        left = set(order[order.index(undone) + 1 :])
        assert ("document_ids" in model.model_forward_args) == bool(left & {0, 1})
        if 1 in left and 0 not in left:
            plain = expected_loss(model.model, inputs)
            assert model(inputs).loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert model.model_forward_args == names
    assert model(inputs).loss.item() == before


@pytest.mark.parametrize("chunked", [False, True])
def test_training_metrics_stay_plain(chunked):
    model = composer_model(still(build("llama")), None)
    model.train_metrics = {"LanguageCrossEntropy": LanguageCrossEntropy()}
    inputs = windows()
    expected = model.model(input_ids=inputs["input_ids"], labels=inputs["labels"]).loss.item()
    apply_exposure_weighting(model, **OPTIONS)
    if chunked:
        apply_chunked_loss(model)
    outputs, metric = model(inputs), model.train_metrics["LanguageCrossEntropy"]
    model.update_metric(inputs, model.eval_forward(inputs, outputs), metric)
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-5)
    assert abs(outputs.loss.item() - expected) > 1e-3


def test_models_and_calls_that_are_refused():
    with pytest.raises(SurgeryError, match="BertForMaskedLM predicts no next token"):
        apply_exposure_weighting(build("bert"), 3)
    with pytest.raises(NoEffect, match="found nothing to change"):
        apply_exposure_weighting(build("llama").model, 3)
    model, inputs = build("llama").train(), windows()
    apply_exposure_weighting(model, 3)
    with pytest.raises(SurgeryError, match="label_smoothing= isn't known to the weighted loss"):
        model(**inputs, label_smoothing=0.1)
    with pytest.raises(SurgeryError, match="document_ids or attention_mask has shape"):
        model(**{**inputs, "document_ids": inputs["document_ids"][:, :5]})
    model.loss_function = lambda *_, **__: 0
    with pytest.raises(SurgeryError, match="the model's loss is <lambda>, not that of the next token"):
        model(**inputs)
