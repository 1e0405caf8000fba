"""The output layer and its loss in chunks: numbers, gradients, dtypes, and how many logits exist."""

import pytest
import torch
import torch.nn.functional as F
import torch.utils.flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cadenza.losses.chunk_pass import Chunked
from cadenza.losses.linear_cross_entropy import linear_cross_entropy
from cadenza.losses.row_losses import LogitMap, Terms

ROWS, WIDTH, WORDS = 7, 8, 33
TERMS = {
    "plain": Terms(),
    "scaled": Terms(LogitMap(0.25)),
    "capped": Terms(LogitMap(2.0, 1.5)),
    "smoothed": Terms(LogitMap(0.5), label_smoothing=0.1, z_loss=0.01),
}


def inputs(rows=ROWS, dtype=torch.float64, bias=True):
    generator = torch.Generator().manual_seed(0)
    drawn = [
        torch.randn(s, dtype=torch.float64, generator=generator)
        for s in ((rows, WIDTH), (WORDS, WIDTH), (WORDS,))
    ]
    hidden, weight, own_bias = (x.to(dtype).requires_grad_() for x in drawn)
    labels = torch.randint(0, WORDS - 3, (rows,), generator=generator)
    return hidden, weight, own_bias if bias else None, labels


def reference(hidden, weight, bias, labels, terms=TERMS["plain"], words=None):
    """(rows,) the losses from all logits."""
    logits = terms.map(F.linear(hidden, weight, bias)[:, :words])
    plain = F.cross_entropy(logits, labels, reduction="none", label_smoothing=terms.label_smoothing)
    return plain + terms.z_loss * logits.logsumexp(1).square()


