"""Classifiers of packed rows: an output and the stock loss for each document, on real tokens only."""

import copy

import pytest
import torch
from families import CONFIGS, classifier
from reference import documents, packed, relative
from torch.nn import functional as F

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_glu,
    apply_low_precision_norm,
    apply_sequence_packing,
    apply_unpadding,
)
from cadenza.attention import attention_modules

LENGTHS = (13, 1, 2, 7, 7, 7, 31, 5)
WIDTH = 32
ORDERS = {
    "packing": (apply_sequence_packing,),
    "packing, unpadding": (apply_sequence_packing, apply_unpadding),
    "unpadding, packing": (apply_unpadding, apply_sequence_packing),
    "with a kernel": (apply_sequence_packing, apply_flash_attention),
}
POOLINGS = [(family, {}) for family in CONFIGS] + [("modernbert", {"classifier_pooling": "mean"})]
every_head = pytest.mark.parametrize(("family", "options"), POOLINGS)


def step(model, logits, loss):
    """Logits, and the gradients of the loss; the last of the logits is the loss."""
    model.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return torch.cat([logits.detach().flatten(), loss.detach()[None]]), gradients


def alone(model, docs, labels):
    logits = torch.cat([model(input_ids=doc["input_ids"]).logits for doc in docs])
    if labels.is_floating_point():
        return step(model, logits, (logits[:, 0] - labels).square().mean())
    return step(model, logits, F.cross_entropy(logits, labels))


def together(model, docs, labels, width=WIDTH):
    output = model(**packed(docs, width), labels=labels)
    assert output.logits.shape == (len(docs), model.config.num_labels)
    return step(model, output.logits, output.loss)


def classes(docs):
    return torch.arange(len(docs)) % 3


@every_head
@pytest.mark.parametrize("order", ORDERS)
def test_each_document_gets_what_it_gets_alone(family, options, order):
    model, stock = (classifier(family, **options).double() for _ in range(2))
    for apply in ORDERS[order]:
        apply(model)
    docs = documents(LENGTHS)
    theirs = alone(stock, docs, classes(docs))
    assert relative(together(model, docs, classes(docs)), theirs) < 1e-11


@pytest.mark.parametrize("lengths", [(5,), (32, 32), (1, 1, 1)], ids=["one", "full rows", "short ones"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_any_number_of_documents_a_row(family, lengths):
    model, stock = (classifier(family).double() for _ in range(2))
    apply_sequence_packing(model)
    docs = documents(lengths)
    theirs = alone(stock, docs, classes(docs))
    assert relative(together(model, docs, classes(docs)), theirs) < 1e-11


@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_one_label_is_a_number(family):
    model, stock = (classifier(family, num_labels=1).double() for _ in range(2))
    apply_sequence_packing(model)
    docs = documents(LENGTHS)
    labels = torch.linspace(-1, 1, len(docs), dtype=torch.float64)
    assert relative(together(model, docs, labels), alone(stock, docs, labels)) < 1e-11


@pytest.mark.parametrize("last", [apply_sequence_packing, apply_unpadding])
def test_it_goes_with_the_techniques_of_mosaicbert(last):
    stock = classifier("bert").double()
    for apply in (apply_alibi, apply_glu, apply_low_precision_norm):
        apply(stock)
    model = copy.deepcopy(stock)
    for apply in {apply_unpadding, apply_sequence_packing} - {last}:
        apply(model)
    last(model)
    docs = documents(LENGTHS)
    theirs = alone(stock, docs, classes(docs))
    assert relative(together(model, docs, classes(docs)), theirs) < 1e-11


def tokens_in_layers(model, **inputs):
    """How many tokens the first linear layer of the first attention computes on."""
    seen = []
    attention = next(attention_modules(model))
    linear = next(m for m in attention.modules() if type(m).__name__ in ("Linear", "Conv1D"))
    hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    model(**inputs)
    hook.remove()
    return seen[0]  # ALBERT's layers are one


@every_head
def test_layers_compute_on_real_tokens_only(family, options):
    """Neither on the padding of the packed rows, nor on that of one document a row."""
    model = classifier(family, **options)
    inputs = packed(documents(LENGTHS), WIDTH)
    assert tokens_in_layers(model, input_ids=inputs["input_ids"]) == 4 * WIDTH
    apply_sequence_packing(model)
    assert tokens_in_layers(model, **inputs) == sum(LENGTHS)


@every_head
def test_another_document_changes_nothing(family, options):
    """And the control: rows without the technique are one sequence each."""
    model = classifier(family, **options)
    docs = documents((5, 9, 4))
    inputs = packed(docs, 18)
    assert len(model(input_ids=inputs["input_ids"]).logits) == 1
    apply_sequence_packing(model)
    before = model(**inputs).logits
    inputs["input_ids"][0, 5:14] = 3
    after = model(**inputs).logits
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_undoing_it_in_any_order_leaves_a_stock_classifier():
    model, stock = classifier("roberta"), classifier("roberta")
    ids = packed(documents(LENGTHS), WIDTH)["input_ids"]
    for first in (0, 1):
        reports = [apply(model) for apply in (apply_sequence_packing, apply_unpadding)]
        reports[first].undo()
        reports[1 - first].undo()
        assert {type(m) for m in model.modules()} == {type(m) for m in stock.modules()}
        assert torch.equal(model(ids).logits, stock(ids).logits)


def test_the_rest_of_the_call_is_stock_s():
    """Segments, embeddings and positions by token; tuples; hidden states of one document a row."""
    model, stock = (classifier("bert").double() for _ in range(2))
    apply_sequence_packing(model)
    docs = documents((5, 9, 4))
    inputs = packed(docs, 20)
    embeds = stock.get_input_embeddings()(inputs.pop("input_ids"))
    segments = (torch.arange(20) % 3 == 0).long()[None]
    positions = torch.arange(20).flip(0)[None]
    given = {"inputs_embeds": embeds, "token_type_ids": segments, "position_ids": positions}
    found = model(**given, document_ids=inputs["document_ids"], output_hidden_states=True, return_dict=False)
    assert found[1][0].shape == (3, 9, 32)
    for row, (start, end) in enumerate(((0, 5), (5, 14), (14, 18))):
        own = stock(**{name: value[:, start:end] for name, value in given.items()})
        assert (found[0][row] - own.logits[0]).abs().max() < 1e-12


def test_no_documents_means_rows():
    model, stock = classifier("roberta"), classifier("roberta")
    apply_sequence_packing(model)
    ids = packed(documents(LENGTHS), WIDTH)["input_ids"]
    assert torch.equal(model(ids, document_ids=None).logits, stock(ids).logits)
