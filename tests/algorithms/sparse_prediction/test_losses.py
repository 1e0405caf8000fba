"""The loss under sparse prediction is the stock one: its count, its options, its place, another one's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from families import ENCODERS, batch, build

from cadenza.algorithms import apply_sparse_prediction
from cadenza.surgery import SurgeryError

STILL = {
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0},
    "modernbert": {},
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def pair(family, **overrides):
    """A stock model and the same one after the surgery, both in training mode without dropout."""
    stock = build(family, **STILL.get(family, NO_DROPOUT), **overrides).train()
    ours = copy.deepcopy(stock)
    apply_sparse_prediction(ours)
    return ours, stock


def step(model, inputs, scale=1.0, **options):
    """The loss, and all gradients in one vector."""
    model.zero_grad()
    loss = model(**inputs, **options).loss
    (scale * loss).backward()
    gradients = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
    return loss.detach(), torch.cat([g.flatten() for g in gradients]).double()


def assert_same(ours, theirs, tolerance=2e-6):
    """To a few roundings of float32: sums over 90 words in another order."""
    assert abs(ours[0] - theirs[0]) < tolerance * abs(theirs[0])
    assert (ours[1] - theirs[1]).norm() < tolerance * theirs[1].norm()


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("count", [torch.tensor(100), 7])
def test_the_number_of_items_in_the_batch(family, count):
    """ModernBERT divides by it; the others ignore it."""
    ours, stock = pair(family)
    inputs = batch(family)
    assert_same(*(step(model, inputs, num_items_in_batch=count) for model in (ours, stock)))
    with torch.no_grad():
        found, expected = (m.eval()(**inputs, num_items_in_batch=count).loss for m in (ours, stock))
    assert abs(found - expected) < 1e-6 * expected


def test_accumulated_losses_are_the_loss_of_the_batch():
    ours, stock = pair("modernbert")
    inputs = batch("modernbert", rows=4)
    count = (inputs["labels"] != -100).sum()
    total = sum(
        ours(**{name: rows[i : i + 1] for name, rows in inputs.items()}, num_items_in_batch=count).loss
        for i in range(4)
    )
    expected = stock(**inputs).loss
    assert abs(total - expected) < 1e-5 * expected


def smoothed(logits, labels, vocab_size, **kwargs):
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=0.5)


def test_a_loss_function_of_ones_own():
    ours, stock = pair("modernbert")
    inputs = batch("modernbert")
    plain = step(ours, inputs)
    for model in (ours, stock):
        model.loss_function = smoothed
    assert_same(step(ours, inputs), step(stock, inputs))
    assert abs(step(ours, inputs)[0] - plain[0]) > 1e-3
    assert ours(**inputs).logits.shape == (1, int((inputs["labels"] != -100).sum()), 90)


def test_a_loss_module_of_ones_own():
    ours, stock = pair("distilbert")
    for model in (ours, stock):
        model.mlm_loss_fct = torch.nn.CrossEntropyLoss(label_smoothing=0.5)
    assert_same(*(step(model, batch("distilbert")) for model in (ours, stock)))


def test_a_loss_that_stock_code_never_calls_is_not_called():
    ours, stock = pair("bert")
    for model in (ours, stock):
        model.loss_function = smoothed
    assert_same(*(step(model, batch("bert")) for model in (ours, stock)))


def test_the_loss_of_another_head_is_refused():
    ours, _ = pair("modernbert")
    ours.loss_type = "ForCausalLM"
    with pytest.raises(SurgeryError, match=r"loss is ForCausalLMLoss.*set loss_type='ForMaskedLM'"):
        ours(**batch("modernbert"))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_another_label_to_ignore(family):
    """BERT ignores -100 whatever it is told; ModernBERT does as it is told."""
    ours, stock = pair(family)
    inputs = batch(family)
    inputs["labels"] = inputs["labels"].masked_fill(inputs["labels"] == -100, 7)
    assert_same(*(step(model, inputs, ignore_index=7) for model in (ours, stock)))


def test_options_of_the_stock_loss_raise_as_they_do_there():
    for model in pair("modernbert"):
        with pytest.raises(TypeError, match="multiple values for keyword argument 'vocab_size'"):
            model(**batch("modernbert"), vocab_size=90)


def test_modernberts_own_selection():
    """It drops one more label, here 7; the mean is over the rest."""
    ours, stock = pair("modernbert", sparse_prediction=True, sparse_pred_ignore_index=7)
    inputs = batch("modernbert")
    inputs["labels"][inputs["labels"] != -100] = torch.tensor([7, 8]).repeat(50)[
        : int((inputs["labels"] != -100).sum())
    ]
    assert_same(*(step(model, inputs) for model in (ours, stock)))


@pytest.mark.parametrize("family", ENCODERS)
def test_labels_on_padding_count_as_in_stock_code(family):
    ours, stock = pair(family)
    inputs = batch(family)
    inputs["labels"][2, 12] = 5
    assert inputs["attention_mask"][2, 12] == 0
    assert_same(*(step(model, inputs) for model in (ours, stock)))


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("options", [{}, {"num_items_in_batch": 5}])
def test_no_label(family, options):
    """The mean of nothing is NaN, a sum of nothing is 0; no gradient is NaN."""
    inputs = batch(family)
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    (ours, gradient), (theirs, expected) = (step(model, inputs, **options) for model in pair(family))
    assert torch.equal(ours, theirs) or (ours.isnan() and theirs.isnan())
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert torch.equal(expected, torch.zeros_like(expected))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_what_raises_in_stock_code_raises(family):
    inputs = batch(family)
    out_of_range = inputs["labels"].clone()
    out_of_range[0, 0] = 90
    for model in pair(family):
        with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
            model(**{**inputs, "labels": out_of_range})
        with pytest.raises((RuntimeError, ValueError), match=r"size|shape"):
            model(**{**inputs, "labels": inputs["labels"][:, :6]})
        with pytest.raises(RuntimeError, match="cannot reshape tensor of 0 elements"):
            model(**{name: rows[:0] for name, rows in inputs.items()})


def test_flat_labels():
    ours, stock = pair("bert")
    inputs = batch("bert")
    assert_same(step(ours, {**inputs, "labels": inputs["labels"].flatten()}), step(stock, inputs))


def test_backward_twice():
    ours, stock = pair("bert")
    inputs = batch("bert")
    losses = [model(**inputs).loss for model in (ours, stock)]
    for loss in losses:
        (0.5 * loss).backward(retain_graph=True)
        loss.backward()
    for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
        assert (mine.grad.to_dense() - theirs.grad).abs().max() < 1e-6


def test_float16_under_autocast_and_a_loss_scale():
    """Words of a probability near 1e-7 have gradients that float16 holds only once they are scaled."""
    ours, stock = pair("bert")
    for model in (ours, stock):
        model.cls.predictions.decoder.bias.data[45:] = -13
    inputs, found = batch("bert", rows=32), []
    inputs["labels"] = inputs["labels"].where(inputs["labels"] == -100, inputs["labels"] % 45)
    for model, dtype in ((stock, torch.float32), (stock, torch.float16), (ours, torch.float16)):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            step(model, inputs, scale=2.0**15)
        found.append(model.cls.predictions.decoder.bias.grad[45:] / 2.0**15)
    exact, theirs, mine = found
    rows = int((inputs["labels"] != -100).sum())
    assert 0 < exact.max() / rows < 2.0**-25, "float16 rounds the gradient of a row to 0"
    assert (theirs - exact).norm() < 0.01 * exact.norm()
    assert (mine - exact).norm() < 0.01 * exact.norm()
