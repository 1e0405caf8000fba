"""What a call may tell the loss: as in stock code, or an error."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from families import batch, build

from cadenza.algorithms import apply_chunked_loss, apply_sparse_prediction
from cadenza.surgery import SurgeryError


def pair(family, **options):
    stock = build(family)
    ours = copy.deepcopy(stock)
    apply_chunked_loss(ours, rows=4, **options)
    return ours, stock


def assert_same(models, inputs, **options):
    found, expected = (model(**inputs, **options).loss for model in models)
    assert abs(found - expected) <= 1e-6 * abs(expected)


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
@pytest.mark.parametrize("count", [torch.tensor(100), 7])
def test_the_number_of_items_in_the_batch(family, count):
    """BERT ignores it, as in stock code."""
    assert_same(pair(family), batch(family), num_items_in_batch=count)


def test_micro_batches_add_up_to_the_batch():
    ours, stock = pair("llama")
    inputs = batch("llama")
    count = (inputs["labels"][:, 1:] != -100).sum()
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        ours(**one, num_items_in_batch=count).loss.backward()
    stock(**inputs).loss.backward()
    for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
        assert (mine.grad - theirs.grad).abs().max() < 1e-6


@pytest.mark.parametrize("family", ["modernbert", "llama"])
def test_another_label_to_ignore(family):
    inputs = batch(family)
    inputs["labels"] = inputs["labels"].masked_fill(inputs["labels"] == -100, 7)
    assert_same(pair(family), inputs, ignore_index=7)


def test_labels_that_are_shifted_already():
    inputs = batch("llama")
    assert_same(pair("llama"), inputs, shift_labels=inputs["labels"])


def test_logits_that_are_kept():
    inputs = batch("llama", padding=None)
    inputs["labels"] = inputs["labels"][:, -8:]
    assert_same(pair("llama"), inputs, logits_to_keep=8)
    with pytest.raises(SurgeryError, match=r"labels have shape \(3, 8\) for logits of \(3, 5\)"):
        pair("llama")[0](**inputs, logits_to_keep=5)


def test_tuples_and_positions():
    ours, stock = pair("bert")
    inputs = batch("bert")
    (loss,) = ours(**inputs, return_dict=False)
    expected = stock(**inputs).loss
    names = list(inspect.signature(stock.forward).parameters)
    by_place = ours(*(inputs.get(name) for name in names[: names.index("labels") + 1]))
    assert abs(loss - expected) < 1e-6 * expected
    assert abs(by_place.loss - expected) < 1e-6 * expected


def test_smoothing_and_z_loss():
    ours, stock = pair("llama", label_smoothing=0.1, z_loss=0.01)
    inputs = batch("llama")
    logits, targets = stock(**inputs).logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten()
    chosen = targets != -100
    expected = F.cross_entropy(logits[chosen], targets[chosen], label_smoothing=0.1)
    expected = expected + 0.01 * logits[chosen].logsumexp(1).square().mean()
    assert abs(ours(**inputs).loss - expected) < 1e-6 * expected
    plain = ours(**inputs, label_smoothing=0.0).loss
    assert abs(plain - expected) > 1e-3


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
@pytest.mark.parametrize("sparse", [True, False])
def test_z_loss_of_a_masked_lm(family, sparse):
    """PaLM (arXiv 2204.02311): the mean over labelled rows of `z_loss * logsumexp(logits) ** 2` is added."""
    stock = build(family).double()
    ours = copy.deepcopy(stock)
    apply_chunked_loss(ours, rows=4, z_loss=0.01)
    if sparse:
        apply_sparse_prediction(ours)
    inputs = batch(family)
    logits, labels = stock(**inputs).logits.flatten(0, 1), inputs["labels"].flatten()
    logits, labels = logits[labels != -100], labels[labels != -100]
    plain = F.cross_entropy(logits, labels)
    expected = plain + 0.01 * logits.exp().sum(1).log().square().mean()
    assert expected > plain + 1e-3
    loss = ours(**inputs).loss
    assert abs(loss - expected) < 1e-12 * expected
    expected.backward()
    loss.backward()
    for (name, mine), theirs in zip(ours.named_parameters(), stock.parameters(), strict=True):
        if theirs.grad is None:  # a pooler
            continue
        assert (mine.grad - theirs.grad).abs().max() < 1e-12 * (1 + theirs.grad.abs().max()), name


@pytest.mark.parametrize("name", ["weight", "reduction", "vocab_size"])
def test_arguments_that_need_logits_are_refused(name):
    with pytest.raises(SurgeryError, match=f"{name}= isn't known to a loss without logits"):
        pair("llama")[0](**batch("llama"), **{name: None})


def test_a_loss_function_that_was_set_later_is_refused():
    ours, _ = pair("llama")
    ours.loss_function = lambda logits, labels, **kwargs: logits.sum()
    with pytest.raises(SurgeryError, match="the model's loss is <lambda>, which needs logits"):
        ours(**batch("llama"))


def test_a_loss_module_that_was_set_later_is_refused():
    ours, _ = pair("distilbert")
    ours.mlm_loss_fct = torch.nn.CrossEntropyLoss(label_smoothing=0.5)
    with pytest.raises(SurgeryError, match="the model's loss is CrossEntropyLoss, which needs logits"):
        ours(**batch("distilbert"))


def test_modernberts_own_selection_is_refused():
    with pytest.raises(SurgeryError, match="set sparse_prediction=False in the model"):
        apply_chunked_loss(build("modernbert", sparse_prediction=True))


def test_an_output_layer_that_was_replaced_later_is_an_error():
    ours, _ = pair("llama")
    ours.lm_head = torch.nn.Linear(32, 90, bias=False)
    with pytest.raises(SurgeryError, match="the output layer was replaced by Linear since"):
        ours(**batch("llama"))


def test_a_failed_call_leaves_the_output_layer_as_it_was():
    ours, stock = pair("llama")
    inputs = batch("llama")
    wrong = {**inputs, "labels": torch.full_like(inputs["labels"], 95)}
    with pytest.raises((RuntimeError, IndexError)):
        ours(**wrong)
    del inputs["labels"]
    assert torch.equal(ours(**inputs).logits, stock(**inputs).logits)


def test_weights_of_rows():
    """A factor for each target, where it is predicted; the mean stays one over all labelled rows."""
    ours, stock = pair("llama")
    inputs, seen = batch("llama"), []

    def weigh(targets, document_ids):
        seen.append((targets, document_ids))
        return torch.arange(targets.numel()).view_as(targets)

    ours.row_weights = weigh
    targets = F.pad(inputs["labels"][:, 1:], (0, 1), value=-100)
    losses = F.cross_entropy(stock(**inputs).logits.flatten(0, 1), targets.flatten(), reduction="none")
    expected = (losses * torch.arange(losses.numel())).sum() / (targets != -100).sum()
    assert abs(ours(**inputs).loss - expected) < 1e-6 * expected
    assert torch.equal(seen[0][0], targets)
    assert seen[0][1] is None