def gradients(loss, *tensors, **options):
    return torch.autograd.grad(loss, [t for t in tensors if t is not None], **options)


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("rows", [1, 3, ROWS, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("words", [None, WORDS - 3])
def test_losses_and_gradients_are_those_of_all_logits(terms, rows, bias, words):
    *parts, labels = inputs(bias=bias)
    weights = torch.linspace(0, 2, ROWS, dtype=torch.float64)
    loss, scores = linear_cross_entropy(
        *parts, labels, how=Chunked(terms, rows, True, words), weights=weights, count=5
    )
    expected = (weights * reference(*parts, labels, terms, words)).sum() / 5
    assert abs(loss - expected) < 1e-13
    for ours, theirs in zip(gradients(3 * loss, *parts), gradients(3 * expected, *parts), strict=True):
        assert (ours - theirs).abs().max() < 1e-13
    logits = terms.map(F.linear(*parts)[:, :words])
    assert (scores.losses - F.cross_entropy(logits, labels, reduction="none")).abs().max() < 1e-13
    assert torch.equal(scores.hits, logits.argmax(1) == labels)


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_a_gradient_of_the_gradient(terms):
    *parts, labels = inputs()
    found = []
    for loss in (
        linear_cross_entropy(*parts, labels, how=Chunked(terms, 3))[0],
        reference(*parts, labels, terms).mean(),
    ):
        first = gradients(loss, *parts, create_graph=True)
        penalty = sum(each.square().sum() for each in first)
        found.append(gradients(loss + penalty, *parts))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() < 1e-12


def test_a_retained_graph_gives_the_same_gradient_again():
    *parts, labels = inputs()
    loss, _ = linear_cross_entropy(*parts, labels, how=Chunked())
    first = gradients(loss, *parts, retain_graph=True)
    half = gradients(loss / 2, *parts, retain_graph=True)
    last = gradients(loss, *parts)
    assert all(torch.equal(a, c) and torch.equal(a / 2, b) for a, b, c in zip(first, half, last, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        gradients(loss, *parts)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient(frozen):
    *parts, labels = inputs()
    parts[frozen].requires_grad_(False)
    linear_cross_entropy(*parts, labels, how=Chunked(rows=3))[0].backward()
    reference(
        *(twins := [p.detach().requires_grad_(p.requires_grad) for p in parts]), labels
    ).mean().backward()
    for ours, theirs in zip(parts, twins, strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or (ours.grad - theirs.grad).abs().max() < 1e-13


class Largest(TorchDispatchMode):
    """Remembers the most rows of a tensor with a column for each word."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 2 and tensor.shape[1] == WORDS:
                self.rows = max(self.rows, len(tensor))
        return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_more_logits_than_a_chunk_exist(dtype):
    *parts, labels = inputs(rows=50, dtype=dtype)
    with Largest() as largest:
        linear_cross_entropy(*parts, labels, how=Chunked(rows=10))[0].backward()
    assert largest.rows == 10


def test_without_gradients_none_are_made():
    """The product for the hidden state's gradient is counted; the one for the weight's is in place."""
    *parts, labels = inputs(rows=50)
    found = []
    for context in (torch.enable_grad(), torch.no_grad()):
        with context, torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            loss, _ = linear_cross_entropy(*parts, labels, how=Chunked(rows=10))
        found.append(counter.get_total_flops())
        assert abs(loss - reference(*parts, labels).mean()) < 1e-13
    assert found[0] == 2 * found[1]


@pytest.mark.parametrize("count", [None, 5, torch.tensor(5)])
def test_no_rows(count):
    *parts, labels = inputs(rows=0)
    loss, scores = linear_cross_entropy(*parts, labels, how=Chunked(), count=count)
    loss.backward()
    assert loss.isnan() if count is None else loss == 0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in parts)
    assert len(scores.losses) == 0


def stock(hidden, weight, bias, labels):
    return F.cross_entropy(F.linear(hidden, weight, bias).float(), labels)


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_no_worse_than_stock(autocast):
    """Against float64 from the same numbers; both round products and gradients to bfloat16."""
    errors = []
    for loss_of in (stock, lambda *x: linear_cross_entropy(*x, how=Chunked(rows=16))[0]):
        *parts, labels = inputs(rows=128, dtype=torch.float32 if autocast else torch.bfloat16)
        exact = [p.detach().double().requires_grad_() for p in parts]
        reference(*exact, labels).mean().backward()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(*parts, labels)
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(p.grad.dtype == p.dtype for p in parts)
        errors.append([(p.grad - e.grad).norm() / e.grad.norm() for p, e in zip(parts, exact, strict=True)])
    for theirs, ours in zip(*errors, strict=True):
        assert ours < 1.1 * theirs + 1e-6, "a tenth for the luck of roundings"


@pytest.mark.parametrize("autocast", [True, False])
def test_float16_under_a_loss_scale(autocast):
    """Neither too small a word's gradient (1.2e-8 here) nor a sum over rows too large for float16."""
    rows, scale = 500, 2.0**15
    hidden = torch.ones(rows, 1, dtype=torch.float32 if autocast else torch.float16, requires_grad=True)
    weight = torch.zeros(50, 1, dtype=hidden.dtype)
    weight[0] = 12
    weight.requires_grad_()
    labels = torch.zeros(rows, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.float16, enabled=autocast):
        loss, _ = linear_cross_entropy(hidden, weight, None, labels, how=Chunked(rows=100))
    (scale * loss).backward()
    expected = scale * torch.softmax(weight.detach().double()[:, 0], 0)[1]
    assert expected / scale / rows < 2.0**-25
    assert (weight.grad[1:, 0].double() - expected).abs().max() < 2e-3 * expected
    assert weight.grad.isfinite().all()
    assert hidden.grad.isfinite().all()


def test_a_label_beyond_the_words_is_an_error():
    *parts, labels = inputs()
    labels[2] = WORDS - 1
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        linear_cross_entropy(*parts, labels, how=Chunked(words=WORDS - 3))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits(size):
    hidden, labels = torch.eye(2), torch.tensor([1, 0])
    weight = torch.tensor([[0.0, 2.0], [0.1, 2.3], [-0.7, 1.0]]) + size
    loss, _ = linear_cross_entropy(hidden, weight, None, labels, how=Chunked())
    assert abs(loss - F.cross_entropy(weight.t().double(), labels)) < 1e-6
